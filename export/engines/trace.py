"""Traces a module into an ONNX graph with static shapes, and writes it."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir
import torch

from export.engines.graphs import Graph
from export.engines.unroll import FINISHED, ROW, STATE_AFTER, STATE_BEFORE, VELOCITY, unroll

OPSET = 20
EXTERNAL_DATA_BYTES = 1_500_000_000
"""Above this the weights go into a file of their own, since a protobuf ends at 2 GB."""
SMALL_BYTES = 1024
"""Constants up to this size stay in the graph, where shape inference looks for them."""


def trace(graph: Graph) -> ir.Model:
    """The graph as ONNX, every flow step unrolled; weights are still torch's own memory."""
    inputs, outputs = dict(graph.inputs), list(graph.outputs)
    if graph.rows is not None:
        inputs[ROW], outputs = graph.rows[0], [STATE_AFTER, VELOCITY, STATE_BEFORE]
        outputs += [FINISHED] if graph.finished else []
    with _quiet():
        program = torch.onnx.export(
            graph.module,
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=outputs,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model
    for node in model.graph:  # the tracer notes its own source line at every node
        node.metadata_props.clear()
    if graph.rows is not None:
        unroll(model, graph.rows, *graph.outputs)
    return model


def write(model: ir.Model, path: Path) -> None:
    """Writes the graph, and beside it `<name>.onnx.data` where the weights are large."""
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
    if size > EXTERNAL_DATA_BYTES:
        ir.save(model, path, external_data=f"{path.name}.data", size_threshold_bytes=SMALL_BYTES)
    else:
        ir.save(model, path)


def release(model: ir.Model) -> None:
    """Lets go of the weights of a graph that has been written: the tracer keeps its last graph alive."""
    for value in model.graph.initializers.values():
        value.const_value = None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter narrates its own steps and warns about libraries we do not use; neither helps who exports."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        exporter.setLevel(level)
