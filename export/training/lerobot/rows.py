"""The rows of a LeRobot v3 dataset, checked against what info.json promises."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from export.training.lerobot.errors import DatasetError
from export.training.lerobot.footer import column_claims
from export.training.lerobot.info import INDEX_COLUMNS, MOST_EPISODES, MOST_FRAMES, DatasetInfo
from firmware_bridge.reading import is_lfs_pointer, one_line, shown

UNPACKED_BYTES, UNPACKED_TIMES = 64 << 20, 64
"""A Parquet file may unpack to so much, and to so many times its own length; recordings stay far below."""
VALUE_BYTES = 8
MOST_TASK = 2000
ROWS_AT_ONCE = 256
PLACES = ("episode_index", "length", "data/chunk_index", "data/file_index")
"""What must be known of every episode."""
TIME_TOLERANCE = 0.25
"""How far, in frames, a timestamp may lie from where its index and fps put it; beyond, one of them is wrong."""


@dataclass(frozen=True)
class Rows:
    """All rows in their order. Columns are float32 (rows, width); `files` are (path, first row) in their order."""

    columns: dict[str, NDArray[np.float32]]
    episode: NDArray[np.int64]
    frame: NDArray[np.int64]
    task: NDArray[np.int64]
    tasks: tuple[str, ...]
    described: list[dict[str, Any]]
    files: tuple[tuple[Path, int], ...]

    def place(self, row: int) -> str:
        """File, row in it, episode and frame of a row, for messages."""
        path, first = next((path, first) for path, first in reversed(self.files) if first <= row)
        return f"{path}, row {row - first} (episode {self.episode[row]}, frame {self.frame[row]})"


def read_rows(info: DatasetInfo, columns: Sequence[str]) -> Rows:
    """Reads `columns` and checks every row of the dataset. Raises `DatasetError` with file and row."""
    described = _episodes(info)
    tasks = tasks_of(info)
    files: list[tuple[Path, int]] = []
    pieces: dict[str, list[NDArray[Any]]] = {name: [] for name in (*columns, *INDEX_COLUMNS)}
    first = 0
    for path in _data_files(info, described):
        table = read_parquet(path, _present(path, pieces), info.frames - first)
        for name, read in pieces.items():
            width = 1 if name in INDEX_COLUMNS else int(np.prod(info.features[name].shape))
            read.append(_column(table, path, name, width))
        files.append((path, first))
        first += len(table)
    joined = {name: np.concatenate(read) for name, read in pieces.items()}
    with np.errstate(invalid="ignore", over="ignore"):  # what is no number in the smaller type is found below
        index = {name: joined[name][:, 0].astype(np.int64) for name in INDEX_COLUMNS[1:]}
        kept = {name: joined[name].astype(np.float32) for name in columns}
    rows = Rows(
        columns=kept,
        episode=index["episode_index"],
        frame=index["frame_index"],
        task=index["task_index"],
        tasks=tasks,
        described=described,
        files=tuple(files),
    )
    _check_counts(info, rows)
    _check_times(info, rows, joined["timestamp"][:, 0])
    _check_tasks(info, rows)
    _check_finite(info, rows)
    return rows


def read_parquet(path: Path, columns: Sequence[str] | None = None, most_rows: int = MOST_FRAMES) -> pa.Table:
    """A Parquet file, or a `DatasetError` that names it; read in pieces, and never beyond what its length can hold."""
    if not path.is_file():
        raise DatasetError(f"{path}: missing; copy the whole dataset again")
    if is_lfs_pointer(path):
        raise DatasetError(f"{path}: is a pointer of Git LFS, not the file itself: fetch it with git lfs pull")
    most_bytes = UNPACKED_BYTES + UNPACKED_TIMES * path.stat().st_size
    try:
        with pq.ParquetFile(path) as file:
            _check_claims(path, file, columns, most_rows, most_bytes)
            batches, read = [], 0
            for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=columns, use_threads=False):
                batch.validate(full=True)  # texts are UTF-8, lists as long as they say
                batches.append(batch)
                read += batch.nbytes
                if read > most_bytes:
                    raise DatasetError(f"{path}: unpacks to more than {most_bytes >> 20} MB; copy it again")
            return pa.Table.from_batches(batches, batches[0].schema if batches else file.schema_arrow)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        reason = one_line(str(error).partition("\n")[0], 120)
        raise DatasetError(f"{path}: cannot be read, it is cut short or damaged ({reason}); copy it again") from None


def _check_claims(path: Path, file: pq.ParquetFile, columns: Sequence[str] | None, rows: int, most_bytes: int) -> None:
    """What the file says of its own size, before any of it is unpacked."""
    described = file.metadata
    if described.num_rows > rows:
        raise DatasetError(f"{path}: has {described.num_rows} rows, and the dataset {rows}; copy it again")
    wanted = [one for one in column_claims(path) if columns is None or one.path.startswith(tuple(columns))]
    unpacked = sum(max(one.unpacked_bytes, VALUE_BYTES * one.values, 0) for one in wanted)
    if unpacked > most_bytes:
        raise DatasetError(
            f"{path}: unpacks to {unpacked >> 20} MB, more than a file of its length holds; copy it again"
        )


def _episodes(info: DatasetInfo) -> list[dict[str, Any]]:
    """What meta/episodes says, one mapping per episode in their order."""
    paths = sorted((info.folder / "meta" / "episodes").glob("*/*.parquet"))
    if not paths:
        raise DatasetError(f"{info.folder}/meta/episodes: no file there; copy the whole dataset again")
    described: list[dict[str, Any]] = []
    for path in paths:
        names = _names(path)
        wanted = [name for name in names if name in PLACES or name.startswith("videos/")]
        missing = set(PLACES) - set(wanted)
        if missing:
            raise DatasetError(f"{path}: no column {', '.join(sorted(missing))}")
        table = read_parquet(path, wanted, info.episodes - len(described))
        for row, episode in enumerate(table.to_pylist()):
            if episode["episode_index"] != len(described):
                raise DatasetError(
                    f"{path}, row {row}: episode {shown(episode['episode_index'])} where {len(described)} should be"
                )
            if type(episode["length"]) is not int or not 0 < episode["length"] <= info.frames:
                raise DatasetError(
                    f"{path}, row {row}: length is {shown(episode['length'])}, and the dataset has {info.frames} frames"
                )
            info.data_file(episode["data/chunk_index"], episode["data/file_index"])
            described.append(episode)
    if len(described) != info.episodes:
        raise DatasetError(f"{info.file}: says {info.episodes} episodes, meta/episodes describes {len(described)}")
    if sum(episode["length"] for episode in described) != info.frames:
        total = sum(episode["length"] for episode in described)
        raise DatasetError(
            f"{info.file}: says {info.frames} frames, the episodes add up to {total}; copy the whole dataset again"
        )
    return described


def _names(path: Path) -> list[str]:
    """The columns of a file."""
    if path.is_file() and is_lfs_pointer(path):
        raise DatasetError(f"{path}: is a pointer of Git LFS, not the file itself: fetch it with git lfs pull")
    try:
        names: list[str] = pq.read_schema(path).names
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = one_line(str(error).partition("\n")[0], 120)
        raise DatasetError(f"{path}: cannot be read, it is cut short or damaged ({reason}); copy it again") from None
    return names


def _data_files(info: DatasetInfo, described: list[dict[str, Any]]) -> list[Path]:
    places = dict.fromkeys((episode["data/chunk_index"], episode["data/file_index"]) for episode in described)
    return [info.data_file(chunk, file) for chunk, file in places]


def _present(path: Path, wanted: Iterable[str]) -> list[str] | None:
    """Those of the wanted columns that a file has; all, where one is missing, for the message that says so."""
    if not path.is_file():
        return None
    names = _names(path)
    return [name for name in wanted if name in names]


def tasks_of(info: DatasetInfo) -> tuple[str, ...]:
    """The texts by their index; the column of texts has pandas' name for an index, or "task"."""
    path = info.folder / "meta" / "tasks.parquet"
    table = read_parquet(path, most_rows=MOST_EPISODES)
    texts = [
        field.name for field in table.schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
    ]
    if "task_index" not in table.column_names or len(texts) != 1:
        raise DatasetError(f"{path}: columns {table.column_names}; it must have task_index and one text")
    if not pa.types.is_integer(table.schema.field("task_index").type):
        raise DatasetError(f"{path}: task_index holds {table.schema.field('task_index').type}, not whole numbers")
    found = dict(zip(table.column("task_index").to_pylist(), table.column(texts[0]).to_pylist()))
    if set(found) != set(range(table.num_rows)):
        raise DatasetError(f"{path}: task_index does not count from 0 to {table.num_rows - 1}")
    for index, text in found.items():
        if not isinstance(text, str) or len(text) > MOST_TASK:
            raise DatasetError(
                f"{path}: task {index} is {shown(text)}; a task is a text of at most {MOST_TASK} characters"
            )
    return tuple(found[index] for index in range(len(found)))


