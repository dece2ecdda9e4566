"""What a graph has to do: operations and bytes, counted node by node in the ONNX file. Imports onnx.

A product counts two operations per multiply-accumulate. Its weights are bytes that must be read; what it takes and
gives is traffic between nodes. Work on constants is done once when a runtime loads the graph, and counts nothing.
Anything else counts the elements it writes and the bytes it moves, an upper bound: runtimes merge such nodes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
from onnx import ModelProto, NodeProto, helper

FREE = {"Reshape", "Squeeze", "Unsqueeze", "Identity", "Shape", "Constant"}
"""Another view of the same bytes."""
LOOKUPS = {"Gather", "GatherND"}
HEAVY = {
    "Exp",
    "Sigmoid",
    "Tanh",
    "Erf",
    "Gelu",
    "Softmax",
    "Pow",
    "Sqrt",
    "Sin",
    "Cos",
    "ReduceL2",
    "LayerNormalization",
}
"""Several instructions per element."""
MOVES = {"Transpose", "Split", "Concat", "Slice", "Expand", "Where", "Tile", "Pad"}
QUANTISERS = {"QuantizeLinear", "DequantizeLinear"}
LAYER = re.compile(r"(?:^|\.)(\w+)\.(\d+)\.")
"""The list that a weight's layer is in, and its number there: `vision.blocks.3.mlp.up.weight`."""


@dataclass(frozen=True)
class NodeCost:
    """One node. `kind` is gemm, batched, conv, light, heavy or move; `rows` x `inner` x `columns` describe a product,
    `batch` how many of them; `layer` the stack and number of the layer it belongs to, `named`
    whether a weight of its own says so."""

    op: str
    kind: str
    precision: str
    operations: float
    weight_bytes: float
    moved_bytes: float
    batch: int = 1
    rows: int = 0
    inner: int = 0
    columns: int = 0
    layer: tuple[str, int] | None = None
    named: bool = False


@dataclass(frozen=True)
class GraphCost:
    """All nodes of one engine, in order."""

    name: str
    nodes: tuple[NodeCost, ...]

    @property
    def operations(self) -> float:
        return sum(node.operations for node in self.nodes)

    @property
    def weight_bytes(self) -> float:
        """What one run reads of its weights: each once for every product that takes it."""
        return sum(node.weight_bytes for node in self.nodes)

    @property
    def moved_bytes(self) -> float:
        return sum(node.moved_bytes for node in self.nodes)

    def products(self) -> Iterable[NodeCost]:
        return (node for node in self.nodes if node.kind in ("gemm", "batched", "conv"))


def count_file(path: Path) -> GraphCost:
    """Counts an ONNX file; its weights are not loaded."""
    return count_graph(onnx.load(str(path), load_external_data=False), path.stem)


def count_graph(model: ModelProto, name: str) -> GraphCost:
    """Counts a graph whose values have static shapes. Raises `ValueError` where one has none."""
    return GraphCost(name, tuple(_Counter(model).count()))


