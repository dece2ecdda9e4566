"""A Franka Hand in a process of its own: pylibfranka keeps the interpreter's lock for as long as a command takes.

The hand takes a width and goes there by itself, in up to two seconds; it has no set-points to follow. So a new command
is given when the commanded width differs by more than `DEADBAND_M` from where the last command leads, and not before
that one has ended. While it runs, the last width that was read is the one that is reported.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from firmware_bridge.adapters.base import DriveError
from firmware_bridge.children import start_module
from firmware_bridge.printing import print_line

DEADBAND_M = 0.002
SPEED_M_S = 0.1
"""The most that the hand does (data sheet: 50 mm/s per finger)."""
FORCE_N = 20.0
"""Ours: holds a kilogram, and breaks little. The data sheet has 70 N continuously."""
WIDEST_M = 0.08
SILENT_NS = 4_000_000_000
"""Twice the longest command, which is 80 mm and back to rest."""
START_S = 20.0
IDLE_S = 0.005


@dataclass(frozen=True)
class HandState:
    """`width_m` as last read, at `read_ns` of this computer's monotonic clock; how many commands, how many refused."""

    width_m: float
    read_ns: int
    commands: int
    refused: int


class HandMemory:
    """What the two processes exchange: each writes one record, and the other reads it whole."""

    COMMAND, STATE = struct.Struct("<d?"), struct.Struct("<dQQQ")
    SEQUENCE = struct.Struct("<Q")
    SIZE, HALF = 128, 64

    def __init__(self, descriptor: int | None = None) -> None:
        if descriptor is None:
            descriptor = os.memfd_create("vla-edge-hand")
            os.ftruncate(descriptor, self.SIZE)
        self.descriptor = descriptor
        self._map = mmap.mmap(descriptor, self.SIZE)

    def command(self, width_m: float, enable: bool) -> None:
        self._write(0, self.COMMAND, width_m, enable)

    def commanded(self) -> tuple[float, bool] | None:
        """The commanded width, and whether the hand moves there; None before the first."""
        found = self._read(0, self.COMMAND)
        return None if found is None else (found[0], found[1])

    def report(self, state: HandState) -> None:
        self._write(self.HALF, self.STATE, state.width_m, state.read_ns, state.commands, state.refused)

    def reported(self) -> HandState | None:
        """None before the first."""
        found = self._read(self.HALF, self.STATE)
        return None if found is None else HandState(*found)

    def close(self) -> None:
        if not self._map.closed:
            self._map.close()
            os.close(self.descriptor)

    def _write(self, at: int, record: struct.Struct, *values: float) -> None:
        (before,) = self.SEQUENCE.unpack_from(self._map, at)
        self.SEQUENCE.pack_into(self._map, at, before + 1)
        record.pack_into(self._map, at + self.SEQUENCE.size, *values)
        self.SEQUENCE.pack_into(self._map, at, before + 2)

    def _read(self, at: int, record: struct.Struct) -> tuple[Any, ...] | None:
        while True:
            (before,) = self.SEQUENCE.unpack_from(self._map, at)
            values = record.unpack_from(self._map, at + self.SEQUENCE.size)
            if before % 2 == 0 and self.SEQUENCE.unpack_from(self._map, at) == (before,):
                return values if before else None


class HandLoop:
    """The hand's side: reads its width, and gives it a command when one is due."""

    def __init__(self, gripper: Any, memory: HandMemory, clock_ns: Callable[[], int]) -> None:
        self._gripper, self._memory, self._clock_ns = gripper, memory, clock_ns
        self._goal_m: float | None = None
        self._commands = self._refused = 0

    def step(self) -> None:
        """One look at the hand, and a command if one is due. Raises what the binding raises when the line is gone."""
        width_m = float(self._gripper.read_once().width)
        self._memory.report(HandState(width_m, self._clock_ns(), self._commands, self._refused))
        commanded = self._memory.commanded()
        if commanded is None or not commanded[1]:
            self._goal_m = None
            return
        leads_to_m = width_m if self._goal_m is None else self._goal_m
        target_m = min(max(commanded[0], 0.0), WIDEST_M)
        if abs(target_m - leads_to_m) > DEADBAND_M:
            self._goal_m = target_m
            self._command(target_m, closing=target_m < width_m)

    def _command(self, width_m: float, closing: bool) -> None:
        """Closing is a grasp at any width, so that an object is held and not only met."""
        self._commands += 1
        if closing:
            done = self._gripper.grasp(width_m, SPEED_M_S, FORCE_N, WIDEST_M, WIDEST_M)
        else:
            done = self._gripper.move(width_m, SPEED_M_S)
        self._refused += not done


class HandProcess:
    """The adapter's side. Starts the process and does not wait for it."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._memory = HandMemory()
        arguments = [address, str(self._memory.descriptor)]
        self._process = start_module(__name__, arguments, pass_fds=[self._memory.descriptor])

    def wait(self) -> HandProcess:
        """Waits until the hand has been read once. Raises `DriveError` when none answers."""
        deadline_s = time.monotonic() + START_S
        while self.state is None:
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                self.close()
                raise DriveError(f"no Franka Hand answers at {self._address}; without one leave out gripper=1")
            time.sleep(IDLE_S)
        return self

    @property
    def state(self) -> HandState | None:
        """As last reported; None before the first time."""
        return self._memory.reported()

    def is_heard(self, now_ns: int) -> bool:
        """Whether the hand has been read lately, and its process runs."""
        state = self.state
        return state is not None and now_ns - state.read_ns < SILENT_NS and self._process.poll() is None

    @property
    def is_over(self) -> bool:
        """Whether the process has ended, as it does when the hand's line is gone."""
        return self._process.poll() is not None

    def command(self, width_m: float, enable: bool) -> None:
        """Never waits. What is not finite is not commanded."""
        if math.isfinite(width_m):
            self._memory.command(width_m, enable)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()  # it may be waiting inside a command, and has nothing to put away
            self._process.wait()
        self._memory.close()


def main() -> int:
    """The process that `HandProcess` starts with ADDRESS and DESCRIPTOR."""
    import pylibfranka

    try:
        loop = HandLoop(pylibfranka.Gripper(sys.argv[1]), HandMemory(int(sys.argv[2])), time.monotonic_ns)
        while True:
            loop.step()
            time.sleep(IDLE_S)
    except Exception as error:  # libfranka's exceptions share no other base
        print_line(f"edge-adapter: the hand: {error}", sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
