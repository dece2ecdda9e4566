"""Qwen3-VL's language model over a fixed prompt, up to the layer whose output GR00T's action head reads.

Tokens stand in one order: what is before the pictures, the pictures with what is between them, the instruction and its
padding. The model is causal, so that padding, being last, changes nothing before it, and every position is a constant.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from export.families.layers import RootMeanSquareNorm, rotate
from export.families.vla.attention import MASKED, Gated, Rotary, attend, by_head
from export.families.vla.layer import layer_tensors
from export.families.vla.source import Source


@dataclass(frozen=True)
class TextShape:
    """Sizes of the language model.

    layers      that are kept: the last one's output, before any norm, is what the action head reads
    wavelength  base of the rotary positions
    sections    how many frequencies belong to time, row and column, in turns
    """

    hidden: int
    ffn: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    epsilon: float
    wavelength: float
    sections: tuple[int, int, int]
    vocabulary: int


@dataclass(frozen=True)
class Layout:
    """The prompt: the ids before, between and behind the pictures, and how many tokens everything has.

    parts   ids around the pictures, one more than there are pictures
    tokens  rows and columns of a picture's tokens
    budget  of the instruction, padding included
    """

    parts: tuple[tuple[int, ...], ...]
    tokens: tuple[int, int]
    budget: int

    @property
    def length(self) -> int:
        return len(self.pictured) + self.budget

    @property
    def pictured(self) -> list[bool]:
        """Of every token before the instruction, whether it is a picture's."""
        marks = [False] * len(self.parts[0])
        for part in self.parts[1:]:
            marks += [True] * (self.tokens[0] * self.tokens[1]) + [False] * len(part)
        return marks

    def positions(self) -> torch.Tensor:
        """Time, row and column of every token, int64 (3, length). A picture takes as many as its longer side."""
        rows, columns = self.tokens
        grid = torch.cartesian_prod(torch.arange(1), torch.arange(rows), torch.arange(columns)).T
        parts, at = [], 0
        for index, part in enumerate(self.parts):
            if index:
                parts.append(grid + at)
                at += max(rows, columns)
            parts.append(torch.arange(at, at + len(part)).expand(3, -1))
            at += len(part)
        parts.append(torch.arange(at, at + self.budget).expand(3, -1))
        return torch.cat(parts, dim=1)


class LanguageModel(nn.Module):
    """Pictures and instruction to the features of every token."""

    def __init__(self, source: Source, shape: TextShape, layout: Layout, embedding: torch.Tensor) -> None:
        super().__init__()
        self.layout = layout
        self.embedding = nn.Buffer(embedding)
        self.parts = nn.ParameterList(
            nn.Parameter(embedding[list(part)][None], requires_grad=False) for part in layout.parts
        )
        layers = source.at("layers")
        self.layers = nn.ModuleList(Layer(layers.at(index), shape) for index in range(shape.layers))
        cos, sin = grid_rotary(layout.positions(), shape)
        self.cos, self.sin = nn.Buffer(cos), nn.Buffer(sin)
        self.later = nn.Buffer(torch.full((layout.length, layout.length), MASKED).triu(1))

    def forward(self, pictures: torch.Tensor, features: list[torch.Tensor], tokens: torch.Tensor) -> torch.Tensor:
        """pictures, and what the tower adds behind the first layers, (pictures, tokens, hidden); tokens (budget,).

        Returns (1, length, hidden).
        """
        parts = list(self.parts)
        x = torch.cat([self.placed(pictures, parts), self.embedding[tokens][None]], dim=1)
        nothing = [torch.zeros_like(part) for part in parts]
        padding = torch.zeros_like(x[:, -self.layout.budget :])
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            x = layer(x, (self.cos, self.sin), self.later)
            if index < min(len(features), last):  # LeRobot reads the last layer itself, before anything is added
                x = x + torch.cat([self.placed(features[index], nothing), padding], dim=1)
        return x

    def placed(self, pictures: torch.Tensor, parts: list[torch.Tensor]) -> torch.Tensor:
        """Pictures between the parts, (1, tokens, hidden)."""
        row = [parts[0]]
        for picture, part in zip(pictures.split(1), parts[1:]):
            row += [picture, part]
        return torch.cat(row, dim=1)


class Layer(nn.Module):
    """Attention with norms of queries and keys, and a gated MLP, each behind its norm."""

    def __init__(self, source: Source, shape: TextShape) -> None:
        super().__init__()
        self.shape = shape
        attention = source.at("self_attn")
        self.qkv = attention.projection("q_proj", "k_proj", "v_proj")
        self.out = attention.projection("o_proj")
        self.of_query = norm(attention, "q_norm", shape, shape.head_dim**-0.5)
        self.of_key = norm(attention, "k_norm", shape)
        self.before_attention = norm(source, "input_layernorm", shape)
        self.before_mlp = norm(source, "post_attention_layernorm", shape)
        self.mlp = Gated(source.at("mlp"), nn.SiLU())

    def forward(self, x: torch.Tensor, rotary: Rotary, bias: torch.Tensor) -> torch.Tensor:
        heads, shared = self.shape.heads, self.shape.kv_heads
        parts = by_head(self.qkv(self.before_attention(x)), self.shape.head_dim)
        query, key, value = parts.split([heads, shared, shared])
        query, key = rotate(self.of_query(query), *rotary), rotate(self.of_key(key), *rotary)
        x = x + self.out(attend(query, key, value, bias))
        return x + self.mlp(self.before_mlp(x))


def norm(source: Source, name: str, shape: TextShape, scale: float = 1.0) -> RootMeanSquareNorm:
    """A factor of what it gives becomes part of its weight."""
    return RootMeanSquareNorm(source.tensor(f"{name}.weight") * scale, shape.epsilon)


def grid_rotary(positions: torch.Tensor, shape: TextShape) -> Rotary:
    """Of positions (3, tokens): frequencies of time, row and column in turns, then of time alone."""
    count = shape.head_dim // 2
    exponents = torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim
    angles = positions[:, :, None].float() * (1.0 / shape.wavelength**exponents)
    mixed = angles[0].clone()
    for axis in (1, 2):
        mixed[:, axis : min(count, 3 * shape.sections[axis]) : 3] = angles[
            axis, :, axis : min(count, 3 * shape.sections[axis]) : 3
        ]
    cos, sin = mixed.cos(), mixed.sin()
    return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)


def text_tensors(prefix: str, shape: TextShape) -> dict[str, tuple[int, ...]]:
    """Every tensor of the language model but the embeddings, by name."""
    queries, shared = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    tensors: dict[str, tuple[int, ...]] = {f"{prefix}norm.weight": (shape.hidden,)}
    for index in range(shape.layers):
        layer = f"{prefix}layers.{index}."
        tensors |= layer_tensors(layer, shape.hidden, shape.ffn, queries, shared, shape.hidden)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{layer}{name}.weight"] = (shape.hidden,)
        for name in ("q_norm", "k_norm"):
            tensors[f"{layer}self_attn.{name}.weight"] = (shape.head_dim,)
    return tensors
