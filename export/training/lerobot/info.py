"""meta/info.json of a LeRobot v3 dataset."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from export.training.lerobot.errors import DatasetError
from firmware_bridge.reading import Between, Name, Reader, Sized, one_line, shown

INFO = Reader(DatasetError, "copy the dataset again, or write its meta/info.json anew with LeRobot")
MOST_EPISODES, MOST_FRAMES, MOST_FILES, MOST_ELEMENTS = 200_000, 100_000_000, 99_999, 4096
NAMES: Any = Annotated[tuple[Annotated[str, Sized(1, 128)], ...], Sized(0, MOST_ELEMENTS)]
PLACEHOLDER = re.compile(r"\{(chunk_index|file_index|video_key)(?::0?(\d)d)?\}")
INDEX_COLUMNS = ("timestamp", "frame_index", "episode_index", "index", "task_index")


@dataclass(frozen=True)
class Feature:
    """One column: "float32", "int64", "video", "image"; `names` of its elements where the dataset has them."""

    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class DatasetInfo:
    """What a dataset says of itself."""

    folder: Path
    robot: str | None
    fps: float
    episodes: int
    frames: int
    features: Mapping[str, Feature]
    data_path: str
    video_path: str | None

    @property
    def file(self) -> Path:
        return self.folder / "meta" / "info.json"

    def cameras(self) -> tuple[str, ...]:
        """The columns with pictures, in the dataset's order."""
        return tuple(name for name, feature in self.features.items() if feature.dtype in ("video", "image"))

    def data_file(self, chunk: object, file: object) -> Path:
        """Where the rows of a chunk's file lie. Raises `DatasetError` for a place outside the dataset."""
        return self._place(self.data_path, {"chunk_index": chunk, "file_index": file})

    def video_file(self, camera: str, chunk: object, file: object) -> Path:
        """Where a camera's pictures lie, likewise."""
        if self.video_path is None:
            raise INFO.refuse(self.file, f"video_path is missing, and '{camera}' is a video")
        return self._place(self.video_path, {"video_key": camera, "chunk_index": chunk, "file_index": file})

    def _place(self, template: str, values: Mapping[str, object]) -> Path:
        """A file of the dataset by its template, which is matched and never formatted."""

        def written(found: re.Match[str]) -> str:
            name, width = found.group(1), int(found.group(2) or 0)
            value = values.get(name)
            if name == "video_key" and isinstance(value, str):
                return value
            if type(value) is not int or not 0 <= value <= MOST_FILES:
                raise INFO.refuse(self.file, f"{name} is {shown(value)} in meta/episodes, not from 0 to {MOST_FILES}")
            return f"{value:0{width}d}"

        text = PLACEHOLDER.sub(written, template)
        parts = text.split("/")
        if "{" in text or "}" in text or "\\" in text or not text.isprintable():
            raise INFO.refuse(
                self.file, f"{shown(template)} is no path of {', '.join('{' + one + '}' for one in values)}"
            )
        if any(part in ("", ".", "..") for part in parts):
            raise INFO.refuse(self.file, f"{shown(template)} leads out of the dataset")
        return self.folder.joinpath(*parts)

    def feature(self, name: str, wanted_by: str) -> Feature:
        """A column by name. Raises `DatasetError` where the dataset has none of that name."""
        if name not in self.features:
            have = ", ".join(key for key in self.features if key not in INDEX_COLUMNS)
            raise DatasetError(f"{self.file}: no column '{name}', which {wanted_by} takes; the dataset has {have}")
        return self.features[name]


@dataclass(frozen=True)
class _Feature:
    dtype: Name
    shape: Annotated[tuple[Annotated[int, Between(1, 1 << 16)], ...], Sized(1, 4)]
    names: Any = None


@dataclass(frozen=True)
class _Info:
    """What is read of the file; it has more."""

    codebase_version: Name
    fps: Annotated[float, Between(0.01, 1000)]
    total_episodes: Annotated[int, Between(0, MOST_EPISODES)]
    total_frames: Annotated[int, Between(0, MOST_FRAMES)]
    features: Annotated[dict[Annotated[str, Sized(1, 128)], _Feature], Sized(0, 512)]
    data_path: str
    video_path: str | None = None
    robot_type: Name | None = None


def read_info(folder: Path) -> DatasetInfo:
    """Reads and checks info.json. Raises `DatasetError`."""
    file = folder / "meta" / "info.json"
    if not file.is_file():
        raise DatasetError(f"{folder}: no meta/info.json there; name the folder of a LeRobot v3 dataset")
    document = INFO.json(file)
    version = document.get("codebase_version") if isinstance(document, dict) else None
    if isinstance(version, str) and not version.startswith("v3."):
        raise DatasetError(
            f"{file}: version {one_line(version, 40)}; this reads v3.0, and LeRobot's own tools convert older ones"
        )
    plain = INFO.into(_Info, document, file, extra=True)
    if plain.total_episodes == 0 or plain.total_frames == 0:
        raise DatasetError(
            f"{file}: the dataset is empty ({plain.total_episodes} episodes, {plain.total_frames} frames)"
        )
    missing = [name for name in INDEX_COLUMNS if name not in plain.features]
    if missing:
        raise DatasetError(f"{file}: no column {', '.join(missing)}, which every LeRobot dataset has")
    info = DatasetInfo(
        folder=folder,
        robot=plain.robot_type,
        fps=plain.fps,
        episodes=plain.total_episodes,
        frames=plain.total_frames,
        features={name: _feature(file, name, feature) for name, feature in plain.features.items()},
        data_path=plain.data_path,
        video_path=plain.video_path,
    )
    info.data_file(0, 0)
    for camera in info.cameras():
        if info.video_path is not None:
            info.video_file(camera, 0, 0)
    return info


def _feature(file: Path, name: str, plain: _Feature) -> Feature:
    names = plain.names
    if isinstance(names, dict):  # older recordings group them: {"motors": [...]}
        names = [element for group in names.values() for element in (group if isinstance(group, list) else [group])]
    where = f"features.{name}"
    elements = INFO.into(NAMES, names or [], file, f"{where}.names")
    if plain.dtype not in ("video", "image") and math.prod(plain.shape) > MOST_ELEMENTS:
        raise INFO.refuse(file, f"{where}.shape has {math.prod(plain.shape)} elements, more than {MOST_ELEMENTS}")
    return Feature(plain.dtype, plain.shape, elements)
