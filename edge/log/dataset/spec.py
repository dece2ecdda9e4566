"""What a dataset holds: its rate, its robot, its columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge.errors import InputError

CODEBASE_VERSION = "v3.0"
FILES_PER_CHUNK = 1000
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
TASKS_PATH, STATS_PATH, INFO_PATH = "meta/tasks.parquet", "meta/stats.json", "meta/info.json"
INDEX_COLUMNS = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}
"""What every LeRobot dataset has besides its own columns."""


class DatasetWriteError(InputError):
    """An episode or a folder that cannot become part of a dataset; the message names it."""


@dataclass(frozen=True)
class Vector:
    """A column of float32 vectors with one name per element; a name ends in its unit where it has one."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Camera:
    """A column of RGB frames, uint8 (height, width, 3), as one video per file or as a PNG in every row."""

    height_px: int
    width_px: int
    storage: Literal["video", "image"] = "video"


@dataclass(frozen=True)
class Flag:
    """A column of one truth value a step, bool (steps, 1)."""


class FrameColumn(Protocol):
    """The frames of an episode, RGB uint8 (steps, height, width, 3), made one at a time or held as an array."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Any: ...

    def __len__(self) -> int: ...

    def __getitem__(self, step: int, /) -> NDArray[np.uint8]: ...

    def __iter__(self) -> Iterator[NDArray[np.uint8]]: ...


Column: TypeAlias = "Vector | Camera | Flag"


@dataclass(frozen=True)
class DatasetSpec:
    """Frames per second, the robot's name, and the columns by their LeRobot names ("observation.state", "action")."""

    fps: int
    robot: str
    columns: Mapping[str, Column]

    def __post_init__(self) -> None:
        for name in self.columns:
            if "/" in name or name in INDEX_COLUMNS:
                raise ValueError(f"a column cannot be called '{name}'")
        if self.fps < 1:
            raise ValueError(f"{self.fps} frames per second; LeRobot counts them in whole frames from 1 on")

    @property
    def vectors(self) -> dict[str, Vector]:
        return {name: column for name, column in self.columns.items() if isinstance(column, Vector)}

    @property
    def cameras(self) -> dict[str, Camera]:
        return {name: column for name, column in self.columns.items() if isinstance(column, Camera)}

    @property
    def videos(self) -> dict[str, Camera]:
        return {name: camera for name, camera in self.cameras.items() if camera.storage == "video"}

    def features(self, video_info: Mapping[str, Any]) -> dict[str, Any]:
        """The "features" of info.json."""
        described: dict[str, Any] = {}
        for name, column in self.columns.items():
            if isinstance(column, Vector):
                described[name] = {"dtype": "float32", "shape": [len(column.names)], "names": list(column.names)}
                continue
            if isinstance(column, Flag):
                described[name] = {"dtype": "bool", "shape": [1], "names": None}
                continue
            described[name] = {
                "dtype": column.storage,
                "shape": [column.height_px, column.width_px, 3],
                "names": ["height", "width", "channels"],
            }
            if column.storage == "video":
                described[name]["info"] = {
                    "video.height": column.height_px,
                    "video.width": column.width_px,
                    "video.fps": self.fps,
                    "video.channels": 3,
                    "video.is_depth_map": False,
                    "has_audio": False,
                    **video_info,
                }
        for name, dtype in INDEX_COLUMNS.items():
            described[name] = {"dtype": dtype, "shape": [1], "names": None}
        return described


def part_path(folder: Path, pattern: str, part: int, **more: str) -> Path:
    """Where the `part`-th file of a kind lies."""
    chunk, file = divmod(part, FILES_PER_CHUNK)
    return folder / pattern.format(chunk_index=chunk, file_index=file, **more)
