"""The action encoder E: a window of states and actions in, one latent out."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from transformers import Qwen3Model

from export.families.action_prior.config import PolicyConfig
from export.families.action_prior.qwen import PreciseLinear, attention_bias, qwen3_config


class ActionEncoder(nn.Module):
    """`z = l2norm(E(cls, p_k, s_0, a_0, s_1, a_1, ...)[cls])`; also the history compressor.

    With `encoder_sees` "actions" the states are left out.
    """

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        self.config = config
        hidden = config.encoder.hidden
        self.model = Qwen3Model(qwen3_config(config.encoder))
        self.model.embed_tokens = None
        self.cls = nn.Parameter(0.02 * torch.randn(hidden))
        self.soft_prompt = nn.Parameter(0.02 * torch.randn(config.embodiments, config.soft_prompt_tokens, hidden))
        self.sees_states = config.encoder_sees == "states and actions"
        if self.sees_states:
            self.state_in = PreciseLinear(config.state_slots, hidden)
        self.action_in = PreciseLinear(config.action_slots, hidden)

    def forward(
        self, states: torch.Tensor, actions: torch.Tensor, mask: torch.Tensor, embodiment: torch.Tensor
    ) -> torch.Tensor:
        """The latent z, unit length, shape (batch, latent).

        states     float (batch, n, state_slots), normalised
        actions    float (batch, n, action_slots), normalised
        mask       bool (batch, n), True where a pair exists; a pair that does not is never looked at
        embodiment int64 (batch,)
        """
        batch = states.shape[0]
        pairs, pair_mask = self.action_in(actions), mask
        if self.sees_states:
            pairs = torch.stack([self.state_in(states), pairs], dim=2).flatten(1, 2)
            pair_mask = mask.repeat_interleave(2, dim=1)
        prompt = self.soft_prompt[embodiment]
        cls = self.cls.expand(batch, 1, -1)
        always = torch.ones(batch, prompt.shape[1] + 1, dtype=torch.bool, device=mask.device)
        if self.config.encoder_causal:
            inputs, visible, at = (
                torch.cat([prompt, pairs, cls], 1),
                torch.cat([always[:, 1:], pair_mask, always[:, :1]], 1),
                -1,
            )
        else:
            inputs, visible, at = torch.cat([cls, prompt, pairs], 1), torch.cat([always, pair_mask], 1), 0
        bias = attention_bias(visible, self.config.encoder_causal)
        output = self.model(inputs_embeds=inputs, attention_mask={"full_attention": bias}).last_hidden_state
        return F.normalize(output[:, at], dim=-1)
