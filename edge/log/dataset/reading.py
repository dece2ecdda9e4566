"""The actions of a recorded episode, as set-points of an arm."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from edge.arms import ArmProfile
from edge.errors import InputError
from edge.log.dataset.spec import INFO_PATH, TASKS_PATH
from edge.log.dataset.tables import read_tasks
from firmware_bridge.reading import Between, ReadError, Sized, parse_json, read_bytes, told, typed

Names = Annotated[tuple[Annotated[str, Sized(1, 128)], ...], Sized(1, 64)]


@dataclass(frozen=True)
class Actions:
    """The actions of an episode (n, A), the names of their elements, and what was to be done."""

    folder: Path
    fps: int
    names: tuple[str, ...]
    values: NDArray[np.float64]
    task: str

    def of_arm(self, arm: ArmProfile) -> NDArray[np.float64]:
        """Positions (n, J) of an arm's axes. Raises `InputError` unless there is a commanded position of each."""
        wanted = [f"{joint}.pos_{unit}" for joint, unit in zip(arm.joints, arm.units)]
        missing = [name for name in wanted if name not in self.names]
        if missing:
            raise InputError(
                f"{self.folder}: its actions are {', '.join(self.names[:3])}, ...; an arm '{arm.name}' follows "
                f"positions such as {missing[0]}: give the arm that it was recorded on"
            )
        return self.values[:, [self.names.index(name) for name in wanted]]


def read_actions(folder: Path, episode: int) -> Actions:
    """Reads one episode of a LeRobot v3 dataset. Raises `InputError`."""
    try:
        info = parse_json(read_bytes(folder / INFO_PATH))
        fps = typed(Annotated[int, Between(1, 1000)], info["fps"], "fps")
        episodes = typed(int, info["total_episodes"], "total_episodes")
        names = typed(Names, info["features"]["action"]["names"], "names")
        if not 0 <= episode < episodes:
            raise InputError(f"{folder}: has no episode {episode}; give --episode 0 to {episodes - 1}")
        files = sorted((folder / "data").glob("chunk-*/file-*.parquet"))
        rows = [_rows_of(file, episode) for file in files]
        table: Any = pa.concat_tables([one for one in rows if one.num_rows])
        values = np.array(table.column("action").to_pylist(), np.float64)
        task = read_tasks(folder / TASKS_PATH)[table.column("task_index")[0].as_py()]
        if values.shape != (len(values), len(names)) or not np.isfinite(values).all():
            raise ValueError(f"actions of {values.shape}, or not finite")
    except (OSError, ReadError, LookupError, TypeError, ValueError, pa.ArrowException) as error:
        raise InputError(
            f"{folder}: is no dataset that can be played ({told(error)}); name one of edge-record's"
        ) from None
    return Actions(folder, fps, names, values, task)


def _rows_of(file: Path, episode: int) -> Any:
    return pq.read_table(
        file, columns=["action", "task_index", "frame_index"], filters=[("episode_index", "=", episode)]
    )
