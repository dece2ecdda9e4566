"""GR00T's two engines: Qwen3-VL's features of pictures and instruction; the action head that follows a flow over them.

The head is a transformer of the state and the chunk. Every second block attends to itself, the others to the features:
in turns to those of the words and those of the pictures. The flow's time scales and shifts every norm, and is part of
each action's embedding: constants of each step. Rows of an embodiment's own layers are chosen here.

Facts: LeRobot 0.6.1, `policies/groot/groot_n1_7.py` and `action_head/cross_attention_dit.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from export.families.groot.language import LanguageModel, Layout, TextShape, text_tensors
from export.families.groot.pictures import Prepared
from export.families.groot.vision import TowerShape, VisionTower, tower_tensors
from export.families.layers import Projection
from export.families.vla.attention import MASKED, attend, by_head
from export.families.vla.flow import FlowStep
from export.families.vla.source import Source, Tensors

MODEL = "_groot_model.backbone.model."
TOWER, TEXT, ACTIONS = f"{MODEL}model.visual.", f"{MODEL}model.language_model.", "_groot_model.action_head."
EMBEDDING, HEAD = f"{TEXT}embed_tokens.weight", f"{MODEL}lm_head.weight"
TIME_CHANNELS, LONGEST = 256, 10_000.0
NORM, LAST_NORM = 1e-5, 1e-6


@dataclass(frozen=True)
class Blocks:
    """Sizes of a stack of transformer blocks; its width is heads x head_dim."""

    layers: int
    heads: int
    head_dim: int
    epsilon: float = NORM

    @property
    def width(self) -> int:
        return self.heads * self.head_dim


@dataclass(frozen=True)
class GrootShape:
    """Sizes of the networks.

    features      Qwen3-VL's are normed, and mixed by a stack of its own, where there is one
    itself        whether every second block of the head attends to itself
    words_every   of the blocks that attend to features, every so many sees the words and the others the pictures;
                  0: each sees all
    row           of the embodiment's own layers, of so many `embodiments`
    answer        width of what the head answers, before the embodiment's own layers
    times         of the flow's steps, as the head counts them
    places        rows of the table of an action's place in the chunk; 0: there is none
    ramp          how fast the flow regains its strength behind goals that are committed
    """

    tower: TowerShape
    text: TextShape
    layout: Layout
    normed: bool
    features: Blocks | None
    head: Blocks
    itself: bool
    words_every: int
    row: int
    embodiments: int
    answer: int
    times: tuple[int, ...]
    places: int
    horizon: int
    state_width: int
    action_width: int
    ramp: float


class GrootBackbone(nn.Module):
    """Frames and instruction to the features that the head attends to, and which of them count."""

    def __init__(self, tensors: Tensors, shape: GrootShape, frames: Mapping[str, Prepared]) -> None:
        """frames  of every camera by its name, in the policy's order"""
        super().__init__()
        self.frames = nn.ModuleList(frames.values())
        size = next(iter(frames.values())).size
        self.tower = VisionTower(Source(tensors, TOWER), shape.tower, size)
        self.text = LanguageModel(Source(tensors, TEXT), shape.text, shape.layout, tensors.take(EMBEDDING))
        head = Source(tensors, ACTIONS)
        self.norm = head.layer_norm("vlln", NORM) if shape.normed else nn.Identity()
        stack, blocks = shape.features, head.at("vl_self_attention").at("transformer_blocks")
        self.mixers = nn.ModuleList(
            () if stack is None else (MixingBlock(blocks.at(index), stack) for index in range(stack.layers))
        )
        self.fixed = shape.layout.length - shape.layout.budget

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Frames of every camera, uint8 (height, width, 3); tokens int64 (budget,); token_mask bool (budget,).

        Returns features (length, width) and their mask, bool (length,).
        """
        *frames, tokens, token_mask = inputs
        pictures, deeper = self.tower(torch.cat([read(frame) for read, frame in zip(self.frames, frames)]))
        x = self.norm(self.text(pictures, deeper, tokens))
        mask = torch.cat([torch.ones_like(token_mask[:1]).expand(self.fixed), token_mask])
        bias = torch.where(mask, 0.0, MASKED)
        for block in self.mixers:
            x = block(x, bias)
        return x[0], mask


class Attention(nn.Module):
    """Queries of one sequence; keys and values of the same, or of what `features` are, each with an offset."""

    def __init__(self, source: Source, shape: Blocks, itself: bool) -> None:
        super().__init__()
        self.head_dim = shape.head_dim
        query, key, value = (
            source.linear(name, scale) for name, scale in (("to_q", shape.head_dim**-0.5), ("to_k", 1), ("to_v", 1))
        )
        self.queries = Projection([query, key, value] if itself else [query], precise=False)
        self.features = None if itself else Projection([key, value], precise=False)
        self.out = source.at("to_out").projection("0")

    def see(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of features (1, tokens, width)."""
        assert self.features is not None
        key, value = by_head(self.features(features), self.head_dim).chunk(2)
        return key, value

    def forward(
        self, x: torch.Tensor, seen: tuple[torch.Tensor, torch.Tensor] | None, bias: torch.Tensor
    ) -> torch.Tensor:
        parts = by_head(self.queries(x), self.head_dim)
        query, key, value = parts.chunk(3) if seen is None else (parts, *seen)
        return self.out(attend(query, key, value, bias))


