"""The world file of the simulated device: where everything is, at the last tick."""

from __future__ import annotations

import mmap
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.errors import InputError

MODEL_FILE, WORLD_FILE = "scene.mjb", "world"
WORLD = np.dtype(
    [
        ("sequence", "<u8"),
        ("tick_us", "<u8"),
        ("joints", "<u4"),
        ("count", "<u4"),
        ("set_point", "<f8", (8,)),
        ("position", "<f8", (256,)),
    ]
)
"""`ve_world_t` of `firmware/ports/host/sim_device.h`; an odd sequence means that it is being written."""
READ_TRIES = 1000


class WorldReader:
    """Reads consistent snapshots of the world file, whoever writes it."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), WORLD.itemsize, access=mmap.ACCESS_READ)
        self._world = np.frombuffer(self._map, dtype=WORLD)

    def snapshot(self) -> NDArray[np.void]:
        """A copy of the whole record, shape (1,). Raises `InputError` when the writer died in mid-write."""
        for _ in range(READ_TRIES):
            before = int(self._world["sequence"][0])
            copy: NDArray[np.void] = self._world.copy()
            if before % 2 == 0 and int(self._world["sequence"][0]) == before:
                return copy
            time.sleep(20e-6)
        raise InputError("the simulated world is not being written any more; is bridge-sim alive?")

    def position(self) -> NDArray[np.float64]:
        """Generalised positions of the world."""
        world = self.snapshot()[0]
        position: NDArray[np.float64] = world["position"][: int(world["count"])]
        return position
