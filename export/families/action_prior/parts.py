"""The policy's parts, each built on its own, so that the largest one sets the memory an export needs."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn

from export.families.action_prior.action_decoder import ActionDecoder
from export.families.action_prior.action_encoder import ActionEncoder
from export.families.action_prior.backbone import Backbone
from export.families.action_prior.config import PolicyConfig
from export.families.action_prior.embodiment import Embodiment
from export.families.action_prior.history_mlp import HistoryMlp

PARTS: dict[str, type[nn.Module]] = {
    "encoder": ActionEncoder,
    "backbone": Backbone,
    "decoder": ActionDecoder,
    "history_mlp": HistoryMlp,
}


def parts_of(config: PolicyConfig) -> tuple[str, ...]:
    """The parts that a whole policy of this configuration has."""
    return tuple(name for name in PARTS if name != "history_mlp" or config.history_compressor == "mlp")


def history_part(config: PolicyConfig) -> str:
    """The part that makes z_hist. Without a compressor it is the encoder still, and the backbone looks at no z_hist."""
    return "history_mlp" if config.history_compressor == "mlp" else "encoder"


class PolicyParts(Protocol):
    """Where the parts come from: a checkpoint, or random weights under pretrained ones."""

    @property
    def config(self) -> PolicyConfig: ...

    @property
    def embodiments(self) -> tuple[Embodiment, ...]:
        """The arms that the policy was trained for; none for random weights."""

    def part(self, name: str) -> nn.Module:
        """A fresh copy of one of `PARTS`, in eval mode; the same weights every time."""


class RandomParts:
    """Parts with seeded random weights: the sizes of a configuration without a checkpoint for it."""

    embodiments: tuple[Embodiment, ...] = ()

    def __init__(self, config: PolicyConfig, seed: int) -> None:
        self.config, self.seed = config, seed

    def part(self, name: str) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed + list(PARTS).index(name))
            return PARTS[name](self.config).eval()
