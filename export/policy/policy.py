"""The whole policy: backbone, action encoder and action decoder, and the losses that train them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from export.policy.action_decoder import ActionDecoder
from export.policy.action_encoder import ActionEncoder
from export.policy.backbone import Backbone, Seen
from export.policy.config import PolicyConfig
from export.policy.flow import integrate, noised


@dataclass(frozen=True)
class Window:
    """A batch of training windows around one step; floats are normalised.

    states (batch, horizon, state_slots), actions (batch, horizon, action_slots): what follows the step
    valid (batch, horizon): False past the end of an episode or instruction
    slots (batch, action_slots): the action slots this embodiment uses
    past_states, past_actions, past_mask: the history pairs before the step, (batch, history, ...)
    embodiment (batch,) int64
    """

    states: torch.Tensor
    actions: torch.Tensor
    valid: torch.Tensor
    slots: torch.Tensor
    past_states: torch.Tensor
    past_actions: torch.Tensor
    past_mask: torch.Tensor
    embodiment: torch.Tensor


@dataclass(frozen=True)
class Observation:
    """What the backbone is given at the step: frames, or what its vision tower has made of them, and the instruction.

    Frames (batch, cameras, h, w, 3) uint8, tokens and token_mask (batch, budget).
    """

    frames: torch.Tensor | Seen
    tokens: torch.Tensor
    token_mask: torch.Tensor


class ActionPrior(nn.Module):
    """Stage 1: encoder and decoder learn trajectories alone."""

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = ActionEncoder(config)
        self.decoder = ActionDecoder(config)
        if config.pose_weight > 0:
            self.pose = nn.Linear(config.latent, config.state_slots)

    def encode_future(self, window: Window) -> torch.Tensor:
        """z of the trajectory that the window's chunk belongs to, (batch, latent)."""
        return self.encoder(window.states, window.actions, window.valid, window.embodiment)

    def flow_loss(self, window: Window, z: torch.Tensor) -> torch.Tensor:
        """Mean squared error of the velocity on valid, uncommitted actions. Draws noise, r and a delay per sample."""
        config, actions = self.config, window.actions
        batch, horizon, _ = actions.shape
        alpha, beta = config.flow_time_beta
        time = torch.distributions.Beta(alpha, beta).sample((batch, 1)).to(actions).expand(batch, horizon)
        delay = torch.randint(0, config.max_delay + 1, (batch, 1), device=actions.device)
        committed = (torch.arange(horizon, device=actions.device) < delay) & window.valid
        slots = torch.ones_like(window.slots) if config.loss_on_unused_slots else window.slots
        noise = torch.randn_like(actions) * slots[:, None]
        r = torch.where(committed, 1.0, time)
        velocity = self.decoder(noised(actions, noise, r), r, z)
        weight = (window.valid & ~committed)[..., None] * slots[:, None]
        error = (velocity - (actions - noise)).square() * weight
        return error.sum() / weight.sum().clamp(min=1)

    def pose_loss(self, window: Window, z: torch.Tensor) -> torch.Tensor:
        """Squared error of the newest state, read from z by one linear layer.

        Reconstructing relative actions gives an encoder no reason to keep where the arm is, and a small one drops it;
        but its latent is all that tells the VLM.
        """
        newest = window.states[torch.arange(len(z), device=z.device), window.valid.sum(dim=1) - 1]
        error: torch.Tensor = (self.pose(z) - newest).square().sum(dim=-1).mean()
        return error

    def losses(self, window: Window, z: torch.Tensor) -> dict[str, torch.Tensor]:
        """What stage 1 learns from z: L_recon, and the pose if the configuration weighs it; "loss" is their sum."""
        losses = {"reconstruct": self.flow_loss(window, z)}
        losses["loss"] = losses["reconstruct"]
        if self.config.pose_weight > 0:
            losses["pose"] = self.pose_loss(window, z)
            losses["loss"] = losses["loss"] + self.config.pose_weight * losses["pose"]
        return losses


class VlaPolicy(ActionPrior):
    """Stage 2 and deployment: the prior with the VLM in front."""

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__(config)
        self.backbone = Backbone(config)

    def latent(self, window: Window, observation: Observation, with_history: torch.Tensor) -> torch.Tensor:
        """z' of the observation, (batch, latent); `with_history` is bool (batch,)."""
        z_history = self.encoder(window.past_states, window.past_actions, window.past_mask, window.embodiment)
        if not self.config.history_gradient:
            z_history = z_history.detach()
        present = window.past_mask.any(dim=1) & with_history
        frames = observation.frames
        seen = frames if isinstance(frames, Seen) else self.backbone.see(frames)
        tokens, mask = observation.tokens, observation.token_mask
        return self.backbone.latent(self.backbone.outputs(seen, tokens, mask, z_history, present, window.embodiment))

    def vla_losses(self, window: Window, observation: Observation, distillation: float) -> dict[str, torch.Tensor]:
        """`L_pred + lambda (L_align + L_recon)`; `distillation` is lambda. Returns the sum as "loss" and its parts.

        The paper averages the loss with and without the history token; here a share of the batch goes without, which
        for a half has the same expectation at half the cost. L_recon teaches only encoder and decoder, and is left
        away where neither is trained.
        """
        batch = window.embodiment.shape[0]
        with_history = torch.arange(batch, device=window.actions.device) >= round(self.config.without_history * batch)
        z_prime = self.latent(window, observation, with_history)
        losses = {"predict": self.flow_loss(window, z_prime)}
        losses["loss"] = losses["predict"]
        if distillation > 0:
            z = self.encode_future(window)
            losses["align"] = (z_prime - z.detach()).square().sum(dim=-1).mean()
            teaching = losses["align"]
            if z.requires_grad:
                prior = self.losses(window, z)
                losses, teaching = {**prior, **losses}, teaching + prior["loss"]
            losses["loss"] = losses["predict"] + distillation * teaching
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
        """A chunk of normalised actions, (batch, horizon, action_slots), from noise of the same shape."""
        return integrate(
            lambda x, r: self.decoder(x, r, z), noise, prefix, committed, used, steps or self.config.flow_steps
        )
