"""Traces a module into an ONNX file with static shapes."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

from export.engines.graphs import Graph

OPSET = 20
EXTERNAL_DATA_BYTES = 1_500_000_000
"""Above this the weights go into a file of their own, since a protobuf ends at 2 GB."""


def trace(graph: Graph, folder: Path) -> list[Path]:
    """Writes `<name>.onnx`, and its external data where the weights are large. Returns the files."""
    path = folder / f"{graph.name}.onnx"
    size = sum(tensor.numel() * tensor.element_size() for tensor in graph.module.state_dict().values())
    with _quiet():
        torch.onnx.export(
            graph.module.eval(),
            tuple(graph.inputs.values()),
            str(path),
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            opset_version=OPSET,
            dynamo=True,
            external_data=size > EXTERNAL_DATA_BYTES,
            verbose=False,
        )
    return sorted(folder.glob(f"{graph.name}.onnx*"))


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
