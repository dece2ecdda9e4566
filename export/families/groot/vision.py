"""Qwen3-VL's vision tower over pictures of one fixed size, (pictures, patches, hidden) throughout.

Patches stand in the order in which they are joined into tokens: token by token, each of merge x merge patches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from export.families.layers import rotate
from export.families.vla.attention import Rotary
from export.families.vla.source import Source

EPSILON, WAVELENGTH = 1e-6, 10_000.0


@dataclass(frozen=True)
class TowerShape:
    """Sizes of the tower.

    repeats     of a frame in a patch, which is made for videos
    merge       a token stands for merge x merge patches
    grid        the table of positions is grid x grid
    deepstack   blocks behind which the tower gives features to the language model's first layers
    into        width of the language model
    """

    hidden: int
    ffn: int
    layers: int
    heads: int
    patch_px: int
    repeats: int
    merge: int
    grid: int
    deepstack: tuple[int, ...]
    into: int


class VisionTower(nn.Module):
    """Pixels to tokens, and the features of some blocks as tokens."""

    def __init__(self, source: Source, shape: TowerShape, picture: tuple[int, int]) -> None:
        """picture  (height, width) in pixels"""
        super().__init__()
        self.shape = shape
        self.rows, self.columns = (side // shape.patch_px for side in picture)
        # A frame that stands still fills every repeat alike, so their weights add up.
        weight = source.tensor("patch_embed.proj.weight").double().sum(2)
        self.patch_weight = nn.Buffer(weight.flatten(1).T.contiguous().float())
        offset = source.tensor("patch_embed.proj.bias")
        positions = interpolated(source.tensor("pos_embed.weight"), shape.grid, self.rows, self.columns)
        self.positions = nn.Buffer(joined(positions, self.rows, self.columns, shape.merge) + offset)
        cos, sin = grid_rotary(self.rows, self.columns, shape)
        self.cos, self.sin = nn.Buffer(cos), nn.Buffer(sin)
        self.blocks = nn.ModuleList(VisionBlock(source.at("blocks").at(index), shape) for index in range(shape.layers))
        self.merger = Merger(source.at("merger"), shape, before=True)
        others = source.at("deepstack_merger_list")
        self.mergers = nn.ModuleList(
            Merger(others.at(index), shape, before=False) for index in range(len(shape.deepstack))
        )

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """pictures (pictures, 3, height, width) to tokens and features (pictures, tokens, into)."""
        px, merge, count = self.shape.patch_px, self.shape.merge, len(pictures)
        split = pictures.view(count, 3, self.rows // merge, merge, px, self.columns // merge, merge, px)
        patches = split.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(count, self.rows * self.columns, 3 * px * px)
        x = patches @ self.patch_weight + self.positions
        features = []
        for index, block in enumerate(self.blocks):
            x = block(x, (self.cos, self.sin))
            if index in self.shape.deepstack:
                features.append(self.mergers[self.shape.deepstack.index(index)](x))
        return self.merger(x), features


class VisionBlock(nn.Module):
    """Attention and MLP, each behind its norm."""

    def __init__(self, source: Source, shape: TowerShape) -> None:
        super().__init__()
        self.heads, self.scale = shape.heads, (shape.hidden // shape.heads) ** -0.5
        self.before_attention, self.before_mlp = (source.layer_norm(name, EPSILON) for name in ("norm1", "norm2"))
        self.qkv, self.out = source.at("attn").projection("qkv"), source.at("attn").projection("proj")
        self.first, self.second = source.at("mlp").projection("linear_fc1"), source.at("mlp").projection("linear_fc2")

    def forward(self, x: torch.Tensor, rotary: Rotary) -> torch.Tensor:
        pictures, patches, hidden = x.shape
        parts = self.qkv(self.before_attention(x)).view(pictures, patches, 3, self.heads, hidden // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        query, key = rotate(query * self.scale, *rotary), rotate(key, *rotary)
        mixed = torch.softmax(query @ key.transpose(-1, -2), dim=-1) @ value
        x = x + self.out(mixed.transpose(1, 2).reshape(pictures, patches, hidden))
        return x + self.second(nn.functional.gelu(self.first(self.before_mlp(x)), approximate="tanh"))


class Merger(nn.Module):
    """Joins neighbouring patches into tokens; the norm is of a patch, or `before` is false and it is of a token."""

    def __init__(self, source: Source, shape: TowerShape, before: bool) -> None:
        super().__init__()
        self.before, self.width = before, shape.hidden * shape.merge**2
        self.norm = source.layer_norm("norm", EPSILON)
        self.first, self.second = source.projection("linear_fc1"), source.projection("linear_fc2")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = (x.shape[0], -1, self.width)
        x = self.norm(x).reshape(wide) if self.before else self.norm(x.reshape(wide))
        return self.second(nn.functional.gelu(self.first(x)))


def interpolated(table: torch.Tensor, grid: int, rows: int, columns: int) -> torch.Tensor:
    """Positions (rows, columns, hidden) between the corners of a table (grid x grid, hidden)."""
    square = table.view(grid, grid, -1)
    for axis, count in enumerate((rows, columns)):
        at = torch.linspace(0, grid - 1, count)
        low = at.long()
        part = (at - low).view([-1 if axis == one else 1 for one in range(3)])
        high = (low + 1).clamp(max=grid - 1)
        square = square.index_select(axis, low) * (1 - part) + square.index_select(axis, high) * part
    return square


def joined(x: torch.Tensor, rows: int, columns: int, merge: int) -> torch.Tensor:
    """(rows, columns, ...) in the order of the tokens, (patches, ...)."""
    split = x.reshape(rows // merge, merge, columns // merge, merge, -1)
    return split.transpose(1, 2).reshape(rows * columns, -1)


def grid_rotary(rows: int, columns: int, shape: TowerShape) -> Rotary:
    """Of a patch's row and column, half of the frequencies each, (patches, head_dim)."""
    dim = shape.hidden // shape.heads // 2
    frequencies = 1.0 / (WAVELENGTH ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim))
    places = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"), dim=-1)
    order = joined(places, rows, columns, shape.merge).float()
    angles = (order[:, :, None] * frequencies).flatten(1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)