def _column(table: pa.Table, path: Path, name: str, width: int) -> NDArray[Any]:
    """One column as (rows, width). Raises `DatasetError` for one that is missing, not numbers, or of another width."""
    if name not in table.column_names:
        raise DatasetError(f"{path}: no column '{name}'; it has {', '.join(table.column_names)}")
    column = table.column(name).combine_chunks()
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise DatasetError(f"{path}, row {row}: {name} is empty")
    if not (pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type)):
        if width != 1:
            raise DatasetError(f"{path}, row 0: {name} has 1 value, info.json says {width}")
        return _numbers(column, path, name).reshape(-1, 1)
    if pa.types.is_fixed_size_list(column.type):
        lengths = np.full(len(column), column.type.list_size)
    else:
        lengths = np.diff(column.offsets.to_numpy())
    wrong = np.flatnonzero(lengths != width)
    if wrong.size:
        raise DatasetError(f"{path}, row {wrong[0]}: {name} has {lengths[wrong[0]]} values, info.json says {width}")
    return _numbers(column.flatten(), path, name).reshape(-1, width)


def _numbers(flat: pa.Array, path: Path, name: str) -> NDArray[Any]:
    kind = flat.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise DatasetError(f"{path}: {name} holds {kind}, not numbers")
    values: NDArray[Any] = flat.to_numpy(zero_copy_only=False)
    return values


