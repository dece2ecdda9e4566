"""Grouped-query attention of one observation: over the prefix itself, and of the expert over the prefix.

Masks are added to the scores. They are large, not infinite: FP16 holds them, and no row of scores is masked whole.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from export.families.layers import Projection, rotate
from export.families.vla.source import Source

MASKED = -1e4
Rotary = tuple[torch.Tensor, torch.Tensor]
"""Cosine and signed sine of positions, each (tokens, head_dim)."""
Norms = Callable[[Source], tuple[nn.Module, nn.Module]]


def rotary_table(positions: int, head_dim: int, wavelength: float) -> Rotary:
    """Of the positions 0, 1, ...: half against half, the longest wavelength in tokens."""
    exponents = torch.arange(head_dim // 2, dtype=torch.float32) * (2.0 / head_dim)
    angles = torch.arange(positions, dtype=torch.float32)[:, None] / wavelength**exponents
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """query (heads, tokens, dim), already scaled; key, value (kv_heads, seen, dim); bias broadcasts to (tokens, seen).

    Returns (1, tokens, heads x dim).
    """
    heads, tokens, dim = query.shape
    shared = len(key)
    scores = query.reshape(shared, -1, dim) @ key.transpose(1, 2)
    scores = scores.view(heads, tokens, -1) + bias
    weights = torch.softmax(scores, dim=-1).view(shared, heads // shared * tokens, -1)
    return (weights @ value).view(heads, tokens, dim).transpose(0, 1).reshape(1, tokens, heads * dim)


def by_head(x: torch.Tensor, dim: int) -> torch.Tensor:
    """(1, tokens, heads x dim) as (heads, tokens, dim)."""
    return x.view(x.shape[1], -1, dim).transpose(0, 1)


class Gated(nn.Module):
    """down(activation(gate) * up), gate and up in one product; `mlp` of Llama and Gemma."""

    def __init__(self, source: Source, activation: nn.Module) -> None:
        super().__init__()
        self.gate_up = source.projection("gate_proj", "up_proj")
        self.down = source.projection("down_proj")
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(self.activation(gate) * up)


class SelfAttention(nn.Module):
    """Queries, keys and values of the same tokens in one product."""

    def __init__(self, source: Source, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.qkv = Projection(
            [source.linear("q_proj", head_dim**-0.5), source.linear("k_proj"), source.linear("v_proj")], precise=False
        )
        self.out = source.projection("o_proj")
        self.kv_heads = source.shape("k_proj.weight")[0] // head_dim

    def project(self, x: torch.Tensor, rotary: Rotary) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Query (heads, tokens, dim), key and value (kv_heads, tokens, dim) of x (1, tokens, hidden)."""
        parts = by_head(self.qkv(x), self.head_dim)
        query, key, value = parts.split([len(parts) - 2 * self.kv_heads, self.kv_heads, self.kv_heads])
        return rotate(query, *rotary), rotate(key, *rotary), value


class PrefixLayer(nn.Module):
    """A layer over the prefix that also gives its keys and values."""

    def __init__(
        self, source: Source, head_dim: int, norms: tuple[nn.Module, nn.Module], activation: nn.Module
    ) -> None:
        super().__init__()
        self.before_attention, self.before_mlp = norms
        self.attention = SelfAttention(source.at("self_attn"), head_dim)
        self.mlp = Gated(source.at("mlp"), activation)

    def forward(
        self, x: torch.Tensor, rotary: Rotary, bias: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """x (1, tokens, hidden) after the layer, its keys and values (kv_heads, tokens, dim)."""
        query, key, value = self.attention.project(self.before_attention(x), rotary)
        x = x + self.attention.out(attend(query, key, value, bias))
        return x + self.mlp(self.before_mlp(x)), key, value


class PrefixEnd(nn.Module):
    """Of the last layer what somebody needs: its keys and values."""

    def __init__(self, source: Source, head_dim: int, norms: tuple[nn.Module, nn.Module]) -> None:
        super().__init__()
        self.head_dim, self.before_attention = head_dim, norms[0]
        self.kv = source.at("self_attn").projection("k_proj", "v_proj")

    def forward(
        self, x: torch.Tensor, rotary: Rotary, _: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        key, value = by_head(self.kv(self.before_attention(x)), self.head_dim).chunk(2)
        return x, rotate(key, *rotary), value


class Prefix(nn.Module):
    """A language model over the prefix: what is left of it is the keys and values of every layer."""

    def __init__(self, source: Source, layers: int, head_dim: int, norms: Norms, activation: nn.Module) -> None:
        """source  of the layers; norms  makes those of one: before its attention, before its MLP"""
        super().__init__()
        parts = [source.at(index) for index in range(layers)]
        whole = [PrefixLayer(part, head_dim, norms(part), activation) for part in parts[:-1]]
        self.layers = nn.ModuleList([*whole, PrefixEnd(parts[-1], head_dim, norms(parts[-1]))])

    def forward(self, x: torch.Tensor, rotary: Rotary, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """x (1, tokens, hidden) to keys and values (layers, kv_heads, tokens, dim)."""
        keys, values = [], []
        for layer in self.layers:
            x, key, value = layer(x, rotary, bias)
            keys.append(key)
            values.append(value)
        return torch.stack(keys), torch.stack(values)