class _Counter:
    def __init__(self, model: ModelProto) -> None:
        graph = model.graph
        self._nodes = list(graph.node)
        self._constants = {tensor.name for tensor in graph.initializer}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._bytes: dict[str, int] = {}
        self._integers: set[str] = set()
        for tensor in graph.initializer:
            self._note(tensor.name, tensor.dims, tensor.data_type)
        for value in (*graph.input, *graph.value_info, *graph.output):
            dims = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
            self._note(value.name, dims, value.type.tensor_type.elem_type)

    def _note(self, name: str, dims: Iterable[int], kind: int) -> None:
        self._shapes[name] = tuple(int(size) for size in dims)
        self._bytes[name] = onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize if kind else 4
        if kind == onnx.TensorProto.BFLOAT16:
            self._bytes[name] = 2

    def count(self) -> Iterable[NodeCost]:
        layer: tuple[str, int] | None = None
        stored: dict[str, str] = {}  # a weight behind its DequantizeLinear or Cast
        for node in self._nodes:
            if all(name in self._constants or not name for name in node.input) and node.input:
                self._constants.update(node.output)
                stored[node.output[0]] = stored.get(node.input[0], node.input[0])
                continue
            if node.op_type in FREE or not node.input:
                continue
            own = self._layer(node, stored)
            layer = own or layer
            yield replace(self._node(node, stored), layer=layer, named=own is not None)

    def _layer(self, node: NodeProto, stored: dict[str, str]) -> tuple[str, int] | None:
        for name in node.input:
            match = LAYER.search(stored.get(name, name)) if name in self._constants else None
            if match:
                return match[1] if match.start() == 0 else stored.get(name, name)[: match.end(1)], int(match[2])
        return None

    def _size(self, name: str) -> int:
        if name not in self._shapes:
            raise ValueError(f"no shape for '{name}'")
        return math.prod(self._shapes[name])

    def _held(self, name: str) -> int:
        return self._size(name) * self._bytes[name]

    def _node(self, node: NodeProto, stored: dict[str, str]) -> NodeCost:
        result = node.output[0]
        moved = sum(self._held(name) for name in node.input if name and name not in self._constants)
        moved += sum(self._held(name) for name in node.output if name in self._shapes)
        if node.op_type in ("MatMul", "Gemm"):
            return self._product(node, stored, moved)
        if node.op_type == "Conv":
            weight = self._shapes[node.input[1]]
            each = math.prod(weight[1:])
            rows = self._size(result) // weight[0]
            return NodeCost(
                "Conv", "conv", "fp32", 2.0 * self._size(result) * each, self._held(node.input[1]), moved,
                rows=rows, inner=each, columns=weight[0],
            )  # fmt: skip
        if node.op_type in LOOKUPS:
            return NodeCost(node.op_type, "move", "fp32", 0.0, 0.0, 2.0 * self._held(result))
        kind = "heavy" if node.op_type in HEAVY else "move" if node.op_type in MOVES else "light"
        if node.op_type in QUANTISERS:
            kind = "quantise"
        return NodeCost(node.op_type, kind, "fp32", float(self._size(result)), 0.0, float(moved))

    def _product(self, node: NodeProto, stored: dict[str, str], moved: int) -> NodeCost:
        left, result = self._shapes[node.input[0]], self._shapes[node.output[0]]
        turned = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        inner = left[0] if turned.get("transA") else left[-1]
        columns = result[-1]
        if node.input[1] in self._constants:
            source = stored.get(node.input[1], node.input[1])
            wide = self._bytes[source]
            precision = {1: "int8", 2: "bf16"}.get(wide, "fp32")
            rows = math.prod(result) // columns
            return NodeCost(
                node.op_type, "gemm", precision, 2.0 * rows * inner * columns, float(self._size(source) * wide),
                float(moved), rows=rows, inner=inner, columns=columns,
            )  # fmt: skip
        rows = result[-2] if len(result) > 1 else 1
        batch = math.prod(result[:-2])
        return NodeCost(
            node.op_type, "batched", "fp32", 2.0 * batch * rows * inner * columns, 0.0, float(moved),
            batch=batch, rows=rows, inner=inner, columns=columns,
        )  # fmt: skip


def at_depth(cost: GraphCost, depths: dict[str, int]) -> GraphCost:
    """The same engine with so many layers in each of the named stacks: the second-to-last layer is repeated.

    Layers of a stack do the same work, so what a graph of four layers costs says what one of 28 costs. Raises
    `ValueError` for a stack that the graph does not have, or of fewer than three layers.
    """
    nodes = list(cost.nodes)
    for stack, depth in depths.items():
        numbers = sorted({node.layer[1] for node in nodes if node.layer and node.layer[0] == stack})
        if len(numbers) < 3:
            raise ValueError(f"{cost.name}: {len(numbers)} layers in '{stack}', at least 3 are needed to add more")
        model = [node for node in nodes if node.layer == (stack, numbers[-2])]
        for added in range(depth - len(numbers)):
            nodes += [replace(node, layer=(stack, numbers[-1] + 1 + added)) for node in model]
    return GraphCost(cost.name, tuple(nodes))


def stacks(cost: GraphCost) -> dict[str, int]:
    """How many layers each stack of a graph has."""
    found: dict[str, set[int]] = {}
    for node in cost.nodes:
        if node.layer:
            found.setdefault(node.layer[0], set()).add(node.layer[1])
    return {stack: len(numbers) for stack, numbers in found.items()}


def in_precision(cost: GraphCost, precision: str) -> GraphCost:
    """What the graph costs when its large products run in another precision, as `edge-export --precision` makes it."""
    wide = {"fp32": 4, "bf16": 2, "int8": 1}
    changed = [
        replace(node, precision=precision, weight_bytes=node.weight_bytes * wide[precision] / wide[node.precision])
        if node.kind == "gemm" and node.named
        else node
        for node in cost.nodes
    ]
    return GraphCost(cost.name, tuple(changed))
