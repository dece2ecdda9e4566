"""pi0's and pi0.5's two engines: the prefix of images and prompt as keys and values; the expert that reads them.

Both are Gemma stacks of the same depth, and layer by layer the expert attends to the prefix and to all of its own
tokens. pi0 gives the state to the expert as a token, which sees no action: it is computed once, and is one more token
of the prefix from then on. pi0.5 has the state in its prompt, and the flow's time scales, shifts and gates every norm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from export.families.layers import Projection, RootMeanSquareNorm
from export.families.vla.attention import MASKED, Gated, Prefix, Rotary, SelfAttention, attend, rotary_table
from export.families.vla.flow import GuidedStep, flow_times, time_embedding, time_rows
from export.families.vla.frames import Frames
from export.families.vla.siglip import TowerShape, VisionTower
from export.families.vla.source import Source, Tensors

WAVELENGTH, EPSILON = 10_000.0, 1e-6
PALIGEMMA, EXPERT = "model.paligemma_with_expert.paligemma.model.", "model.paligemma_with_expert.gemma_expert.model."


@dataclass(frozen=True)
class Gemma:
    """Sizes of one stack."""

    hidden: int
    layers: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int


@dataclass(frozen=True)
class PiShape:
    """Sizes of the networks. `tokens` of a prompt, at most; `adaptive`: the time is in the norms, as in pi0.5."""

    tower: TowerShape
    text: Gemma
    expert: Gemma
    vocabulary: int
    images: int
    tokens: int
    chunk: int
    steps: int
    state_width: int
    action_width: int
    periods: tuple[float, float]
    adaptive: bool

    @property
    def prefix(self) -> int:
        """Tokens of the prefix, padding included."""
        return self.images * self.tower.side**2 + self.tokens


class PiBackbone(nn.Module):
    """Frames and prompt to keys and values of every layer, and which tokens of the prefix count."""

    def __init__(self, tensors: Tensors, shape: PiShape, frames: Mapping[str, Frames]) -> None:
        """frames  of every camera by its name, in the policy's order"""
        super().__init__()
        source = Source(tensors, PALIGEMMA)
        self.shape = shape
        self.frames = nn.ModuleList(frames.values())
        tower = source.at("vision_tower").at("vision_model")
        self.tower = VisionTower(tower, shape.tower, torch.arange(shape.tower.side**2))
        self.connector = source.at("multi_modal_projector").projection("linear")
        text = source.at("language_model")
        self.embedding = nn.Buffer(text.tensor("embed_tokens.weight"))
        self.text = Prefix(
            text.at("layers"), shape.text.layers, shape.text.head_dim, gemma_norms, nn.GELU(approximate="tanh")
        )
        cos, sin = rotary_table(shape.prefix, shape.text.head_dim, WAVELENGTH)
        self.cos, self.sin = nn.Buffer(cos), nn.Buffer(sin)

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Frames of every camera, uint8 (height, width, 3); tokens int64 (tokens,); token_mask bool (tokens,).

        Returns keys and values (layers, kv_heads, prefix, head_dim), and the prefix's mask, bool (prefix,).
        """
        *frames, tokens, token_mask = inputs
        features = self.tower(torch.cat([read(frame) for read, frame in zip(self.frames, frames)]))
        hidden = self.shape.text.hidden
        seen = self.connector(features).reshape(1, -1, hidden)
        x = torch.cat([seen, self.embedding[tokens][None] * hidden**0.5], dim=1)
        mask = torch.cat([torch.ones_like(token_mask[:1]).expand(seen.shape[1]), token_mask])
        keys, values = self.text(x, (self.cos, self.sin), torch.where(mask, 0.0, MASKED))
        return keys, values, mask


class PiDecoder(GuidedStep):
    """The expert: noise to actions, over the keys and values of the prefix."""

    def __init__(
        self,
        tensors: Tensors,
        shape: PiShape,
        most_guidance: float,
        state: nn.Module,
        normalise: nn.Module,
        restore: nn.Module,
    ) -> None:
        """state  normalises the state, of pi0"""
        top, expert = Source(tensors, "model."), Source(tensors, EXPERT)
        times = [time_embedding(time, shape.expert.hidden, shape.periods) for time in flow_times(shape.steps)]
        if shape.adaptive:
            action_in, tables = top.linear("action_in_proj"), modulations(top, expert, shape, times)
        else:
            action_in, tables = time_rows(top, "action_time_mlp_in", "action_in_proj", times)
        super().__init__(tables, most_guidance, normalise, restore)
        self.shape, self.state = shape, state
        self.action_in = Projection([action_in], precise=True)
        self.action_out = top.projection("action_out_proj", precise=True)
        if not shape.adaptive:
            self.mixed = top.projection("action_time_mlp_out", precise=True)
            self.state_in = top.projection("state_proj", precise=True)
        self.norm = expert_norm(expert, "norm", shape)
        layers = expert.at("layers")
        self.layers = nn.ModuleList(ExpertLayer(layers.at(index), shape) for index in range(shape.expert.layers))
        cos, sin = rotary_table(shape.prefix + 1 + shape.chunk, shape.expert.head_dim, WAVELENGTH)
        self.cos, self.sin = nn.Buffer(cos), nn.Buffer(sin)

    def prepare(self, *linked: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Keys, values and mask as the backbone gives them, and for pi0 the state (axes,) in the robot's units."""
        keys, values, mask, *state = linked
        bias = torch.where(mask, 0.0, MASKED)
        place = mask.sum(dtype=torch.int64)
        if state:
            keys, values, bias, place = self.with_state(state[0], keys, values, bias, place)
        places = place + torch.arange(self.shape.chunk)
        bias = torch.cat([bias, torch.zeros(self.shape.chunk)])
        return keys, values, bias, self.cos[places], self.sin[places]

    def with_state(
        self, state: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, bias: torch.Tensor, place: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """The prefix with the state's token behind it."""
        known = self.state(state)
        x = self.state_in(nn.functional.pad(known, (0, self.shape.state_width - len(known)))[None, None])
        rotary = (self.cos[place[None]], self.sin[place[None]])
        bias = torch.cat([bias, torch.zeros(1)])
        joined = []
        for layer, key, value in zip(self.layers, keys, values):
            assert isinstance(layer, ExpertLayer)
            query, key, value = layer.project(x, key, value, rotary, None)
            joined.append((key, value))
            if len(joined) < len(self.layers):  # of the last layer nobody needs more
                x = layer.answer(x, query, key, value, bias, None)
        keys, values = (torch.stack(parts) for parts in zip(*joined))
        return keys, values, bias, place + 1

    def velocity(self, x: torch.Tensor, prepared: tuple[torch.Tensor, ...], row: torch.Tensor) -> torch.Tensor:
        keys, values, bias, cos, sin = prepared
        tokens = self.action_in(x)
        tokens = tokens if self.shape.adaptive else self.mixed(nn.functional.silu(tokens + row))
        for index, layer in enumerate(self.layers):
            rows = row[6 * index : 6 * index + 6] if self.shape.adaptive else None
            assert isinstance(layer, ExpertLayer)
            projected = layer.project(tokens, keys[index], values[index], (cos, sin), rows)
            tokens = layer.answer(tokens, *projected, bias, rows)
        return self.action_out(modulated(self.norm(tokens), row[-3:] if self.shape.adaptive else None))


class ExpertLayer(nn.Module):
    """Attention over the prefix and the expert's own tokens, and an MLP."""

    def __init__(self, source: Source, shape: PiShape) -> None:
        super().__init__()
        self.before_attention = expert_norm(source, "input_layernorm", shape)
        self.before_mlp = expert_norm(source, "post_attention_layernorm", shape)
        self.attention = SelfAttention(source.at("self_attn"), shape.expert.head_dim)
        self.mlp = Gated(source.at("mlp"), nn.GELU(approximate="tanh"))

    def project(
        self, x: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rotary: Rotary, rows: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries of x (1, tokens, hidden), and the prefix's keys and values with those of x behind.

        rows (6, hidden)  scale, shift and gate of attention and MLP; None: 1, 0 and 1
        """
        normed = modulated(self.before_attention(x), None if rows is None else rows[:3])
        query, own_key, own_value = self.attention.project(normed, rotary)
        return query, torch.cat([key, own_key], dim=1), torch.cat([value, own_value], dim=1)

    def answer(
        self,
        x: torch.Tensor,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        bias: torch.Tensor,
        rows: torch.Tensor | None,
    ) -> torch.Tensor:
        """x after the layer."""
        attention, mlp = (None, None) if rows is None else (rows[:3], rows[3:])
        x = gated(x, self.attention.out(attend(query, key, value, bias)), attention)
        return gated(x, self.mlp(modulated(self.before_mlp(x), mlp)), mlp)


def modulated(x: torch.Tensor, rows: torch.Tensor | None) -> torch.Tensor:
    return x if rows is None else x * rows[0] + rows[1]


def gated(x: torch.Tensor, change: torch.Tensor, rows: torch.Tensor | None) -> torch.Tensor:
    return x + (change if rows is None else change * rows[2])


def modulations(top: Source, expert: Source, shape: PiShape, times: list[torch.Tensor]) -> list[torch.Tensor]:
    """Scale, shift and gate of every norm at each flow time, (3 x norms, hidden)."""
    first, second = top.linear("time_mlp_in"), top.linear("time_mlp_out")
    conditions = [nn.functional.silu(second(nn.functional.silu(first(time)))) for time in times]
    layers = [expert.at("layers").at(index) for index in range(shape.expert.layers)]
    norms = [layer.at(name) for layer in layers for name in ("input_layernorm", "post_attention_layernorm")]
    tables: list[list[torch.Tensor]] = [[] for _ in times]
    one = torch.tensor([[1.0], [0.0], [0.0]])
    for norm in [*norms, expert.at("norm")]:
        dense = norm.linear("dense")
        for table, condition in zip(tables, conditions):
            table.append(dense(condition).view(3, -1) + one)
    return [torch.cat(table) for table in tables]


def gemma_norm(source: Source, name: str) -> RootMeanSquareNorm:
    """Its weight is what is added to one."""
    return RootMeanSquareNorm(1.0 + source.tensor(f"{name}.weight"), EPSILON)


def gemma_norms(source: Source) -> tuple[RootMeanSquareNorm, RootMeanSquareNorm]:
    """Of a layer: before its attention, before its MLP."""
    return gemma_norm(source, "input_layernorm"), gemma_norm(source, "post_attention_layernorm")


def expert_norm(source: Source, name: str, shape: PiShape) -> RootMeanSquareNorm:
    """Where the time scales it, it has no weight of its own."""
    if shape.adaptive:
        return RootMeanSquareNorm(torch.ones(shape.expert.hidden), EPSILON)
    return gemma_norm(source, name)
