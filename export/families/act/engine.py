"""The form of ACT that its engine runs: raw frames and state in, goals in the robot's units out.

What no input changes is computed once: positions, the latent's token, and in the first layer of the decoder, which
starts from zeros, the chunk's own attention and what it asks the encoder.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from export.families.act.network import ActNetwork, DecoderLayer, EncoderLayer, picture_positions
from export.families.layers import Projection
from export.families.lerobot.resnet import map_size, merge_norms


class StaticAttention(nn.Module):
    """Of (1, rows, width) to (1, tokens, width); the scale is part of the query's weight."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.heads, width = attention.num_heads, attention.embed_dim
        scale = 1 / math.sqrt(width // self.heads)
        weights, biases = attention.in_proj_weight.detach().chunk(3), attention.in_proj_bias.detach().chunk(3)
        self.query = Projection([linear(weights[0] * scale, biases[0] * scale)], precise=False)
        self.key = Projection([linear(weights[1], biases[1])], precise=False)
        self.value = Projection([linear(weights[2], biases[2])], precise=False)
        self.out = Projection([attention.out_proj], precise=False)

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return self.mix(self.query(query), key, value)

    def mix(self, queries: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """With queries that are projected already."""
        q, k, v = self._split(queries), self._split(self.key(key)), self._split(self.value(value))
        mixed = torch.softmax(q @ k.transpose(1, 2), dim=-1) @ v
        return self.out(mixed.transpose(0, 1).reshape(1, queries.shape[1], -1))

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        """(1, tokens, width) to (heads, tokens, width / heads)."""
        return x.view(x.shape[1], self.heads, -1).transpose(0, 1)


class StaticFeedForward(nn.Module):
    """Two products."""

    def __init__(self, layer: EncoderLayer | DecoderLayer) -> None:
        super().__init__()
        self.first, self.second = Projection([layer.linear1], False), Projection([layer.linear2], False)
        self.activation = layer.activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.activation(self.first(x)))


class StaticEncoderLayer(nn.Module):
    def __init__(self, layer: EncoderLayer) -> None:
        super().__init__()
        self.attention, self.feed_forward = StaticAttention(layer.self_attn), StaticFeedForward(layer)
        self.norm1, self.norm2, self.first = layer.norm1, layer.norm2, layer.first

    def forward(self, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        seen = self.norm1(x) if self.first else x
        placed = seen + positions
        x = x + self.attention(placed, placed, seen)
        if self.first:
            return x + self.feed_forward(self.norm2(x))
        x = self.norm1(x)
        return self.norm2(x + self.feed_forward(x))


class StaticDecoderLayer(nn.Module):
    """`attend_itself` is apart from the rest, since the first layer's is a constant."""

    def __init__(self, layer: DecoderLayer) -> None:
        super().__init__()
        self.attention, self.across = StaticAttention(layer.self_attn), StaticAttention(layer.multihead_attn)
        self.feed_forward, self.first = StaticFeedForward(layer), layer.first
        self.norm1, self.norm2, self.norm3 = layer.norm1, layer.norm2, layer.norm3

    def attend_itself(self, x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        seen = self.norm1(x) if self.first else x
        x = x + self.attention(seen + rows, seen + rows, seen)
        return x if self.first else self.norm1(x)

    def queries(self, x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """What the chunk asks the encoder's tokens."""
        return self.across.query((self.norm2(x) if self.first else x) + rows)

    def forward(
        self, x: torch.Tensor, queries: torch.Tensor, memory: torch.Tensor, placed_memory: torch.Tensor
    ) -> torch.Tensor:
        x = x + self.across.mix(queries, placed_memory, memory)
        if self.first:
            return x + self.feed_forward(self.norm3(x))
        x = self.norm2(x)
        return self.norm3(x + self.feed_forward(x))


class StaticAct(nn.Module):
    """State (axes,) and a raw frame (height, width, 3) of each camera to the chunk (rows, axes); uses up the network.

    pictures  a module for each camera, from bytes to what the network sees
    """

    @torch.no_grad()
    def __init__(
        self,
        network: ActNetwork,
        pictures: list[nn.Module],
        frames_px: list[tuple[int, int]],
        state: nn.Module,
        restored: nn.Module,
    ) -> None:
        super().__init__()
        width = network.config.dim_model
        self.pictures, self.state, self.restored = nn.ModuleList(pictures), state, restored
        self.backbone = nn.Sequential(*merge_norms(network.backbone).children())
        self.features = network.encoder_img_feat_input_proj
        self.state_in = Projection([network.encoder_robot_state_input_proj], precise=True)
        latent = network.encoder_latent_input_proj(torch.zeros(1, network.config.latent_dim))
        self.latent, self.rows = nn.Buffer(latent[None]), nn.Buffer(network.decoder_pos_embed.weight.detach()[None])
        sizes = [map_size(*size) for size in frames_px]
        places = [picture_positions(rows, columns, width) for rows, columns in sizes]
        self.places = nn.Buffer(torch.cat([network.encoder_1d_feature_pos_embed.weight.detach(), *places])[None])
        self.encoder = nn.ModuleList([StaticEncoderLayer(layer) for layer in _each(network.encoder.layers)])
        self.decoder = nn.ModuleList([StaticDecoderLayer(layer) for layer in _each(network.decoder.layers)])
        self.encoder_norm, self.decoder_norm = network.encoder.norm, network.decoder.norm
        self.head = Projection([network.action_head], precise=True)
        first: Any = self.decoder[0]
        self.begun = nn.Buffer(first.attend_itself(torch.zeros_like(self.rows), self.rows))
        self.begun_queries = nn.Buffer(first.queries(self.begun, self.rows))
        del first.attention, first.across.query

    def forward(self, state: torch.Tensor, *frames: torch.Tensor) -> torch.Tensor:
        tokens = [self.latent, self.state_in(self.state(state)[None, None])]
        for prepare, frame in zip(self.pictures, frames):
            tokens.append(self.features(self.backbone(prepare(frame))).flatten(2).transpose(1, 2))
        memory = torch.cat(tokens, dim=1)
        for layer in self.encoder:
            memory = layer(memory, self.places)
        memory = self.encoder_norm(memory)
        placed, x = memory + self.places, self.begun
        for index, layer in enumerate(_each(self.decoder)):
            x = layer.attend_itself(x, self.rows) if index else x
            queries = layer.queries(x, self.rows) if index else self.begun_queries
            x = layer(x, queries, memory, placed)
        return self.restored(self.head(self.decoder_norm(x))[0])


def _each(layers: nn.ModuleList) -> Iterator[Any]:
    """Modules of our own classes: torch gives an attribute of one the type `Tensor | Module`."""
    return iter(layers)


def linear(weight: torch.Tensor, bias: torch.Tensor) -> nn.Linear:
    """A linear layer of these."""
    made = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    made.weight, made.bias = nn.Parameter(weight), nn.Parameter(bias)
    return made
