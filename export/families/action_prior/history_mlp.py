"""The plain history compressor that the paper compares its encoder with."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from export.families.action_prior.config import PolicyConfig
from export.families.action_prior.qwen import PreciseLinear

WIDTH_FACTOR = 4
"""Hidden width over the latent's; ours, the paper only says "naive MLP"."""


class HistoryMlp(nn.Module):
    """`z_hist = l2norm(MLP(s_0, a_0, m_0, s_1, ...))`: all pairs of the history side by side, no prior, no attention.

    m_i is 1 where a pair exists. Arguments and result are those of `ActionEncoder.forward`.
    """

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        self.config = config
        self.sees_states = config.encoder_sees == "states and actions"
        pair = config.action_slots + 1 + (config.state_slots if self.sees_states else 0)
        hidden = WIDTH_FACTOR * config.latent
        self.soft_prompt = nn.Parameter(0.02 * torch.randn(config.embodiments, hidden))
        self.pairs_in = PreciseLinear(config.history * pair, hidden)
        self.hidden = nn.Linear(hidden, hidden)
        self.latent_out = PreciseLinear(hidden, config.latent)

    def forward(
        self, states: torch.Tensor, actions: torch.Tensor, mask: torch.Tensor, embodiment: torch.Tensor
    ) -> torch.Tensor:
        """z_hist, unit length, shape (batch, latent)."""
        exists = mask[..., None].to(actions.dtype)
        seen = [states * exists] if self.sees_states else []
        pairs = torch.cat([*seen, actions * exists, exists], dim=-1).flatten(1)
        x = F.silu(self.pairs_in(pairs) + self.soft_prompt[embodiment])
        return F.normalize(self.latent_out(F.silu(self.hidden(x))), dim=-1)
