"""The policy's three parts, each built on its own, so that the largest one sets the memory an export needs."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn

from export.policy.action_decoder import ActionDecoder
from export.policy.action_encoder import ActionEncoder
from export.policy.backbone import Backbone
from export.policy.config import PolicyConfig

PARTS: dict[str, type[nn.Module]] = {"encoder": ActionEncoder, "backbone": Backbone, "decoder": ActionDecoder}


class PolicyParts(Protocol):
    """Where the parts come from: a checkpoint, or random weights under pretrained ones."""

    config: PolicyConfig

    def part(self, name: str) -> nn.Module:
        """A fresh copy of one of `PARTS`, in eval mode; the same weights every time."""


class RandomParts:
    """Parts with seeded random weights: the sizes of a configuration without a checkpoint for it."""

    def __init__(self, config: PolicyConfig, seed: int) -> None:
        self.config, self.seed = config, seed

    def part(self, name: str) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed + list(PARTS).index(name))
            return PARTS[name](self.config).eval()
