"""The three modules that become engines, and the inputs and outputs each one has."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from export.engines.static_backbone import StaticBackbone
from export.engines.static_decoder import DecoderStep, UnrolledDecoder
from export.engines.static_encoder import StaticEncoder
from export.engines.static_layers import project_linears
from export.families.action_prior.action_decoder import ActionDecoder
from export.families.action_prior.action_encoder import ActionEncoder
from export.families.action_prior.backbone import Backbone
from export.families.action_prior.config import PolicyConfig
from export.families.action_prior.history_mlp import HistoryMlp
from export.families.action_prior.parts import history_part

ENGINES = ("history_encoder", "backbone", "action_decoder")
"""In the order in which they run."""


def part_of(engine: str, config: PolicyConfig) -> str:
    """The policy's part behind an engine."""
    return {"history_encoder": history_part(config), "backbone": "backbone", "action_decoder": "decoder"}[engine]


@dataclass(frozen=True)
class Graph:
    """One engine to be: the module that is traced, example inputs by name, and the names of its outputs.

    `rows` are the constants of every flow step, for a decoder: what is traced is one step, and with `finished` what
    the chunk is made of its state. `whole` computes what the finished engine will.
    """

    name: str
    module: nn.Module
    inputs: dict[str, torch.Tensor]
    outputs: tuple[str, ...]
    whole: nn.Module
    rows: torch.Tensor | None = None
    finished: bool = False


def graph_of(name: str, part: nn.Module, steps: int) -> Graph:
    """The graph of an engine; `part` is used up."""
    if isinstance(part, ActionEncoder | HistoryMlp):
        return history_graph(part)
    if isinstance(part, Backbone):
        return backbone_graph(part)
    assert isinstance(part, ActionDecoder), name
    return decoder_graph(part, steps)


def history_graph(encoder: ActionEncoder | HistoryMlp) -> Graph:
    """`history_encoder`: the last state-action pairs to z_hist."""
    config = encoder.config
    mask = torch.ones(1, config.history, dtype=torch.bool)
    mask[:, : config.history // 2] = False  # real padding, so that no all-true shortcut is traced
    inputs = {
        "states": torch.randn(1, config.history, config.state_slots),
        "actions": torch.randn(1, config.history, config.action_slots),
        "mask": mask,
        "embodiment": torch.zeros(1, dtype=torch.int64),
    }
    static = StaticEncoder(encoder) if isinstance(encoder, ActionEncoder) else project_linears(encoder, precise=True)
    module = static.eval()
    return Graph("history_encoder", module, inputs, ("z_history",), module)


def backbone_graph(backbone: Backbone) -> Graph:
    """`backbone`: frames, instruction and z_hist to z'."""
    config = backbone.config
    token_mask = torch.ones(1, config.token_budget, dtype=torch.bool)
    token_mask[:, config.token_budget // 2 :] = False
    inputs = {
        "frames": torch.randint(0, 256, (1, config.cameras, *config.frame_px, 3), dtype=torch.uint8),
        "tokens": torch.randint(0, config.vocabulary, (1, config.token_budget)),
        "token_mask": token_mask,
        "history": nn.functional.normalize(torch.randn(1, config.latent), dim=-1),
        "has_history": torch.ones(1, dtype=torch.bool),
        "embodiment": torch.zeros(1, dtype=torch.int64),
    }
    module = StaticBackbone(backbone).eval()
    return Graph("backbone", module, inputs, ("z",), module)


def decoder_graph(decoder: ActionDecoder, steps: int) -> Graph:
    """`action_decoder`: noise, z' and the committed prefix to a chunk."""
    config = decoder.config
    shape = (1, config.horizon, config.action_slots)
    step = DecoderStep(decoder, steps).eval()
    inputs = {
        "noise": torch.randn(shape),
        "z": nn.functional.normalize(torch.randn(1, config.latent), dim=-1),
        "prefix": torch.randn(shape),
        "committed": torch.arange(config.horizon)[None] < 2,
        "used": (torch.arange(config.action_slots)[None] % 2).float(),
    }
    return Graph("action_decoder", step, inputs, ("chunk", "first_velocity"), UnrolledDecoder(step).eval(), step.noisy)