class Plain(nn.Module):
    """An MLP with one hidden layer."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.first, self.second = source.at(0).projection("proj"), source.projection("2")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(nn.functional.gelu(self.first(x), approximate="tanh"))


class MixingBlock(nn.Module):
    """A block over the features themselves."""

    def __init__(self, source: Source, shape: Blocks) -> None:
        super().__init__()
        self.before_attention, self.before_mlp = (source.layer_norm(name, shape.epsilon) for name in ("norm1", "norm3"))
        self.attention = Attention(source.at("attn1"), shape, itself=True)
        self.mlp = Plain(source.at("ff").at("net"))

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.before_attention(x), None, bias)
        return x + self.mlp(self.before_mlp(x))


class HeadBlock(nn.Module):
    """A block over state and chunk; its first norm has the flow's scale and shift, the second has no weights."""

    def __init__(self, source: Source, shape: Blocks, itself: bool) -> None:
        super().__init__()
        self.epsilon, self.itself = shape.epsilon, itself
        self.attention = Attention(source.at("attn1"), shape, itself)
        self.mlp = Plain(source.at("ff").at("net"))

    def forward(
        self,
        x: torch.Tensor,
        rows: torch.Tensor,
        seen: tuple[torch.Tensor, torch.Tensor] | None,
        bias: torch.Tensor,
    ) -> torch.Tensor:
        x = x + self.attention(normed(x, self.epsilon) * rows[0] + rows[1], seen, bias)
        return x + self.mlp(normed(x, self.epsilon))


