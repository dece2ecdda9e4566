"""The whole policy: backbone, action encoder and action decoder, and the losses that train them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from export.families.action_prior.action_decoder import ActionDecoder
from export.families.action_prior.action_encoder import ActionEncoder
from export.families.action_prior.backbone import Backbone, Seen
from export.families.action_prior.batch import Draw, Totals, Window, noised_chunk
from export.families.action_prior.config import PolicyConfig
from export.families.action_prior.flow import integrate
from export.families.action_prior.history_mlp import HistoryMlp
from export.families.action_prior.qwen import PreciseLinear

__all__ = ["ActionPrior", "Observation", "VlaPolicy", "Window"]

Losses = dict[str, torch.Tensor]
"""The terms of a loss by name, "loss" their weighted sum; what a part of a batch contributes to the batch's."""


@dataclass(frozen=True)
class Observation:
    """What the backbone is given at the step: frames, or what its vision tower has made of them, and the instruction.

    Frames (batch, cameras, h, w, 3) uint8, tokens and token_mask (batch, budget).
    """

    frames: torch.Tensor | Seen
    tokens: torch.Tensor
    token_mask: torch.Tensor

    def seen_by(self, backbone: Backbone) -> Seen:
        """What the vision tower makes of the frames."""
        return self.frames if isinstance(self.frames, Seen) else backbone.see(self.frames)


class ActionPrior(nn.Module):
    """Stage 1: encoder and decoder learn trajectories alone."""

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = ActionEncoder(config)
        self.decoder = ActionDecoder(config)
        if config.pose_weight > 0:
            self.pose = PreciseLinear(config.latent, config.state_slots)

    def encode_future(self, window: Window) -> torch.Tensor:
        """z of the trajectory that the window's chunk belongs to, (batch, latent)."""
        z: torch.Tensor = self.encoder(window.states, window.actions, window.valid, window.embodiment)
        return z

    def flow_loss(self, window: Window, z: torch.Tensor, draw: Draw, totals: Totals) -> torch.Tensor:
        """Mean squared error of the velocity on valid, uncommitted actions."""
        noised = noised_chunk(self.config, window, draw)
        velocity = self.decoder(noised.x, noised.r, z)
        return ((velocity - noised.velocity).square() * noised.counts).sum() / totals.actions

    def pose_loss(self, window: Window, z: torch.Tensor, totals: Totals) -> torch.Tensor:
        """Squared error of the newest state, read from z by one linear layer.

        Reconstructing relative actions gives an encoder no reason to keep where the arm is, and a small one drops it;
        but its latent is all that tells the VLM.
        """
        newest = window.states[torch.arange(len(z), device=z.device), window.valid.sum(dim=1) - 1]
        error: torch.Tensor = (self.pose(z) - newest).square().sum() / totals.windows
        return error

    def losses(self, window: Window, z: torch.Tensor, draw: Draw, totals: Totals) -> Losses:
        """What stage 1 learns from z: L_recon, and the pose if the configuration weighs it."""
        losses = {"reconstruct": self.flow_loss(window, z, draw, totals)}
        losses["loss"] = losses["reconstruct"]
        if self.config.pose_weight > 0:
            losses["pose"] = self.pose_loss(window, z, totals)
            losses["loss"] = losses["loss"] + self.config.pose_weight * losses["pose"]
        return losses

    @torch.no_grad()
    def chunk(
        self,
        noise: torch.Tensor,
        z: torch.Tensor,
        prefix: torch.Tensor,
        committed: torch.Tensor,
        used: torch.Tensor,
        steps: int | None = None,
    ) -> torch.Tensor:
        """A chunk of normalised actions, (batch, horizon, action_slots), from noise of the same shape.

        `committed` of one row is that of every row.
        """
        steps = steps or self.config.flow_steps
        return integrate(self.decoder.velocity_field(z, steps), noise, prefix, committed, used, steps)


class VlaPolicy(ActionPrior):
    """Stage 2 and deployment: the prior with the VLM in front."""

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__(config)
        self.backbone = Backbone(config)
        if config.history_compressor == "mlp":
            self.history_mlp = HistoryMlp(config)

    def latents(self, window: Window, observation: Observation, choices: list[torch.Tensor]) -> list[torch.Tensor]:
        """z' of the observation, (batch, latent), once for every choice of which windows get their history token.

        Each choice is bool (batch,). The frames are seen once.
        """
        z_history = self._history(window)
        seen = observation.seen_by(self.backbone)
        tokens, mask = observation.tokens, observation.token_mask
        known = window.past_mask.any(dim=1)
        outputs = (
            self.backbone.outputs(seen, tokens, mask, z_history, known & chosen, window.embodiment)
            for chosen in choices
        )
        return [self.backbone.latent(output) for output in outputs]

    def _history(self, window: Window) -> torch.Tensor:
        compressor = self.config.history_compressor
        if compressor == "none":
            return torch.zeros(len(window.embodiment), self.config.latent, device=window.actions.device)
        past = (window.past_states, window.past_actions, window.past_mask, window.embodiment)
        if compressor == "mlp":
            z_history: torch.Tensor = self.history_mlp(*past)
            return z_history
        z_history = self.encoder(*past)
        return z_history if self.config.history_gradient else z_history.detach()

    def vla_losses(
        self, window: Window, observation: Observation, draw: Draw, totals: Totals, distillation: float
    ) -> Losses:
        """`L_pred + lambda (L_align + L_recon)`; `distillation` is lambda.

        With `history_passes` "both" it is the paper's mean of the loss with the history token and without. With
        "sampled" a share of the batch goes without, which for a half has the same expectation at half the cost. L_recon
        depends on no history. It teaches only encoder and decoder, and is left away where neither is trained.
        """
        choices = [draw.with_history]
        if self.config.history_passes == "both" and self.config.history_compressor != "none":
            choices = [torch.ones_like(draw.with_history), torch.zeros_like(draw.with_history)]
        found = self.latents(window, observation, choices)
        losses = {"predict": _mean([self.flow_loss(window, z_prime, draw, totals) for z_prime in found])}
        losses["loss"] = losses["predict"]
        if distillation > 0:
            z = self.encode_future(window)
            away = [(z_prime - z.detach()).square().sum() / totals.windows for z_prime in found]
            losses["align"] = _mean(away)
            teaching = losses["align"]
            if z.requires_grad:
                prior = self.losses(window, z, draw, totals)
                losses, teaching = {**prior, **losses}, teaching + prior["loss"]
            losses["loss"] = losses["predict"] + distillation * teaching
        return losses


def _mean(terms: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(terms).mean() if len(terms) > 1 else terms[0]
