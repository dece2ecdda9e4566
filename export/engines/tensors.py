"""Small additions to a graph, constants and nodes, and the memory that runs through it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
import torch

LOOKUPS = ("Gather", "GatherND")


def constant(graph: ir.Graph, name: str, tensor: torch.Tensor) -> ir.Value:
    """Registers an initializer; the tensor is not copied until the graph is written."""
    held = ir.tensor(tensor, name=name)
    value = ir.Value(name=name, type=ir.TensorType(held.dtype), shape=ir.Shape(tensor.shape), const_value=held)
    graph.register_initializer(value)
    return value


def node(op_type: str, inputs: Sequence[ir.Value], output: str, dtype: ir.DataType, **attributes: Any) -> ir.Node:
    """A node of the standard domain with one named and typed output of its first input's shape."""
    value = ir.Value(name=output, type=ir.TensorType(dtype), shape=inputs[0].shape)
    return ir.Node("", op_type, inputs, ir.convenience.convert_attributes(attributes), outputs=[value], name=output)


def operand(product: ir.Node, index: int) -> ir.Value:
    """An input that the node must have."""
    value = product.inputs[index]
    assert value is not None, f"{product.name}: no input {index}"
    return value


def activation_bytes(graph: ir.Graph) -> int:
    """The most that values between nodes take at one time when the nodes run in order, each freed after its last use.

    Runtimes that fuse nodes need less, those that keep copies more.
    """
    last_use: dict[ir.Value, int] = {}
    for index, made in enumerate(graph):
        last_use.update({value: index for value in made.inputs if value is not None and not value.is_initializer()})
    freed: dict[int, list[ir.Value]] = {}
    for value, index in last_use.items():
        freed.setdefault(index, []).append(value)
    live = peak = sum(_bytes(value) for value in graph.inputs)
    for index, made in enumerate(graph):
        live += sum(_bytes(value) for value in made.outputs)
        peak = max(peak, live)
        live -= sum(_bytes(value) for value in freed.get(index, []))
    return peak


def read_bytes(graph: ir.Graph) -> int:
    """How much of the weights one run reads: each weight once for every node that takes it, rows of a table not."""
    weights = graph.initializers.values()
    return sum(_bytes(value) * sum(use.node.op_type not in LOOKUPS for use in value.uses()) for value in weights)


def _bytes(value: ir.Value) -> int:
    if value.shape is None or value.dtype is None:
        return 0
    return int(math.prod(int(size) for size in value.shape.numpy()) * value.dtype.itemsize)
