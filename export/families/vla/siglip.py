"""SigLIP's vision tower over images of one fixed size, (images, patches, hidden) throughout."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from export.families.layers import Projection
from export.families.vla.source import Source


@dataclass(frozen=True)
class TowerShape:
    """`side_px` is what the tower's position embeddings were made for."""

    hidden: int
    ffn: int
    layers: int
    heads: int
    side_px: int
    patch_px: int
    epsilon: float

    @property
    def side(self) -> int:
        """Patches along a side."""
        return self.side_px // self.patch_px


class VisionTower(nn.Module):
    """Pixels from -1 to 1 to features, behind the last norm."""

    def __init__(self, source: Source, shape: TowerShape, positions: torch.Tensor) -> None:
        """`positions` are the rows of the table of position embeddings, one for each patch."""
        super().__init__()
        self.patch_px = shape.patch_px
        embeddings = source.at("embeddings")
        patch = embeddings.tensor("patch_embedding.weight")  # (hidden, 3, patch, patch)
        self.patch_weight = nn.Buffer(patch.permute(2, 3, 1, 0).reshape(-1, shape.hidden).contiguous())
        offset = embeddings.tensor("patch_embedding.bias")
        self.patch_positions = nn.Buffer(embeddings.tensor("position_embedding.weight")[positions] + offset)
        layers = source.at("encoder").at("layers")
        self.layers = nn.ModuleList(VisionLayer(layers.at(index), shape) for index in range(shape.layers))
        self.norm = source.layer_norm("post_layernorm", shape.epsilon)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images (images, 3, height, width)."""
        count, channels, height, width = images.shape
        px = self.patch_px
        patches = images.view(count, channels, height // px, px, width // px, px).permute(0, 2, 4, 3, 5, 1)
        x = patches.reshape(count, -1, px * px * channels) @ self.patch_weight + self.patch_positions
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)


class VisionLayer(nn.Module):
    """Attention and MLP, each behind its norm."""

    def __init__(self, source: Source, shape: TowerShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.before_attention = source.layer_norm("layer_norm1", shape.epsilon)
        self.before_mlp = source.layer_norm("layer_norm2", shape.epsilon)
        attention, mlp = source.at("self_attn"), source.at("mlp")
        scaled = attention.linear("q_proj", (shape.hidden // shape.heads) ** -0.5)
        self.qkv = Projection([scaled, attention.linear("k_proj"), attention.linear("v_proj")], precise=False)
        self.out = attention.projection("out_proj")
        self.first, self.second = mlp.projection("fc1"), mlp.projection("fc2")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        images, patches, hidden = x.shape
        parts = self.qkv(self.before_attention(x)).view(images, patches, 3, self.heads, hidden // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = torch.softmax(query @ key.transpose(-1, -2), dim=-1) @ value
        x = x + self.out(mixed.transpose(1, 2).reshape(images, patches, hidden))
        return x + self.second(nn.functional.gelu(self.first(self.before_mlp(x)), approximate="tanh"))


def tower_tensors(prefix: str, shape: TowerShape) -> dict[str, tuple[int, ...]]:
    """Every tensor of a tower, by name."""
    hidden, ffn = shape.hidden, shape.ffn
    tensors: dict[str, tuple[int, ...]] = {
        f"{prefix}embeddings.patch_embedding.weight": (hidden, 3, shape.patch_px, shape.patch_px),
        f"{prefix}embeddings.patch_embedding.bias": (hidden,),
        f"{prefix}embeddings.position_embedding.weight": (shape.side**2, hidden),
        f"{prefix}post_layernorm.weight": (hidden,),
        f"{prefix}post_layernorm.bias": (hidden,),
    }
    for index in range(shape.layers):
        layer = f"{prefix}encoder.layers.{index}."
        for name, made, taken in (
            *((f"self_attn.{part}_proj", hidden, hidden) for part in ("q", "k", "v", "out")),
            ("mlp.fc1", ffn, hidden),
            ("mlp.fc2", hidden, ffn),
        ):
            tensors[f"{layer}{name}.weight"], tensors[f"{layer}{name}.bias"] = (made, taken), (made,)
        for name in ("layer_norm1", "layer_norm2"):
            tensors[f"{layer}{name}.weight"] = tensors[f"{layer}{name}.bias"] = (hidden,)
    return tensors
