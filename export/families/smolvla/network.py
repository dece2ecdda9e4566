"""SmolVLA's two engines: the prefix of images, instruction and state as keys and values; the expert that reads them.

The expert has as many layers as the language model. Every n-th attends to the prefix and to itself, behind its own
projections; the others attend to the prefix alone and project the language model's keys and values once more. Positions
on the wire are those of the tokens that are there: an instruction's padding is masked and moves nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from export.families.layers import Projection, RootMeanSquareNorm, rotate
from export.families.vla.attention import (
    MASKED,
    Gated,
    Prefix,
    Rotary,
    SelfAttention,
    attend,
    by_head,
    rotary_table,
)
from export.families.vla.flow import GuidedStep, flow_times, time_embedding, time_rows
from export.families.vla.frames import Frames
from export.families.vla.siglip import TowerShape, VisionTower
from export.families.vla.source import Source, Tensors

WAVELENGTH = 10_000.0
"""Of the rotary positions: LeRobot's own, not that of the language model's folder."""


@dataclass(frozen=True)
class SmolVlaShape:
    """Sizes of the networks.

    merge     image tokens stand for merge x merge patches
    tokens    of an instruction, at most
    images    how many cameras
    own_every of the expert's layers, every so many attends to itself as well; 0: none does
    """

    tower: TowerShape
    merge: int
    image_px: int
    hidden: int
    ffn: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    epsilon: float
    vocabulary: int
    tokens: int
    expert_hidden: int
    expert_ffn: int
    own_every: int
    chunk: int
    steps: int
    images: int
    state_width: int
    action_width: int
    periods: tuple[float, float]

    @property
    def image_tokens(self) -> int:
        """Of one camera."""
        return (self.image_px // self.tower.patch_px // self.merge) ** 2

    @property
    def prefix(self) -> int:
        """Tokens of the prefix, padding included."""
        return self.images * self.image_tokens + self.tokens + 1

    def attends_itself(self, layer: int) -> bool:
        return self.own_every > 0 and layer % self.own_every == 0


VLM, EXPERT = "model.vlm_with_expert.vlm.model.", "model.vlm_with_expert.lm_expert."


class SmolVlaBackbone(nn.Module):
    """Frames, instruction and state to keys and values of every layer, and which tokens of the prefix count."""

    def __init__(
        self,
        tensors: Tensors,
        shape: SmolVlaShape,
        frames: Mapping[str, Frames],
        normalise: nn.Module,
    ) -> None:
        """frames  of every camera by its name, in the policy's order; normalise  of the state"""
        super().__init__()
        vlm, top = Source(tensors, VLM), Source(tensors, "model.")
        self.shape = shape
        self.frames = nn.ModuleList(frames.values())
        self.normalise = normalise
        self.tower = VisionTower(vlm.at("vision_model"), shape.tower, tower_positions(shape.tower, shape.image_px))
        self.connector = vlm.at("connector").at("modality_projection").projection("proj")
        text = vlm.at("text_model")
        self.embedding = nn.Buffer(text.tensor("embed_tokens.weight"))
        self.state_in = top.projection("state_proj", precise=True)
        self.text = Prefix(
            text.at("layers"), shape.layers, shape.head_dim, partial(llama_norms, epsilon=shape.epsilon), nn.SiLU()
        )
        images = shape.images * shape.image_tokens
        cos, sin = rotary_table(images + shape.tokens + 1, shape.head_dim, WAVELENGTH)
        self.images, self.cos, self.sin = images, nn.Buffer(cos), nn.Buffer(sin)
        barred = torch.zeros(images + shape.tokens + 1, images + shape.tokens + 1)
        barred[:-1, -1] = MASKED  # images and instruction do not see the state
        self.barred = nn.Buffer(barred)

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Frames of every camera, uint8 (height, width, 3); state (axes,) in the robot's units; tokens int64 (tokens,);
        token_mask bool (tokens,).

        Returns keys and values (layers, kv_heads, prefix, head_dim), and the prefix's mask, bool (prefix,).
        """
        *frames, state, tokens, token_mask = inputs
        shape = self.shape
        x = torch.cat([self.see(frames), self.embedding[tokens][None] * shape.hidden**0.5, self.feel(state)], dim=1)
        mask = torch.cat(
            [torch.ones_like(token_mask[:1]).expand(self.images), token_mask, torch.ones_like(token_mask[:1])]
        )
        # The state stands right behind the last word; what stands between is masked, wherever it is.
        place = token_mask.sum(dtype=torch.int64)[None] + self.images
        rotary = (torch.cat([self.cos[:-1], self.cos[place]]), torch.cat([self.sin[:-1], self.sin[place]]))
        bias = self.barred + torch.where(mask, 0.0, MASKED)
        keys, values = self.text(x, rotary, bias)
        return keys, values, mask

    def see(self, frames: list[torch.Tensor]) -> torch.Tensor:
        """Image tokens of all cameras, (1, tokens, hidden)."""
        images = torch.cat([read(frame) for read, frame in zip(self.frames, frames)])
        features = self.tower(images)
        side, merge = self.shape.image_px // self.shape.tower.patch_px, self.shape.merge
        count, _, hidden = features.shape
        grid = features.view(count, side // merge, merge, side // merge, merge, hidden).permute(0, 1, 3, 2, 4, 5)
        joined = self.connector(grid.reshape(count, -1, merge * merge * hidden))
        return joined.reshape(1, -1, self.shape.hidden) * self.shape.hidden**0.5

    def feel(self, state: torch.Tensor) -> torch.Tensor:
        """The state's token, (1, 1, hidden)."""
        known = self.normalise(state)
        return self.state_in(nn.functional.pad(known, (0, self.shape.state_width - len(known)))[None, None])


