"""The history encoder for one window: positions are constants, the mask is the only thing left to decide."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from export.engines.static_layers import (
    StaticLayer,
    StaticMlp,
    consumed,
    keep_from_int8,
    norm_of,
    rotary_constants,
)
from export.families.action_prior.action_encoder import ActionEncoder
from export.families.action_prior.qwen import attention_bias
from export.families.layers import Projection


class StaticEncoder(nn.Module):
    """`ActionEncoder.forward` for a batch of one; the encoder is used up."""

    def __init__(self, encoder: ActionEncoder) -> None:
        super().__init__()
        config = encoder.config
        self.causal, self.sees_states = config.encoder_causal, encoder.sees_states
        length = 1 + config.soft_prompt_tokens + (1 + self.sees_states) * config.history
        with torch.no_grad():
            cos, sin = rotary_constants(*encoder.model.rotary_emb(torch.zeros(1), torch.arange(length)[None]))
            self.cos = nn.Buffer(cos)
            self.sin = nn.Buffer(sin)
            self.cls = nn.Buffer(encoder.cls.detach()[None, None])
            self.soft_prompt = nn.Buffer(encoder.soft_prompt.detach())
        if self.sees_states:
            self.state_in = Projection([encoder.state_in], precise=True)
        self.action_in = Projection([encoder.action_in], precise=True)
        self.norm = norm_of(encoder.model.norm)
        self.layers = consumed(encoder.model.layers, StaticLayer)
        for module in self.layers.modules():  # SwiGLU's products got four times as large as on 256 other histories
            if isinstance(module, StaticMlp):
                keep_from_int8(module.down)

    def forward(
        self, states: torch.Tensor, actions: torch.Tensor, mask: torch.Tensor, embodiment: torch.Tensor
    ) -> torch.Tensor:
        """z_hist, shape (1, latent); arguments as in `ActionEncoder.forward` with a batch of one."""
        pairs, pair_mask = self.action_in(actions), mask
        if self.sees_states:
            pairs = torch.stack([self.state_in(states), pairs], dim=2).flatten(1, 2)
            pair_mask = mask[..., None].expand(-1, -1, 2).flatten(1)
        prompt = self.soft_prompt[embodiment]
        always = torch.ones(1, prompt.shape[1] + 1, dtype=torch.bool)
        if self.causal:
            x = torch.cat([prompt, pairs, self.cls], dim=1)
            visible, at = torch.cat([always[:, 1:], pair_mask, always[:, :1]], dim=1), -1
        else:
            x, visible, at = torch.cat([self.cls, prompt, pairs], dim=1), torch.cat([always, pair_mask], dim=1), 0
        bias = attention_bias(visible, self.causal)[0]
        for layer in self.layers:
            x = layer(x, (self.cos, self.sin), bias)
        return F.normalize(self.norm(x[:, at]), dim=-1)
