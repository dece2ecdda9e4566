"""The action decoder D: a velocity field over chunks, conditioned on one latent and on the flow time."""

from __future__ import annotations

import math

import torch
from torch import nn
from transformers.models.qwen3.modeling_qwen3 import (
    Qwen3Attention,
    Qwen3MLP,
    Qwen3RMSNorm,
    Qwen3RotaryEmbedding,
)

from export.families.action_prior.config import PolicyConfig
from export.families.action_prior.flow import VelocityField, target_time
from export.families.action_prior.qwen import PreciseLinear, attention_bias, qwen3_config

Modulation = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Scale, shift and gate, each (batch, tokens, hidden)."""


class TimeEmbedding(nn.Module):
    """Sine-cosine features of the flow time r in [0, 1], then a small MLP (as in pi0.5)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        periods = torch.exp(torch.linspace(math.log(4e-3), math.log(4.0), width // 2))
        self.frequencies = nn.Buffer(2 * math.pi / periods, persistent=False)
        self.mlp = nn.Sequential(PreciseLinear(width, hidden), nn.SiLU(), PreciseLinear(hidden, hidden), nn.SiLU())

    def start_silent(self) -> None:
        """Makes every embedding zero until the last layer has learnt otherwise."""
        for weights in self.mlp[2].parameters():
            nn.init.zeros_(weights)

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        """Embeds times of any shape (...,) to (..., hidden)."""
        angles = r[..., None] * self.frequencies
        return self.mlp(torch.cat([angles.sin(), angles.cos()], dim=-1))


class AdaptiveNorm(nn.Module):
    """RMS norm whose scale, shift and residual gate follow the flow time; starts out as the plain norm."""

    def __init__(self, hidden: int, condition: int) -> None:
        super().__init__()
        self.norm = Qwen3RMSNorm(hidden)
        self.modulation = PreciseLinear(condition, 3 * hidden)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def modulate(self, condition: torch.Tensor) -> Modulation:
        scale, shift, gate = self.modulation(condition).chunk(3, dim=-1)
        return 1 + scale, shift, 1 + gate

    def forward(self, x: torch.Tensor, modulation: Modulation) -> torch.Tensor:
        return self.norm(x) * modulation[0] + modulation[1]


class DecoderLayer(nn.Module):
    """A Qwen3 layer whose two norms are adaptive."""

    def __init__(self, config: PolicyConfig, index: int) -> None:
        super().__init__()
        qwen = qwen3_config(config.decoder)
        hidden = config.decoder.hidden
        self.self_attn = Qwen3Attention(qwen, index)
        self.mlp = Qwen3MLP(qwen)
        self.input_layernorm = AdaptiveNorm(hidden, hidden)
        self.post_attention_layernorm = AdaptiveNorm(hidden, hidden)

    def forward(
        self,
        x: torch.Tensor,
        modulations: tuple[Modulation, Modulation],
        rotary: tuple[torch.Tensor, torch.Tensor],
        bias: torch.Tensor | None,
    ) -> torch.Tensor:
        before_attention, before_mlp = modulations
        attended, _ = self.self_attn(self.input_layernorm(x, before_attention), rotary, bias)
        x = x + before_attention[2] * attended
        return x + before_mlp[2] * self.mlp(self.post_attention_layernorm(x, before_mlp))


class ActionDecoder(nn.Module):
    """`v = D(x_r, r, z)` with one flow time for every action of the chunk.

    With `target_time` it is `D(x_r, r -> s, z)`, the mean velocity on the way from r to s, and s = r gives the velocity
    at r. The size of the step s - r is embedded as r is, and added; its last layer starts at zero, so that a decoder
    which gets this input computes what it did before (SnapFlow, arXiv:2604.05656).
    """

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        self.config = config
        hidden = config.decoder.hidden
        self.action_in = PreciseLinear(config.action_slots, hidden)
        self.latent_in = PreciseLinear(config.latent, hidden)
        self.time = TimeEmbedding(config.time_width, hidden)
        if config.target_time:
            self.step = TimeEmbedding(config.time_width, hidden)
            self.step.start_silent()
        self.layers = nn.ModuleList(DecoderLayer(config, index) for index in range(config.decoder.layers))
        self.norm = AdaptiveNorm(hidden, hidden)
        self.action_out = PreciseLinear(hidden, config.action_slots)
        self.rotary = Qwen3RotaryEmbedding(qwen3_config(config.decoder))

    def forward(
        self, x: torch.Tensor, r: torch.Tensor, z: torch.Tensor, target: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The velocity, shape (batch, horizon, action_slots).

        x float (batch, horizon, action_slots), the noised chunk x_r
        r float (batch, horizon), one flow time per action: 0 is noise, 1 is data; one row serves a whole batch
        z float (batch, latent), of unit length
        target float (batch, horizon), the time s at which the step ends; None is r itself. Without `target_time` in the
            configuration it makes no difference
        """
        return self.field(x, self.modulations(r, target), z)

    def velocity_field(self, z: torch.Tensor, steps: int) -> VelocityField:
        """What `integrate` follows from noise to a chunk in so many steps."""
        return lambda x, r: self(x, r, z, target_time(r, steps))

    def modulations(self, r: torch.Tensor, target: torch.Tensor | None = None) -> list[Modulation]:
        """All modulations for times (batch, horizon): two per layer and one for the last norm.

        The latent's token, when there is one, carries r = 1: it is never noisy.
        """
        step = torch.zeros_like(r) if target is None else target - r
        if self.config.latent_injection == "token":
            r = torch.cat([torch.ones_like(r[:, :1]), r], dim=1)
            step = torch.cat([torch.zeros_like(step[:, :1]), step], dim=1)
        condition = self.time(r)
        if self.config.target_time:
            condition = condition + self.step(step)
        norms = [norm for norm in self.layers.modules() if isinstance(norm, AdaptiveNorm)]
        return [norm.modulate(condition) for norm in [*norms, self.norm]]

    def field(self, x: torch.Tensor, modulations: list[Modulation], z: torch.Tensor) -> torch.Tensor:
        """The velocity for modulations already computed."""
        # Unit length keeps every entry of z near 1/sqrt(latent); bring it to the size of a normalised action.
        latent = self.latent_in(z * math.sqrt(self.config.latent))[:, None]
        tokens = self.action_in(x)
        as_token = self.config.latent_injection == "token"
        tokens = torch.cat([latent, tokens], dim=1) if as_token else tokens + latent
        rotary = self.rotary(tokens, torch.arange(tokens.shape[1], device=x.device)[None])
        bias = None
        if self.config.decoder_causal:
            bias = attention_bias(torch.ones(tokens.shape[:2], dtype=torch.bool, device=x.device), causal=True)
        for index, layer in enumerate(self.layers):
            tokens = layer(tokens, (modulations[2 * index], modulations[2 * index + 1]), rotary, bias)
        scale, shift, _ = modulations[-1]
        velocity = self.action_out(self.norm.norm(tokens) * scale + shift)
        return velocity[:, 1:] if as_token else velocity
