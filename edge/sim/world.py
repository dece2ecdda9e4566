"""The world file of a simulated arm: where everything is, at the last tick."""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.errors import InputError
from firmware_bridge.codes import MAX_JOINTS

MODEL_FILE, WORLD_FILE = "scene.mjb", "world"
WORLD = np.dtype(
    [
        ("sequence", "<u8"),
        ("tick_us", "<u8"),
        ("joints", "<u4"),
        ("count", "<u4"),
        ("set_point", "<f8", (MAX_JOINTS,)),
        ("position", "<f8", (256,)),
    ]
)
"""`ve_world_t` of `firmware/ports/host/sim_device.h`; an odd sequence means that it is being written."""
READ_TRIES = 1000
SEQUENCE = struct.Struct("<Q")


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


class WorldWriter:
    """Publishes where an arm is that is simulated elsewhere. Made once; `publish` allocates no file and never waits."""

    def __init__(self, path: Path, joints: int) -> None:
        path.write_bytes(bytes(WORLD.itemsize))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), WORLD.itemsize)
        self._record = struct.Struct(f"<QII{MAX_JOINTS}d{joints}d")
        self._unused = (0.0,) * (MAX_JOINTS - joints)
        self._joints = joints
        self._sequence = 0

    def publish(self, tick_us: int, set_point_rad: Sequence[float], position_rad: Sequence[float]) -> None:
        """The pose of this tick; a reader that comes in mid-write tries again."""
        SEQUENCE.pack_into(self._map, 0, self._sequence + 1)
        self._record.pack_into(
            self._map, 8, tick_us, self._joints, self._joints, *set_point_rad, *self._unused, *position_rad
        )
        self._sequence += 2
        SEQUENCE.pack_into(self._map, 0, self._sequence)

    def close(self) -> None:
        self._map.close()
