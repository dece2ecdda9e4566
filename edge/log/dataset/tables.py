"""Rows, episodes and tasks as the Parquet files of a LeRobot v3 dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from edge.bundle.files import replacing
from edge.log.dataset.spec import INDEX_COLUMNS, DatasetSpec, Flag, Vector
from edge.log.dataset.statistics import Statistics, from_plain
from edge.log.dataset.video import png

TASK_TEXT = "__index_level_0__"
"""The name pandas gives to the index that LeRobot keeps the texts of tasks in."""


def rows_table(spec: DatasetSpec, columns: Mapping[str, NDArray[Any]]) -> pa.Table:
    """One row per frame: vectors, images, and the index columns. Videos are files of their own."""
    arrays: dict[str, pa.Array] = {}
    for name, column in spec.columns.items():
        if isinstance(column, Vector):
            arrays[name] = _vectors(columns[name], len(column.names))
        elif isinstance(column, Flag):
            arrays[name] = pa.array(np.asarray(columns[name], np.bool_).reshape(-1))
        elif column.storage == "image":
            rows = [{"bytes": png(pixels), "path": f"frame-{row:06d}.png"} for row, pixels in enumerate(columns[name])]
            arrays[name] = pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    for name, dtype in INDEX_COLUMNS.items():
        arrays[name] = pa.array(columns[name].astype(dtype))
    return pa.table(arrays)


def _vectors(values: NDArray[Any], width: int) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).reshape(-1))
    return flat if width == 1 else pa.FixedSizeListArray.from_arrays(flat, width)


def write_table(path: Path, table: pa.Table) -> None:
    """Writes a file whole or not at all."""
    with replacing(path) as partial:
        pq.write_table(table, partial, compression="snappy")


def tasks_table(tasks: Sequence[str]) -> pa.Table:
    """Texts in the order of their index, as a pandas frame with the text as its index would be written."""
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), TASK_TEXT: pa.array(tasks, pa.string())})
    described: dict[str, Any] = {
        "index_columns": [TASK_TEXT],
        "column_indexes": [],
        "columns": [
            _pandas_column("task_index", "task_index", "int64", "int64"),
            _pandas_column(None, TASK_TEXT, "unicode", "object"),
        ],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.2.0",
    }
    return table.replace_schema_metadata({"pandas": json.dumps(described)})


def _pandas_column(name: str | None, field: str, kind: str, dtype: str) -> dict[str, Any]:
    return {"name": name, "field_name": field, "pandas_type": kind, "numpy_type": dtype, "metadata": None}


def read_tasks(path: Path) -> list[str]:
    """The texts in the order of their index."""
    table = pq.read_table(path)
    order = table.column("task_index").to_pylist()
    texts = table.column(TASK_TEXT).to_pylist()
    return [text for _, text in sorted(zip(order, texts))]


def read_statistics(path: Path) -> list[dict[str, Statistics]]:
    """The statistics of every episode that a file describes."""
    found = []
    for row in pq.read_table(path).to_pylist():
        plain: dict[str, dict[str, Any]] = {}
        for name, value in row.items():
            if name.startswith("stats/"):
                column, kind = name.removeprefix("stats/").rsplit("/", 1)
                plain.setdefault(column, {})[kind] = value
        found.append(from_plain(plain))
    return found