def tower_tensors(prefix: str, shape: TowerShape) -> dict[str, tuple[int, ...]]:
    """Every tensor of a tower, by name."""
    hidden, wide = shape.hidden, shape.hidden * shape.merge**2
    tensors: dict[str, tuple[int, ...]] = {
        f"{prefix}patch_embed.proj.weight": (hidden, 3, shape.repeats, shape.patch_px, shape.patch_px),
        f"{prefix}patch_embed.proj.bias": (hidden,),
        f"{prefix}pos_embed.weight": (shape.grid**2, hidden),
    }
    linears, norms = [], []
    for index in range(shape.layers):
        block = f"{prefix}blocks.{index}."
        linears += [(f"{block}attn.qkv", 3 * hidden, hidden), (f"{block}attn.proj", hidden, hidden)]
        linears += [(f"{block}mlp.linear_fc1", shape.ffn, hidden), (f"{block}mlp.linear_fc2", hidden, shape.ffn)]
        norms += [(f"{block}norm1", hidden), (f"{block}norm2", hidden)]
    mergers = [f"{prefix}deepstack_merger_list.{index}." for index in range(len(shape.deepstack))]
    for merger in (f"{prefix}merger.", *mergers):
        linears += [(f"{merger}linear_fc1", wide, wide), (f"{merger}linear_fc2", shape.into, wide)]
        norms.append((f"{merger}norm", wide if merger in mergers else hidden))
    for name, made, taken in linears:
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = (made, taken), (made,)
    for name, width in norms:
        tensors[f"{name}.weight"] = tensors[f"{name}.bias"] = (width,)
    return tensors