class GrootDecoder(FlowStep):
    """The action head: noise to actions, over the features.

    What is committed is kept from the first step on: GR00T's own real-time chunking, which needs no guidance. Goals
    that are held fast do not flow at all, those behind them more and more.
    """

    def __init__(
        self, tensors: Tensors, shape: GrootShape, state: nn.Module, normalise: nn.Module, restore: nn.Module
    ) -> None:
        """state  normalises the state; normalise, restore  as those of `FlowStep`"""
        head = Source(tensors, ACTIONS)
        action_in, rows = time_rows(head, shape)
        super().__init__(rows, normalise, restore)
        self.shape, self.state = shape, state
        encoder, decoder, states = head.at("action_encoder"), head.at("action_decoder"), head.at("state_encoder")
        self.action_in = Projection([action_in], precise=True)
        self.embedded = Projection([own(encoder, "W3", shape.row)], precise=True)
        self.state_in, self.state_embedded = (
            Projection([own(states, f"layer{layer}", shape.row)], precise=True) for layer in (1, 2)
        )
        self.answered = head.at("model").projection("proj_out_2", precise=True)
        self.decoded, self.action_out = (
            Projection([own(decoder, f"layer{layer}", shape.row)], precise=True) for layer in (1, 2)
        )
        places = torch.zeros(shape.horizon, shape.head.width)
        if shape.places:
            places = head.tensor("position_embedding.weight")[: shape.horizon]
        self.places = nn.Buffer(places.clone())
        blocks = head.at("model").at("transformer_blocks")
        self.blocks = nn.ModuleList(
            HeadBlock(blocks.at(index), shape.head, shape.itself and index % 2 == 1)
            for index in range(shape.head.layers)
        )
        pictured = torch.tensor([*shape.layout.pictured, *[False] * shape.layout.budget])
        self.to_pictures = nn.Buffer(torch.where(pictured, 0.0, MASKED))
        self.to_words = nn.Buffer(torch.where(pictured, MASKED, 0.0))

    def begin(self, noise: torch.Tensor, goals: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return torch.where(weights[None, :, None] > 0, goals, noise[None])

    def prepare(self, *linked: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Features, their mask and the state (axes,) in the robot's units to the state's token, biases, and keys and
        values of every block that attends to features."""
        features, mask, state = linked
        known = self.state(state)
        known = nn.functional.pad(known, (0, self.shape.state_width - len(known)))[None, None]
        token = self.state_embedded(torch.relu(self.state_in(known)))
        bias = torch.where(mask, 0.0, MASKED)
        prepared = [token, bias, bias + self.to_words, bias + self.to_pictures]
        for block in self.blocks:
            assert isinstance(block, HeadBlock)
            if not block.itself:
                prepared += block.attention.see(features[None])
        return tuple(prepared)

    def velocity(self, x: torch.Tensor, prepared: tuple[torch.Tensor, ...], row: torch.Tensor) -> torch.Tensor:
        token, everything, words, pictures, *seen = prepared
        shape, nothing = self.shape, torch.zeros(1)
        actions = self.embedded(nn.functional.silu(self.action_in(x) + row[0])) + self.places
        tokens = torch.cat([token, actions], dim=1)
        at = 0
        for index, block in enumerate(self.blocks):
            rows = row[1 + 2 * index : 3 + 2 * index]
            assert isinstance(block, HeadBlock)
            if block.itself:
                tokens = block(tokens, rows, None, nothing)
                continue
            bias = everything
            if shape.words_every:
                bias = words if index % (2 * shape.words_every) == 0 else pictures
            tokens = block(tokens, rows, (seen[at], seen[at + 1]), bias)
            at += 2
        tokens = normed(tokens[:, -shape.horizon :], LAST_NORM) * row[-2] + row[-1]
        return self.action_out(torch.relu(self.decoded(self.answered(tokens))))

    def step(
        self,
        x: torch.Tensor,
        goals: torch.Tensor,
        weights: torch.Tensor,
        prepared: tuple[torch.Tensor, ...],
        row: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        velocity = self.velocity(x, prepared, row)
        ramp = self.shape.ramp
        strength = (1.0 - torch.exp(-ramp * (1.0 - weights))) * (1.0 / -math.expm1(-ramp))
        return x + velocity * strength[None, :, None] * (1.0 / self.steps), velocity


def normed(x: torch.Tensor, epsilon: float) -> torch.Tensor:
    return nn.functional.layer_norm(x, x.shape[-1:], eps=epsilon)


def own(source: Source, name: str, row: int) -> nn.Linear:
    """A layer of one embodiment: the file has (embodiments, inputs, outputs)."""
    weight, bias = source.tensor(f"{name}.W")[row], source.tensor(f"{name}.b")[row]
    layer = nn.Linear(weight.shape[0], weight.shape[1], device="meta")
    layer.weight, layer.bias = (nn.Parameter(tensor.clone(), requires_grad=False) for tensor in (weight.T, bias))
    return layer


def time_rows(head: Source, shape: GrootShape) -> tuple[nn.Linear, list[torch.Tensor]]:
    """The action's embedding, all that is linear of it as one layer; and for each step the constants: what the time
    adds to that, one and scale and shift of every block, the same of the last norm."""
    encoder, model = head.at("action_encoder"), head.at("model")
    first, mixing = own(encoder, "W1", shape.row), own(encoder, "W2", shape.row)
    of_action, of_time = mixing.weight.double().chunk(2, dim=1)
    joined = nn.Linear(first.in_features, mixing.out_features, bias=False, device="meta")
    joined.weight = nn.Parameter((of_action @ first.weight.double()).float(), requires_grad=False)
    offset = of_action @ first.bias.double() + mixing.bias.double()
    embedder = model.at("timestep_encoder").at("timestep_embedder")
    one, two = embedder.linear("linear_1"), embedder.linear("linear_2")
    norms = [model.at("transformer_blocks").at(index).at("norm1") for index in range(shape.head.layers)]
    linears = [norm.linear("linear") for norm in norms]
    last = model.linear("proj_out_1")
    unit = torch.tensor([[1.0], [0.0]])
    tables = []
    for time in shape.times:
        added = of_time @ action_time(time, shape.head.width).double() + offset
        condition = nn.functional.silu(two(nn.functional.silu(one(head_time(time)))))
        rows = [linear(condition).view(2, -1) + unit for linear in linears]
        tables.append(torch.cat([added.float()[None], *rows, last(condition).view(2, -1).flip(0) + unit]).detach())
    return joined, tables


def action_time(time: int, width: int) -> torch.Tensor:
    """Sine and cosine of a step's time, FP32 (width,), as an action's embedding has it."""
    half = width // 2
    exponents = -torch.arange(half, dtype=torch.float32) * (torch.log(torch.tensor(LONGEST)) / half)
    angles = time * exponents.exp()
    return torch.cat([angles.sin(), angles.cos()])


def head_time(time: int) -> torch.Tensor:
    """Cosine and sine of the same, FP32 (channels,), as the head's norms have it."""
    half = TIME_CHANNELS // 2
    exponents = -math.log(LONGEST) * torch.arange(half, dtype=torch.float32) / (half - 1)
    angles = time * exponents.exp()
    return torch.cat([angles.cos(), angles.sin()])


def expected_tensors(shape: GrootShape) -> dict[str, tuple[int, ...]]:
    """Every tensor of a folder, by name."""
    tensors = {**tower_tensors(TOWER, shape.tower), **text_tensors(TEXT, shape.text)}
    tensors |= dict.fromkeys((EMBEDDING, HEAD), (shape.text.vocabulary, shape.text.hidden))
    width, seen, many = shape.head.width, shape.text.hidden, shape.embodiments
    linears: list[tuple[str, int, int]] = []
    model = f"{ACTIONS}model."
    linears += [(f"{model}timestep_encoder.timestep_embedder.linear_1", width, TIME_CHANNELS)]
    linears += [(f"{model}timestep_encoder.timestep_embedder.linear_2", width, width)]
    linears += [(f"{model}proj_out_1", 2 * width, width), (f"{model}proj_out_2", shape.answer, width)]
    stacks = [(model, shape.head, shape.head.layers)]
    if shape.features is not None:
        stacks.append((f"{ACTIONS}vl_self_attention.", shape.features, shape.features.layers))
    for prefix, stack, layers in stacks:
        for index in range(layers):
            block, inner = f"{prefix}transformer_blocks.{index}.", stack.width
            attended = seen if prefix == model and not (shape.itself and index % 2 == 1) else inner
            linears += [(f"{block}attn1.to_q", inner, inner), (f"{block}attn1.to_out.0", inner, inner)]
            linears += [(f"{block}attn1.{name}", inner, attended) for name in ("to_k", "to_v")]
            linears += [(f"{block}ff.net.0.proj", 4 * inner, inner), (f"{block}ff.net.2", inner, 4 * inner)]
            if prefix == model:
                linears.append((f"{block}norm1.linear", 2 * inner, inner))
            else:
                for name in ("norm1", "norm3"):
                    tensors[f"{block}{name}.weight"] = tensors[f"{block}{name}.bias"] = (inner,)
    for name, made, taken in linears:
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = (made, taken), (made,)
    if shape.normed:
        tensors[f"{ACTIONS}vlln.weight"] = tensors[f"{ACTIONS}vlln.bias"] = (seen,)
    if shape.places:
        tensors[f"{ACTIONS}position_embedding.weight"] = (shape.places, width)
    hidden = shape.answer
    for name, taken, made in (
        ("state_encoder.layer1", shape.state_width, hidden),
        ("state_encoder.layer2", hidden, width),
        ("action_encoder.W1", shape.action_width, width),
        ("action_encoder.W2", 2 * width, width),
        ("action_encoder.W3", width, width),
        ("action_decoder.layer1", hidden, hidden),
        ("action_decoder.layer2", hidden, shape.action_width),
    ):
        tensors[f"{ACTIONS}{name}.W"], tensors[f"{ACTIONS}{name}.b"] = (many, taken, made), (many, made)
    return tensors


def unused_tensors() -> list[str]:
    """Those that no engine takes: the end of the language model."""
    return [HEAD, f"{TEXT}norm.weight"]
