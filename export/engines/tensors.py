"""Small additions to a graph: constants and nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
import torch


def constant(graph: ir.Graph, name: str, tensor: torch.Tensor) -> ir.Value:
    """Registers an initializer; the tensor is not copied until the graph is written."""
    held = ir.tensor(tensor, name=name)
    value = ir.Value(name=name, type=ir.TensorType(held.dtype), shape=held.shape, const_value=held)
    graph.register_initializer(value)
    return value


def node(op_type: str, inputs: Sequence[ir.Value], output: str, dtype: ir.DataType, **attributes: Any) -> ir.Node:
    """A node of the standard domain with one named and typed output of its first input's shape."""
    value = ir.Value(name=output, type=ir.TensorType(dtype), shape=inputs[0].shape)
    return ir.Node("", op_type, inputs, ir.convenience.convert_attributes(attributes), outputs=[value], name=output)
