"""Copies the nodes of one traced flow step for every further step, in the graph rather than in the tracer.

Tracing ten steps takes ten times as long as tracing one, and their nodes are the same.
"""

from __future__ import annotations

import onnx_ir as ir
import torch

from export.engines.tensors import constant

STATE_AFTER, VELOCITY, STATE_BEFORE, FINISHED, ROW = "state_after", "velocity", "state_before", "finished", "noisy"
"""Outputs and last input of the traced step; `finished` is left out where the chunk is the state itself."""


def unroll(model: ir.Model, rows: torch.Tensor, chunk: str, velocity: str | None = None) -> None:
    """Makes the graph of one step into that of len(rows) steps, in place.

    rows  (steps, ...), what the input `noisy` is in each step
    Nodes that depend neither on the state nor on the row are shared by all steps; what is made of the state after a
    step (`finished`) is made of the last one only.
    """
    graph = model.graph
    after, first, before, *finished = graph.outputs
    row = graph.inputs.pop()
    assert row.name == ROW
    constants = [constant(graph, f"{ROW}.{step}", values) for step, values in enumerate(rows)]
    ending = _dependents(graph, {after}) if finished else []
    graph.remove(ending)
    repeated = _dependents(graph, {before, row})
    row.replace_all_uses_with(constants[0])
    state = after
    for step in range(1, len(rows)):
        mapped: dict[ir.Value, ir.Value] = {before: state, constants[0]: constants[step]}
        for node in repeated:
            graph.append(_copy(node, mapped, step))
        state = mapped[after]
    for node in ending:
        for index, value in enumerate(node.inputs):
            if value is after:
                node.replace_input_with(index, state)
        graph.append(node)
    result = finished[0] if finished else state
    graph.outputs[:] = [result] if velocity is None else [result, first]
    result.name = chunk
    if velocity is not None:
        first.name = velocity


def _dependents(graph: ir.Graph, sources: set[ir.Value]) -> list[ir.Node]:
    reached, nodes = set(sources), []
    for node in graph:
        if any(value in reached for value in node.inputs):
            reached.update(node.outputs)
            nodes.append(node)
    return nodes


def _copy(node: ir.Node, mapped: dict[ir.Value, ir.Value], step: int) -> ir.Node:
    inputs = [mapped.get(value, value) if value is not None else None for value in node.inputs]
    outputs = [ir.Value(name=f"{value.name}.step{step}", type=value.type, shape=value.shape) for value in node.outputs]
    mapped.update(zip(node.outputs, outputs))
    name = f"{node.name}.step{step}"
    return ir.Node(node.domain, node.op_type, inputs, list(node.attributes.values()), outputs=outputs, name=name)
