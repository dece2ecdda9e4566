"""Rewrites a traced FP32 graph for a lower precision, in the graph itself: TensorRT 11 has no switches for it.

Only products with a large weight change. The flow state, time, norms, softmax, rotary positions, the attention's own
products, everything added to the residual stream, and the layers between the slots and the network stay in FP32.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx_ir as ir
import torch

from export.engines.tensors import constant, node, operand

PRECISIONS = ("fp32", "bf16", "int8")
INT8_MAX = 127
INT8_WEIGHT_MAX = 64
"""Weights keep seven of their eight bits: an x86 processor without VNNI adds up two products at a time in 16 bits, and
2 x 255 x 64 is the most that fits there. ONNX Runtime shifts inputs to 0..255 first, so they need not be smaller."""
SMALLEST_RANGE = 1e-6
FLOAT, BFLOAT16, INT8 = ir.DataType.FLOAT, ir.DataType.BFLOAT16, ir.DataType.INT8


def to_bf16(model: ir.Model, weights: Iterable[str]) -> None:
    """Products with one of `weights` are computed in BF16, from operands cast to it, and cast back. In place."""
    graph = model.graph
    for name, found in _products(graph, weights).items():
        stored = constant(graph, f"{name}.bf16", _torch(graph.initializers[name]).to(torch.bfloat16))
        for product in found:
            x, key = operand(product, 0), product.outputs[0].name
            rounded = node("Cast", [x], f"{key}.operand", BFLOAT16, to=BFLOAT16)
            graph.insert_before(product, [rounded])
            product.replace_input_with(0, rounded.outputs[0])
            product.replace_input_with(1, stored)
            product.outputs[0].dtype = BFLOAT16
            _cast_after(graph, product, FLOAT)
        del graph.initializers[name]


def widen_bf16(model: ir.Model) -> None:
    """The same numbers for a runtime without BF16 products, in place: it serves verification on a CPU.

    Operands and results stay rounded to BF16; the product itself is FP32, which is what hardware for BF16 adds up in.
    """
    graph = model.graph
    wide: dict[ir.Value, ir.Value] = {}
    for product in [found for found in graph if found.op_type == "MatMul" and found.outputs[0].dtype == BFLOAT16]:
        for index in range(len(product.inputs)):
            narrow = operand(product, index)
            if narrow not in wide:
                cast = node("Cast", [narrow], f"{narrow.name}.widened", FLOAT, to=FLOAT)
                if narrow.is_initializer():
                    graph.insert_before(graph[0], [cast])
                else:
                    graph.insert_before(product, [cast])
                wide[narrow] = cast.outputs[0]
            product.replace_input_with(index, wide[narrow])
        product.outputs[0].dtype = FLOAT
        _cast_after(graph, product, BFLOAT16)


def to_int8(model: ir.Model, ranges: Mapping[str, list[float]]) -> None:
    """Products with one of the weights in `ranges` run between Q/DQ pairs, in place.

    Weights get one scale per output and go up to `INT8_WEIGHT_MAX`, inputs get one per product: `ranges` holds, for
    every weight, the largest absolute input of each of its products, in the order in which they run. Both are
    symmetric, as TensorRT demands.
    """
    graph = model.graph
    zero = constant(graph, "int8_zero", torch.tensor(0, dtype=torch.int8))
    for name, found in _products(graph, ranges).items():
        assert len(found) == len(ranges[name]), f"{name}: {len(found)} products, {len(ranges[name])} ranges"
        restored = _quantised(graph, graph.initializers[name])
        for product, largest in zip(found, ranges[name]):
            x, key = operand(product, 0), product.outputs[0].name
            scale = constant(graph, f"{key}.scale", torch.tensor(max(largest, SMALLEST_RANGE) / INT8_MAX))
            quantise = node("QuantizeLinear", [x, scale, zero], f"{key}.int8", INT8)
            restore = node("DequantizeLinear", [quantise.outputs[0], scale, zero], f"{key}.input", FLOAT)
            graph.insert_before(product, [quantise, restore])
            product.replace_input_with(0, restore.outputs[0])
            product.replace_input_with(1, restored)
        del graph.initializers[name]


def embedding_to_bf16(model: ir.Model, name: str) -> None:
    """Stores a table of embeddings in BF16 and widens the rows that are looked up. In place."""
    graph = model.graph
    table = graph.initializers[name]
    stored = constant(graph, f"{name}.bf16", _torch(table).to(torch.bfloat16))
    for lookup in [use.node for use in table.uses()]:
        rows = lookup.outputs[0]
        wide = _cast_after(graph, lookup, FLOAT)
        rows.dtype, wide.shape = BFLOAT16, rows.shape
        lookup.replace_input_with(0, stored)
    del graph.initializers[name]


def _products(graph: ir.Graph, weights: Iterable[str]) -> dict[str, list[ir.Node]]:
    """The products of every weight, in the order in which they run."""
    wanted = set(weights)
    found: dict[str, list[ir.Node]] = {name: [] for name in sorted(wanted)}
    for candidate in graph:
        if candidate.op_type == "MatMul" and candidate.inputs[1] is not None and candidate.inputs[1].name in wanted:
            found[str(candidate.inputs[1].name)].append(candidate)
    unused = [name for name, products in found.items() if not products]
    assert not unused, f"no product with {unused}"
    return found


def _cast_after(graph: ir.Graph, before: ir.Node, dtype: ir.DataType) -> ir.Value:
    """Puts a cast between a node and everything that uses its result."""
    result = before.outputs[0]
    cast = ir.Node("", "Cast", [None], ir.convenience.convert_attributes({"to": dtype}), num_outputs=1)
    made = cast.outputs[0]
    made.name, made.type, made.shape = f"{result.name}.{dtype.name.lower()}", ir.TensorType(dtype), result.shape
    result.replace_all_uses_with(made)
    cast.replace_input_with(0, result)
    graph.insert_after(before, cast)
    return made


def _quantised(graph: ir.Graph, weight: ir.Value) -> ir.Value:
    """The weight in INT8 with one scale per output, and the node that restores it."""
    values, name = _torch(weight), weight.name
    scale = values.abs().amax(dim=0).clamp(min=SMALLEST_RANGE) / INT8_WEIGHT_MAX
    parts = [
        constant(graph, f"{name}.int8", (values / scale).round().to(torch.int8)),
        constant(graph, f"{name}.scale", scale),
        constant(graph, f"{name}.zero", torch.zeros(len(scale), dtype=torch.int8)),
    ]
    restore = node("DequantizeLinear", parts, f"{name}.restored", FLOAT, axis=1)
    graph.insert_before(graph[0], [restore])
    return restore.outputs[0]


def _torch(value: ir.Value) -> torch.Tensor:
    held = value.const_value
    assert held is not None
    raw = held.raw
    return raw.detach() if isinstance(raw, torch.Tensor) else torch.from_numpy(held.numpy().copy())
