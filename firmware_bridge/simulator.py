"""The simulated device: the firmware as a process on a pseudo-terminal, or in this process for lockstep tests."""

from __future__ import annotations

import ctypes
import json
import os
import select
import subprocess
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Literal

from firmware_bridge.children import end, ended_on_error, start
from firmware_bridge.codes import MAX_JOINTS, DeviceState
from firmware_bridge.errors import BridgeError
from firmware_bridge.native import build, load, mujoco_library

START_TIMEOUT_S = 20.0
WORLD_CAPACITY = 256
TRANSMIT_SIZE = 2048
_AT, _TEXT, _U8, _U32, _U64 = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint8, ctypes.c_uint32, ctypes.c_uint64
SIGNATURES = {
    "ve_sim_open": (_AT, _TEXT, _AT, _TEXT, _TEXT, _TEXT, _TEXT),
    "ve_sim_receive": (None, _AT, _U8, _TEXT, _U32, _U64),
    "ve_sim_tick": (None, _AT),
    "ve_sim_transmit": (_U32, _AT, _AT, _U32),
    "ve_sim_now_us": (_U64, _AT),
    "ve_sim_state": (_U8, _AT),
    "ve_sim_world": (_U32, _AT, _AT, _U32),
    "ve_sim_fault": (None, _AT, ctypes.c_int, ctypes.c_double),
    "ve_sim_flush": (None, _AT),
    "ve_sim_close": (None, _AT),
}
"""Of `sim_device.h`: result, arguments."""


class SimulatedFault(IntEnum):
    """Faults of the simulated drive and clock: `ve_sim_fault_t` of `sim_device.h`."""

    FEEDBACK_LOST = 0
    FEEDBACK_NAN = 1
    OFFSET_RAD = 2
    TICK_ERROR_US = 3
    DRIVE_STUCK = 4


@dataclass(frozen=True)
class SimulatedArm:
    """What to simulate.

    `model` is a compiled MuJoCo model (.mjb); without one the arm follows its set-points exactly.
    """

    arm: str
    start_rad: tuple[float, ...]
    model: Path | None = None
    trace: Path | None = None
    world: Path | None = None
    line: Literal["serial", "slcan", "slcan-fd"] = "serial"
    """What the pseudo-terminal is: the line itself, or an SLCAN adapter on a bus with the device as its `node`."""
    node: int = 0

    def mujoco(self) -> Path | None:
        """The library behind `model`. Raises `BuildError`."""
        return mujoco_library() if self.model is not None else None


def command(arm: SimulatedArm, realtime: bool, parent: int | None) -> list[str]:
    """The command line of the simulated device, which ends with the process `parent`. Raises `BuildError`."""
    arguments = [str(build().program), "--arm", arm.arm, "--start", ",".join(repr(q) for q in arm.start_rad)]
    paths = {"--model": arm.model, "--mujoco": arm.mujoco(), "--trace": arm.trace, "--world": arm.world}
    for option, path in paths.items():
        arguments += [option, str(path)] if path is not None else []
    arguments += ["--line", arm.line, "--node", str(arm.node)]
    arguments += ["--die-with-parent", str(parent)] if parent is not None else []
    return arguments + ["--realtime"] * realtime


class SimulatorProcess:
    """The simulated device in a process of its own, in real time."""

    def __init__(self, arm: SimulatedArm, realtime: bool = True) -> None:
        self.process = start(command(arm, realtime, os.getpid()), stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        with ended_on_error(self.process):
            ready, _, _ = select.select([self.process.stdout], [], [], START_TIMEOUT_S)
            line = self.process.stdout.readline() if ready else ""
            if not line:
                raise BridgeError("the simulated device did not start (its message stands above)")
            self.description = json.loads(line)

    @property
    def port(self) -> str:
        """Path of the pseudo-terminal."""
        return str(self.description["port"])

    @property
    def pid(self) -> int:
        return self.process.pid

    def close(self) -> None:
        """Ends the process; its trace is complete afterwards."""
        end(self.process, 5.0)
        if self.process.stdout is not None:
            self.process.stdout.close()


class LockstepDevice:
    """The same device in this process, stepped by the caller. Also a `Transport`: a line without delay."""

    def __init__(self, arm: SimulatedArm) -> None:
        self._library = load(build().library, SIGNATURES)
        start = (ctypes.c_double * MAX_JOINTS)(*arm.start_rad)
        self._handle = self._library.ve_sim_open(
            arm.arm.encode(),
            start,
            *(str(path).encode() if path else None for path in (arm.model, arm.mujoco(), arm.trace, arm.world)),
        )
        if not self._handle:
            raise BridgeError("the simulated device did not start (its message stands above)")
        self._buffer = ctypes.create_string_buffer(TRANSMIT_SIZE)
        self._world = (ctypes.c_double * WORLD_CAPACITY)()

    @property
    def now_us(self) -> int:
        """Device time."""
        return int(self._library.ve_sim_now_us(self._sim))

    @property
    def state(self) -> DeviceState:
        return DeviceState(self._library.ve_sim_state(self._sim))

    def tick(self, count: int = 1) -> None:
        """Runs `count` periods of 1 ms."""
        for _ in range(count):
            self._library.ve_sim_tick(self._sim)

    def world(self) -> list[float]:
        """All generalised positions of the simulated world."""
        count = self._library.ve_sim_world(self._sim, self._world, WORLD_CAPACITY)
        return self._world[:count]

    def read(self) -> bytes:
        count = self._library.ve_sim_transmit(self._sim, self._buffer, TRANSMIT_SIZE)
        return self._buffer.raw[:count]

    def write(self, data: bytes, channel: int = 0) -> None:
        self._library.ve_sim_receive(self._sim, channel, data, len(data), self.now_us)

    def fault(self, fault: SimulatedFault, value: float) -> None:
        """Injects a fault of the simulated drive or clock; 0 heals it."""
        self._library.ve_sim_fault(self._sim, int(fault), value)

    def flush(self) -> None:
        """Makes the trace on disk complete up to the last tick."""
        self._library.ve_sim_flush(self._sim)

    def close(self) -> None:
        if self._handle:
            self._library.ve_sim_close(self._handle)
            self._handle = None

    @property
    def _sim(self) -> int:
        if not self._handle:
            raise BridgeError("the simulated device is closed")
        return int(self._handle)
