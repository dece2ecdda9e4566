"""One Euler step of the decoder, with everything that only depends on the flow's schedule as a constant."""

from __future__ import annotations

import math

import torch
from torch import nn

from export.engines.static_layers import (
    StaticAttention,
    StaticMlp,
    consumed,
    keep_from_int8,
    norm_of,
    rotary_constants,
)
from export.families.action_prior.action_decoder import ActionDecoder, DecoderLayer
from export.families.action_prior.flow import flow_schedule, target_time
from export.families.action_prior.qwen import attention_bias
from export.families.layers import Projection


class StaticDecoderLayer(nn.Module):
    """A decoder layer whose modulations come in from outside; the norms keep their own weights."""

    def __init__(self, layer: DecoderLayer) -> None:
        super().__init__()
        self.attention, self.mlp = StaticAttention(layer.self_attn), StaticMlp(layer.mlp)
        self.before_attention = norm_of(layer.input_layernorm.norm)
        self.before_mlp = norm_of(layer.post_attention_layernorm.norm)

    def forward(
        self,
        x: torch.Tensor,
        modulations: tuple[torch.Tensor, ...],
        rotary: tuple[torch.Tensor, torch.Tensor],
        bias: torch.Tensor | None,
    ) -> torch.Tensor:
        """`modulations` are scale, shift and gate of both norms, each (1, tokens, hidden)."""
        scale, shift, gate = modulations[:3]
        x = x + gate * self.attention(self.before_attention(x) * scale + shift, rotary, bias)
        scale, shift, gate = modulations[3:]
        return x + gate * self.mlp(self.before_mlp(x) * scale + shift)


class DecoderStep(nn.Module):
    """The first of `steps` Euler steps; `unroll` makes the others of it. The decoder is used up."""

    def __init__(self, decoder: ActionDecoder, steps: int) -> None:
        super().__init__()
        config = decoder.config
        self.steps, self.as_token = steps, config.latent_injection == "token"
        self.latent_scale = math.sqrt(config.latent)
        tokens = config.horizon + self.as_token
        with torch.no_grad():
            one = torch.ones(1, config.horizon)
            self.clean = nn.Buffer(_table(decoder, one, steps))
            rows = [_table(decoder, one * time, steps) for time in flow_schedule(steps)]
            self.noisy = nn.Buffer(torch.stack(rows))
            cos, sin = rotary_constants(*decoder.rotary(torch.zeros(1), torch.arange(tokens)[None]))
            self.cos = nn.Buffer(cos)
            self.sin = nn.Buffer(sin)
            visible = torch.ones(1, tokens, dtype=torch.bool)
            bias = attention_bias(visible, causal=True)[0] if config.decoder_causal else None
            self.register_buffer("bias", bias)
        self.action_in = Projection([decoder.action_in], precise=True)
        self.latent_in = Projection([decoder.latent_in], precise=True)
        self.action_out = Projection([decoder.action_out], precise=True)
        self.norm = norm_of(decoder.norm.norm)
        self.layers = consumed(decoder.layers, StaticDecoderLayer)
        keep_from_int8(self.layers[0])  # most of a chunk's rounding error came from the first layer

    def forward(
        self,
        noise: torch.Tensor,
        z: torch.Tensor,
        prefix: torch.Tensor,
        committed: torch.Tensor,
        used: torch.Tensor,
        noisy: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The state after the step, its velocity, and the state before, each (1, horizon, action_slots).

        noise, prefix (1, horizon, action_slots) float; z (1, latent) float; committed (1, horizon) bool;
        used (1, action_slots) float; noisy (3 x norms, 1, hidden): a row of `self.noisy`
        """
        x = torch.where(committed[..., None], prefix, noise * used[:, None])
        return (*self.step(x, z, prefix, committed, used, noisy), x)

    def step(
        self,
        x: torch.Tensor,
        z: torch.Tensor,
        prefix: torch.Tensor,
        committed: torch.Tensor,
        used: torch.Tensor,
        noisy: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One step from x, whose committed actions are clean: the next state and the velocity."""
        latent = self.latent_in(z * self.latent_scale)[:, None]
        tokens, clean = self.action_in(x), committed
        if self.as_token:  # the latent's token is never noisy
            tokens = torch.cat([latent, tokens], dim=1)
            clean = torch.cat([torch.ones_like(committed[:, :1]), committed], dim=1)
        else:
            tokens = tokens + latent
        modulations = torch.where(clean[..., None], self.clean, noisy).split(1)
        for index, layer in enumerate(self.layers):
            tokens = layer(tokens, modulations[6 * index : 6 * index + 6], (self.cos, self.sin), self.bias)
        scale, shift, _ = modulations[-3:]
        velocity = self.action_out(self.norm(tokens) * scale + shift)
        velocity = velocity[:, 1:] if self.as_token else velocity
        x = x + velocity * (used[:, None] / self.steps)
        return torch.where(committed[..., None], prefix, x), velocity


class UnrolledDecoder(nn.Module):
    """All steps, as the unrolled graph computes them; serves calibration and the comparison with torch."""

    def __init__(self, step: DecoderStep) -> None:
        super().__init__()
        self.first = step

    def forward(
        self,
        noise: torch.Tensor,
        z: torch.Tensor,
        prefix: torch.Tensor,
        committed: torch.Tensor,
        used: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The chunk and the very first velocity."""
        x, first, _ = self.first(noise, z, prefix, committed, used, self.first.noisy[0])
        for noisy in self.first.noisy[1:]:
            x, _ = self.first.step(x, z, prefix, committed, used, noisy)
        return x, first


def _table(decoder: ActionDecoder, r: torch.Tensor, steps: int) -> torch.Tensor:
    """Scale, shift and gate of every norm at one flow time, in a run of so many steps, shape (3 x norms, 1, hidden)."""
    modulations = decoder.modulations(r, target_time(r, steps))
    return torch.stack([part[0, -1:] for modulation in modulations for part in modulation])
