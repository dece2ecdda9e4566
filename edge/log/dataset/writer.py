"""Appends episodes to a LeRobot v3 dataset, so that it is whole on disk at any time.

Episodes are collected into parts: one file of rows, one of episodes, one video per camera. A part counts once
`meta/info.json` says so, and that is written last and at once. Whatever an interrupted writer has left behind it, the
next one writes over.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from edge.bundle.files import replacing
from edge.log.dataset.spec import (
    CODEBASE_VERSION,
    DATA_PATH,
    EPISODES_PATH,
    FILES_PER_CHUNK,
    INFO_PATH,
    STATS_PATH,
    TASKS_PATH,
    VIDEO_PATH,
    Column,
    DatasetSpec,
    DatasetWriteError,
    Flag,
    Vector,
    part_path,
)
from edge.log.dataset.statistics import Statistics, column_statistics, frame_statistics, merged, to_plain
from edge.log.dataset.tables import read_statistics, read_tasks, rows_table, tasks_table, write_table
from edge.log.dataset.video import INFO, VideoWriter
from firmware_bridge.reading import parse_json, read_bytes, told

REMARKS = "vla_edge"
"""The key of info.json under which remarks are kept."""


class DatasetWriter:
    """Writes one dataset; used as a context manager it closes at the end, and drops an unfinished part on an error.

    What cannot be had again, such as a person's demonstration, is kept by a `flush` after each episode.
    `remarks` is a mapping of plain data that goes into info.json with every part: seeds, counts, where it came from.
    Opening a folder that already holds a dataset of the same columns goes on after its last whole part. Raises
    `DatasetWriteError` for another dataset in the folder, for a folder that another process writes to, and for an
    episode with a wrong shape or a value that is not finite.
    """

    def __init__(self, folder: Path, spec: DatasetSpec, episodes_per_part: int = 100) -> None:
        self.folder, self.spec, self._per_part = folder, spec, episodes_per_part
        self.remarks: dict[str, Any] = {}
        self.episodes = self.frames = self._part = 0
        self._tasks: dict[str, int] = {}
        self._statistics: dict[str, Statistics] = {}
        self._rows: list[pa.Table] = []
        self._described: list[dict[str, Any]] = []
        self._videos: dict[str, VideoWriter] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = (folder / ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DatasetWriteError(
                f"{folder}: another process is writing this dataset; choose another folder"
            ) from None
        if (folder / INFO_PATH).exists():
            self._go_on()

    def continues(self, remarks: Mapping[str, Any]) -> None:
        """States what this recording is: the remarks of a new dataset, and those that one being continued must have."""
        differ = [key for key, value in remarks.items() if self.episodes and self.remarks.get(key) != value]
        if differ:
            was = ", ".join(f"{key} {self.remarks.get(key)!r}" for key in differ)
            raise DatasetWriteError(f"{self.folder}: was begun with {was}; give the same again, or another folder")
        self.remarks = {**self.remarks, **remarks}

    def add_episode(
        self,
        columns: Mapping[str, Any],
        tasks: str | Sequence[str],
    ) -> None:
        """Appends one: vectors (steps, width), frames (steps, height, width, 3), flags (steps, 1), one task or one per
        step. Frames may be made one at a time (`FrameColumn`)."""
        texts = [tasks] * len(next(iter(columns.values()))) if isinstance(tasks, str) else list(tasks)
        self._check(columns, texts)
        steps = len(texts)
        for text in texts:
            self._tasks.setdefault(text, len(self._tasks))
        indexed: dict[str, Any] = {
            **columns,
            "timestamp": np.arange(steps) / self.spec.fps,
            "frame_index": np.arange(steps),
            "episode_index": np.full(steps, self.episodes),
            "index": np.arange(self.frames, self.frames + steps),
            "task_index": np.array([self._tasks[text] for text in texts]),
        }
        self._rows.append(rows_table(self.spec, indexed))
        self._describe(indexed, texts, self._encode(columns))
        self.episodes, self.frames = self.episodes + 1, self.frames + steps
        if len(self._described) >= self._per_part:
            self.flush()

    def flush(self) -> None:
        """Completes the part that is being collected; does nothing where there is none."""
        if not self._described:
            return
        for video in self._videos.values():
            video.close()
        write_table(part_path(self.folder, DATA_PATH, self._part), pa.concat_tables(self._rows))
        write_table(part_path(self.folder, EPISODES_PATH, self._part), pa.Table.from_pylist(self._described))
        write_table(self.folder / TASKS_PATH, tasks_table(list(self._tasks)))
        self._write_json(STATS_PATH, to_plain(self._statistics))
        self._part += 1
        self._write_json(INFO_PATH, self._info())
        self._rows, self._described, self._videos = [], [], {}

    def close(self) -> None:
        """Completes the last part."""
        self.flush()
        self._lock.close()

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
            return
        for video in self._videos.values():
            video.discard()
        self._lock.close()

    def _check(self, columns: Mapping[str, Any], texts: Sequence[str]) -> None:
        where = f"{self.folder}, episode {self.episodes}"
        if set(columns) != set(self.spec.columns):
            raise DatasetWriteError(f"{where}: has {sorted(columns)}, the dataset has {sorted(self.spec.columns)}")
        if not texts:
            raise DatasetWriteError(f"{where}: has no steps")
        for name, column in self.spec.columns.items():
            values = columns[name]
            row, dtype = _row(column)
            if values.shape != (len(texts), *row) or (dtype is not None and values.dtype != dtype):
                kind = f"{values.dtype} {values.shape}"
                raise DatasetWriteError(f"{where}: {name} is {kind}, the dataset wants {(len(texts), *row)}")
            if isinstance(column, Vector):
                bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
                if bad.size:
                    raise DatasetWriteError(f"{where}: {name} is not finite in step {bad[0]}")

    def _encode(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """Appends the episode's frames to the part's videos; returns where they lie in them."""
        places: dict[str, Any] = {}
        chunk, file = divmod(self._part, FILES_PER_CHUNK)
        for name, camera in self.spec.videos.items():
            if name not in self._videos:
                path = part_path(self.folder, VIDEO_PATH, self._part, video_key=name)
                self._videos[name] = VideoWriter(path, self.spec.fps, camera.height_px, camera.width_px)
            video = self._videos[name]
            places[f"videos/{name}/chunk_index"], places[f"videos/{name}/file_index"] = chunk, file
            places[f"videos/{name}/from_timestamp"] = video.frames / self.spec.fps
            video.write(columns[name])
            places[f"videos/{name}/to_timestamp"] = video.frames / self.spec.fps
        return places

    def _describe(self, columns: Mapping[str, Any], texts: Sequence[str], videos: dict[str, Any]) -> None:
        chunk, file = divmod(self._part, FILES_PER_CHUNK)
        statistics = {
            name: (
                frame_statistics(values)
                if name in self.spec.cameras
                else column_statistics(values.reshape(len(texts), -1))
            )
            for name, values in columns.items()
        }
        self._count(statistics)
        described: dict[str, Any] = {
            "episode_index": self.episodes,
            "tasks": list(dict.fromkeys(texts)),
            "length": len(texts),
            "data/chunk_index": chunk,
            "data/file_index": file,
            "dataset_from_index": self.frames,
            "dataset_to_index": self.frames + len(texts),
            **videos,
            "meta/episodes/chunk_index": chunk,
            "meta/episodes/file_index": file,
        }
        described |= {
            f"stats/{name}/{kind}": value for name, of in to_plain(statistics).items() for kind, value in of.items()
        }
        self._described.append(described)

    def _count(self, episode: Mapping[str, Statistics]) -> None:
        for name, statistics in episode.items():
            known = self._statistics.get(name)
            self._statistics[name] = statistics if known is None else merged(known, statistics)

    def _info(self) -> dict[str, Any]:
        return {
            "codebase_version": CODEBASE_VERSION,
            "robot_type": self.spec.robot,
            "total_episodes": self.episodes,
            "total_frames": self.frames,
            "total_tasks": len(self._tasks),
            "chunks_size": FILES_PER_CHUNK,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": self.spec.fps,
            "splits": {"train": f"0:{self.episodes}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self.spec.videos else None,
            "features": self.spec.features(INFO),
            REMARKS: {**self.remarks, "parts": self._part},
        }

    def _write_json(self, name: str, document: dict[str, Any]) -> None:
        with replacing(self.folder / name) as partial:
            partial.write_text(json.dumps(document, indent=2) + "\n")

    def _go_on(self) -> None:
        """Takes up where the last whole part ended."""
        try:
            info = parse_json(read_bytes(self.folder / INFO_PATH))
            self.remarks = dict(info[REMARKS])
            self._part = int(self.remarks.pop("parts"))
            self.episodes, self.frames = int(info["total_episodes"]), int(info["total_frames"])
            same = (info["fps"], info["robot_type"], info["features"])
            self._tasks = {text: index for index, text in enumerate(read_tasks(self.folder / TASKS_PATH))}
            for part in range(self._part):
                for of_episode in read_statistics(part_path(self.folder, EPISODES_PATH, part)):
                    self._count(of_episode)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise DatasetWriteError(
                f"{self.folder}: holds a dataset that this cannot be appended to ({told(repr(error))}); "
                "choose another folder"
            ) from None
        if same != (self.spec.fps, self.spec.robot, self.spec.features(INFO)):
            raise DatasetWriteError(
                f"{self.folder}: holds a dataset with another rate, robot or columns; choose another folder"
            )


def _row(column: Column) -> tuple[tuple[int, ...], type | None]:
    """The shape of a step's value, and its type where only one is taken."""
    if isinstance(column, Vector):
        return (len(column.names),), None
    if isinstance(column, Flag):
        return (1,), np.bool_
    return (column.height_px, column.width_px, 3), np.uint8