def _check_counts(info: DatasetInfo, rows: Rows) -> None:
    """Episodes follow each other from 0, frames within them too, as long as described."""
    lengths = np.array([episode["length"] for episode in rows.described])
    episode = np.repeat(np.arange(len(lengths)), lengths)
    frame = np.arange(len(episode)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    both = min(len(episode), len(rows.episode))
    wrong = np.flatnonzero((rows.episode[:both] != episode[:both]) | (rows.frame[:both] != frame[:both]))
    if wrong.size:
        row = int(wrong[0])
        name, found, wanted = "episode_index", rows.episode[row], episode[row]
        if found == wanted:
            name, found, wanted = "frame_index", rows.frame[row], frame[row]
        raise DatasetError(f"{rows.place(row)}: {name} is {found}, {wanted} should come next")
    if len(rows.episode) != len(episode) or len(episode) != info.frames:
        raise DatasetError(
            f"{info.file}: says {info.frames} frames, the episodes add up to {len(episode)}, "
            f"the files hold {len(rows.episode)}; copy the whole dataset again"
        )


def _check_times(info: DatasetInfo, rows: Rows, time_s: NDArray[Any]) -> None:
    late = time_s.astype(np.float64) * info.fps - rows.frame
    wrong = np.flatnonzero(~(np.abs(late) <= TIME_TOLERANCE))
    if wrong.size:
        row = int(wrong[0])
        raise DatasetError(
            f"{rows.place(row)}: timestamp {time_s[row]:.4f} s, but at {info.fps:g} fps this frame is at "
            f"{rows.frame[row] / info.fps:.4f} s; fps in info.json is wrong, or frames are missing"
        )


def _check_tasks(info: DatasetInfo, rows: Rows) -> None:
    wrong = np.flatnonzero((rows.task < 0) | (rows.task >= len(rows.tasks)))
    if wrong.size:
        row = int(wrong[0])
        raise DatasetError(
            f"{rows.place(row)}: task_index {rows.task[row]}; meta/tasks.parquet has 0 to {len(rows.tasks) - 1}"
        )


def _check_finite(info: DatasetInfo, rows: Rows) -> None:
    for name, values in rows.columns.items():
        wrong = np.argwhere(~np.isfinite(values))
        if wrong.size:
            row, element = map(int, wrong[0])
            names = info.features[name].names
            which = names[element] if element < len(names) else element
            raise DatasetError(f"{rows.place(row)}: {name}[{which}] is {values[row, element]}")
