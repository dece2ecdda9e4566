"""meta/info.json of a LeRobot v3 dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.training.lerobot.errors import DatasetError

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

    def feature(self, name: str, wanted_by: str) -> Feature:
        """A column by name. Raises `DatasetError` where the dataset has none of that name."""
        if name not in self.features:
            have = ", ".join(key for key in self.features if key not in INDEX_COLUMNS)
            raise DatasetError(f"{self.file}: no column '{name}', which {wanted_by} takes; the dataset has {have}")
        return self.features[name]


def read_info(folder: Path) -> DatasetInfo:
    """Reads and checks info.json. Raises `DatasetError`."""
    file = folder / "meta" / "info.json"
    if not file.is_file():
        raise DatasetError(f"{folder}: no meta/info.json there; name the folder of a LeRobot v3 dataset")
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        version = str(document["codebase_version"])
        if not version.startswith("v3."):
            raise DatasetError(
                f"{file}: version {version}; this reads v3.0, and LeRobot's own tools convert older ones"
            )
        info = _info(folder, document)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{file}: cannot be read ({error!r}); copy the dataset again") from None
    if not info.fps > 0:
        raise DatasetError(f"{file}: fps is {info.fps}; it must be the positive rate of the recording")
    if info.episodes == 0 or info.frames == 0:
        raise DatasetError(f"{file}: the dataset is empty ({info.episodes} episodes, {info.frames} frames)")
    missing = [name for name in INDEX_COLUMNS if name not in info.features]
    if missing:
        raise DatasetError(f"{file}: no column {', '.join(missing)}, which every LeRobot dataset has")
    return info


def _info(folder: Path, document: dict[str, Any]) -> DatasetInfo:
    features = {}
    for name, plain in document["features"].items():
        names = plain.get("names")
        if isinstance(names, dict):  # older recordings group them: {"motors": [...]}
            names = [element for group in names.values() for element in group]
        features[name] = Feature(str(plain["dtype"]), tuple(map(int, plain["shape"])), tuple(map(str, names or ())))
    return DatasetInfo(
        folder=folder,
        robot=document.get("robot_type"),
        fps=float(document["fps"]),
        episodes=int(document["total_episodes"]),
        frames=int(document["total_frames"]),
        features=features,
        data_path=str(document["data_path"]),
        video_path=document.get("video_path"),
    )