class SmolVlaDecoder(GuidedStep):
    """The expert: noise to actions, over the keys and values of the prefix."""

    def __init__(
        self,
        tensors: Tensors,
        shape: SmolVlaShape,
        most_guidance: float,
        normalise: nn.Module,
        restore: nn.Module,
    ) -> None:
        top, expert = Source(tensors, "model."), Source(tensors, EXPERT)
        times = [time_embedding(time, shape.expert_hidden, shape.periods) for time in flow_times(shape.steps)]
        action_in, rows = time_rows(top, "action_time_mlp_in", "action_in_proj", times)
        super().__init__(rows, most_guidance, normalise, restore)
        self.shape = shape
        self.action_in = Projection([action_in], precise=True)
        self.mixed = top.projection("action_time_mlp_out", precise=True)
        self.action_out = top.projection("action_out_proj", precise=True)
        self.norm = llama_norm(expert, "norm", shape.epsilon)
        layers = expert.at("layers")
        self.layers = nn.ModuleList(
            ExpertLayer(layers.at(index), shape, shape.attends_itself(index)) for index in range(shape.layers)
        )
        cos, sin = rotary_table(shape.prefix + shape.chunk, shape.head_dim, WAVELENGTH)
        self.cos, self.sin = nn.Buffer(cos), nn.Buffer(sin)
        own = torch.full((shape.chunk, shape.chunk), MASKED).triu(1)  # actions see those before them
        self.own = nn.Buffer(own)

    def prepare(self, *linked: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Keys, values and mask as the backbone gives them to masks, rotary positions, and keys and values by layer."""
        keys, values, mask = linked
        chunk = self.shape.chunk
        seen = torch.where(mask, 0.0, MASKED)[None]
        own = torch.cat([seen.expand(chunk, -1), self.own], dim=1)
        places = mask.sum(dtype=torch.int64) + torch.arange(chunk)
        prepared = [seen, own, self.cos[places], self.sin[places]]
        for layer, key, value in zip(self.layers, keys, values):
            assert isinstance(layer, ExpertLayer)
            prepared += layer.prefix(key, value)
        return tuple(prepared)

    def velocity(self, x: torch.Tensor, prepared: tuple[torch.Tensor, ...], row: torch.Tensor) -> torch.Tensor:
        seen, own, cos, sin, *prefix = prepared
        chunk = self.shape.chunk
        tokens = self.mixed(nn.functional.silu(self.action_in(x) + row))
        for index, layer in enumerate(self.layers):
            key, value = prefix[2 * index : 2 * index + 2]
            if self.shape.attends_itself(index):
                tokens = layer(tokens, key, value, (cos, sin), own)
            else:
                tokens = layer(tokens, key, value, (self.cos[:chunk], self.sin[:chunk]), seen)
        return self.action_out(self.norm(tokens))


class ExpertLayer(nn.Module):
    """Attention over the prefix, with `itself` over the actions too, and an MLP."""

    def __init__(self, source: Source, shape: SmolVlaShape, itself: bool) -> None:
        super().__init__()
        self.head_dim = shape.head_dim
        self.before_attention, self.before_mlp = llama_norms(source, shape.epsilon)
        attention = source.at("self_attn")
        self.attention = (
            SelfAttention(attention, shape.head_dim) if itself else CrossAttention(attention, shape.head_dim)
        )
        self.mlp = Gated(source.at("mlp"), nn.SiLU())

    def prefix(self, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The prefix's keys and values (kv_heads, tokens, dim) as this layer sees them."""
        attention = self.attention
        return attention.see(key, value) if isinstance(attention, CrossAttention) else (key, value)

    def forward(
        self, x: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rotary: Rotary, bias: torch.Tensor
    ) -> torch.Tensor:
        attention, normed = self.attention, self.before_attention(x)
        if isinstance(attention, CrossAttention):
            query = attention.project(normed, rotary)
        else:
            query, own_key, own_value = attention.project(normed, rotary)
            key, value = torch.cat([key, own_key], dim=1), torch.cat([value, own_value], dim=1)
        x = x + attention.out(attend(query, key, value, bias))
        return x + self.mlp(self.before_mlp(x))


class CrossAttention(nn.Module):
    """Queries of the actions; keys and values of the prefix, projected from those of the language model."""

    def __init__(self, source: Source, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.query = Projection([source.linear("q_proj", head_dim**-0.5)], precise=False)
        self.keys, self.values = source.projection("k_proj"), source.projection("v_proj")
        self.out = source.projection("o_proj")

    def see(self, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        of_key, of_value = (part.transpose(0, 1).reshape(1, part.shape[1], -1) for part in (key, value))
        return by_head(self.keys(of_key), self.head_dim), by_head(self.values(of_value), self.head_dim)

    def project(self, x: torch.Tensor, rotary: Rotary) -> torch.Tensor:
        return rotate(by_head(self.query(x), self.head_dim), *rotary)


def llama_norm(source: Source, name: str, epsilon: float) -> RootMeanSquareNorm:
    return RootMeanSquareNorm(source.tensor(f"{name}.weight"), epsilon)


def llama_norms(source: Source, epsilon: float) -> tuple[RootMeanSquareNorm, RootMeanSquareNorm]:
    """Of a layer: before its attention, before its MLP."""
    return llama_norm(source, "input_layernorm", epsilon), llama_norm(source, "post_attention_layernorm", epsilon)


def tower_positions(tower: TowerShape, image_px: int) -> torch.Tensor:
    """Which position embedding each patch of a square image takes, int64 (patches,): the nearest below, as fractions.

    SmolVLM's own arithmetic in FP32, since an image of another size than the tower's falls between its buckets.
    """
    side = image_px // tower.patch_px
    fractions = (torch.arange(side, dtype=torch.float32) * (1.0 / torch.tensor(float(side)))).clamp(max=1.0 - 1e-6)
    bounds = torch.arange(1 / tower.side, 1.0, 1 / tower.side)
    buckets = torch.bucketize(fractions, bounds, right=True)
    return (buckets[:, None] * tower.side + buckets[None]).flatten()
