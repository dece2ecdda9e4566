"""Qwen3's layers for one observation, in the form that engines run fast.

They compute what the transformers classes compute, with fewer and larger operations: projections of the same input
are one product, grouped queries share their keys without copies, the attention's scale is part of a norm's weight.
Weights move into the static form layer by layer; the module they came from is used up.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from export.families.layers import Projection, RootMeanSquareNorm, rotate

TransformersModule = Any
"""A module of a class of transformers: `nn.Module` gives each of its attributes the type `Tensor | Module`."""


def norm_of(norm: TransformersModule, scale: float = 1.0) -> RootMeanSquareNorm:
    """Qwen3's; a factor of what it gives becomes part of its weight."""
    return RootMeanSquareNorm(norm.weight.detach() * scale, norm.variance_epsilon)


class StaticAttention(nn.Module):
    """Grouped-query attention over (1, tokens, hidden) with one product for queries, keys and values."""

    def __init__(self, attention: TransformersModule) -> None:
        super().__init__()
        self.head_dim: int = attention.head_dim
        self.groups: int = attention.num_key_value_groups
        self.kv_heads: int = attention.k_proj.out_features // self.head_dim
        self.qkv = Projection([attention.q_proj, attention.k_proj, attention.v_proj], precise=False)
        self.out = Projection([attention.o_proj], precise=False)
        self.q_norm = norm_of(attention.q_norm, attention.scaling)
        self.k_norm = norm_of(attention.k_norm)

    def forward(
        self, x: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor], bias: torch.Tensor | None
    ) -> torch.Tensor:
        """x (1, tokens, hidden); rotary as `rotary_constants` gives it; bias (1, tokens, tokens) or None."""
        tokens, heads = x.shape[1], self.groups * self.kv_heads
        cos, sin = rotary
        parts = self.qkv(x).view(tokens, heads + 2 * self.kv_heads, self.head_dim)
        query, key, value = parts.split([heads, self.kv_heads, self.kv_heads], dim=1)
        query = rotate(self.q_norm(query).transpose(0, 1), cos, sin)
        key = rotate(self.k_norm(key).transpose(0, 1), cos, sin)
        shared = query.reshape(self.kv_heads, self.groups * tokens, self.head_dim)
        scores = shared @ key.transpose(1, 2)
        if bias is not None:
            scores = (scores.view(heads, tokens, tokens) + bias).view(self.kv_heads, self.groups * tokens, tokens)
        mixed = torch.softmax(scores, dim=-1) @ value.transpose(0, 1)
        return self.out(mixed.view(heads, tokens, self.head_dim).transpose(0, 1).reshape(1, tokens, -1))


class StaticMlp(nn.Module):
    """SwiGLU with gate and up in one product."""

    def __init__(self, mlp: TransformersModule) -> None:
        super().__init__()
        self.gate_up = Projection([mlp.gate_proj, mlp.up_proj], precise=False)
        self.down = Projection([mlp.down_proj], precise=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(nn.functional.silu(gate) * up)


class StaticLayer(nn.Module):
    """One Qwen3 layer: attention and SwiGLU, each behind its norm."""

    def __init__(self, layer: TransformersModule) -> None:
        super().__init__()
        self.attention, self.mlp = StaticAttention(layer.self_attn), StaticMlp(layer.mlp)
        self.before_attention = norm_of(layer.input_layernorm)
        self.before_mlp = norm_of(layer.post_attention_layernorm)

    def forward(
        self, x: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor], bias: torch.Tensor | None
    ) -> torch.Tensor:
        x = x + self.attention(self.before_attention(x), rotary, bias)
        return x + self.mlp(self.before_mlp(x))


def rotary_constants(cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and signed sine, (1, tokens, head_dim), for `rotate`."""
    first, second = sin.chunk(2, dim=-1)
    return cos, torch.cat([-first, second], dim=-1)


def consumed(layers: nn.ModuleList, static: type[nn.Module]) -> nn.ModuleList:
    """The layers in their static form; each original is let go before the next one is copied."""
    made = nn.ModuleList()
    for index in range(len(layers)):
        made.append(static(layers[index]))
        layers[index] = nn.Identity()
    return made


class StaticMerger(nn.Module):
    """Joins neighbouring patches of Qwen3-VL's vision tower into tokens; all axes stay apart. The merger is used up."""

    def __init__(self, merger: TransformersModule) -> None:
        super().__init__()
        self.norm, self.activation, self.width = merger.norm, merger.act_fn, merger.hidden_size
        self.norm_joined = merger.use_postshuffle_norm
        self.first = Projection([merger.linear_fc1], precise=False)
        self.second = Projection([merger.linear_fc2], precise=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(images, patches, hidden) to (images, tokens, hidden of the language model)."""
        joined = (x.shape[0], -1, self.width)
        x = self.norm(x.reshape(joined)) if self.norm_joined else self.norm(x).reshape(joined)
        return self.second(self.activation(self.first(x)))


def project_linears(module: nn.Module, precise: bool) -> nn.Module:
    """Puts a `Projection` in the place of every linear layer below `module`, or of `module` itself."""
    if isinstance(module, nn.Linear):
        return Projection([module], precise)
    for name, child in module.named_children():
        setattr(module, name, project_linears(child, precise))
    return module


def keep_from_int8(module: nn.Module) -> None:
    """Leaves every projection in `module` FP32 in an INT8 engine."""
    for child in module.modules():
        if isinstance(child, Projection):
            child.int8 = False
