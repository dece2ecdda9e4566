"""The three modules that become engines, and the inputs and outputs each one has."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from export.engines.static_backbone import StaticBackbone
from export.policy.action_decoder import ActionDecoder, Modulation
from export.policy.config import PolicyConfig
from export.policy.flow import flow_schedule
from export.policy.policy import VlaPolicy


class UnrolledDecoder(nn.Module):
    """All Euler steps in one graph; time embedding and modulations are constants of the flow schedule."""

    def __init__(self, decoder: ActionDecoder, steps: int) -> None:
        super().__init__()
        self.decoder = decoder
        self.steps = steps
        with torch.no_grad():
            one = torch.ones(1, decoder.config.horizon)
            self.register_buffer("clean", _constants(decoder.modulations(one)))
            noisy = [_constants(decoder.modulations(one * time)) for time in flow_schedule(steps)]
            self.register_buffer("noisy", torch.stack(noisy))

    def forward(
        self,
        noise: torch.Tensor,
        z: torch.Tensor,
        prefix: torch.Tensor,
        committed: torch.Tensor,
        used: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The chunk and the very first velocity, both (1, horizon, action_slots).

        noise, prefix (1, horizon, action_slots) float; z (1, latent) float; committed (1, horizon) bool;
        used (1, action_slots) float
        """
        as_token = self.decoder.config.latent_injection == "token"
        clean = torch.cat([torch.ones_like(committed[:, :1]), committed], dim=1) if as_token else committed
        used = used[:, None]
        x = noise * used
        first = x
        for step in range(self.steps):
            x = torch.where(committed[..., None], prefix, x)
            velocity = self.decoder.field(x, self.modulations(step, clean), z)
            first = velocity if step == 0 else first
            x = x + velocity * used / self.steps
        return torch.where(committed[..., None], prefix, x), first

    def modulations(self, step: int, clean: torch.Tensor) -> list[Modulation]:
        """Per norm: constants for clean tokens where `clean` (1, tokens) holds, for this step's time elsewhere."""
        chosen = torch.where(clean[..., None, None, None], self.clean, self.noisy[step])
        return [(norm[..., 0, :], norm[..., 1, :], norm[..., 2, :]) for norm in chosen.unbind(dim=2)]


def _constants(modulations: list[Modulation]) -> torch.Tensor:
    """Modulations of one flow time, shape (norms, 3, hidden); they are the same for every token of that time."""
    return torch.stack([torch.stack([part[0, -1] for part in modulation]) for modulation in modulations])


@dataclass(frozen=True)
class Graph:
    """One engine to be: its module, example inputs by name, and the names of its outputs."""

    name: str
    module: nn.Module
    inputs: dict[str, torch.Tensor]
    outputs: tuple[str, ...]


def history_graph(policy: VlaPolicy) -> Graph:
    """`history_encoder`: the last state-action pairs to z_hist."""
    config = policy.config
    mask = torch.ones(1, config.history, dtype=torch.bool)
    mask[:, : config.history // 2] = False  # real padding, so that no all-true shortcut is traced
    return Graph(
        "history_encoder",
        policy.encoder,
        {
            "states": torch.randn(1, config.history, config.state_slots),
            "actions": torch.randn(1, config.history, config.action_slots),
            "mask": mask,
            "embodiment": torch.zeros(1, dtype=torch.int64),
        },
        ("z_history",),
    )


def backbone_graph(policy: VlaPolicy) -> Graph:
    """`backbone`: frames, instruction and z_hist to z'."""
    config = policy.config
    token_mask = torch.ones(1, config.token_budget, dtype=torch.bool)
    token_mask[:, config.token_budget // 2 :] = False
    return Graph(
        "backbone",
        StaticBackbone(policy.backbone),
        {
            "frames": torch.randint(0, 256, (1, config.cameras, *config.frame_px, 3), dtype=torch.uint8),
            "tokens": torch.randint(0, config.vocabulary, (1, config.token_budget)),
            "token_mask": token_mask,
            "history": nn.functional.normalize(torch.randn(1, config.latent), dim=-1),
            "has_history": torch.ones(1, dtype=torch.bool),
            "embodiment": torch.zeros(1, dtype=torch.int64),
        },
        ("z",),
    )


def decoder_graph(policy: VlaPolicy, steps: int) -> Graph:
    """`action_decoder`: noise, z' and the committed prefix to a chunk."""
    config: PolicyConfig = policy.config
    shape = (1, config.horizon, config.action_slots)
    return Graph(
        "action_decoder",
        UnrolledDecoder(policy.decoder, steps),
        {
            "noise": torch.randn(shape),
            "z": nn.functional.normalize(torch.randn(1, config.latent), dim=-1),
            "prefix": torch.randn(shape),
            "committed": torch.arange(config.horizon)[None] < 2,
            "used": (torch.arange(config.action_slots)[None] % 2).float(),
        },
        ("chunk", "first_velocity"),
    )
