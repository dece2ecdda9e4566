"""An arm that follows the newest set-point of another program, from a process of its own.

Whoever sends set-points may stall, encode a video or end: control goes on in its own process, holds at the newest
set-point, and ends with a controlled stop when it is told to or its parent has gone. The two share one slot of memory a
way, and no call here waits for the arm but `follow` and `close`.
"""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Annotated, Any

import numpy as np
from numpy.typing import ArrayLike

from edge.arms import load_arm
from edge.errors import InputError, SafetyStop
from edge.inference.layout import Layout, RecordMailbox
from edge.inference.mailbox import Mailbox, SharedMemory
from edge.plan.trajectory import FloatArray
from firmware_bridge.children import end, start_module
from firmware_bridge.layout import Item

READY_TIMEOUT_S = 60.0
END_TIMEOUT_S = 15.0
LOOK_S = 0.005
FRESH_S = 1.0
"""Positions that are older mean that the arm's process does not go on."""


@dataclass(frozen=True)
class Positions:
    """Of every axis of the arm, in its unit, at a host time."""

    at_ns: Annotated[int, Item("<i8", "host time, monotonic, ns")]
    q: Annotated[FloatArray, Item("<f8", "rad or m", ("joints",))]


class FollowingRecords:
    """The two mailboxes: set-points to the arm, measured positions from it."""

    def __init__(self, joints: int, descriptor: int | None = None) -> None:
        layout = Layout(Positions, joints=joints)
        size = Mailbox.size_of(layout.dtype)
        self.memory = SharedMemory(2 * size, descriptor)
        self.set_points = RecordMailbox(layout, self.memory, 0)
        self.measured = RecordMailbox(layout, self.memory, size)


@dataclass(frozen=True)
class FollowingSettings:
    """What an arm's process is started with; see `follow`."""

    arm: str
    bridge: str = "sim:"
    cameras: tuple[str, ...] = ()
    scene_seed: int | None = None
    task: str = ""
    speed: float = 1.0
    log: str | None = None
    trace: str | None = None
    realtime: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.speed <= 1:
            raise InputError(f"speed {self.speed:g}: give a share of the arm's operating speed, above 0 to 1")
        if self.cameras and self.scene_seed is None:
            raise InputError(f"camera '{self.cameras[0]}' is one of a simulated scene; give its scene_seed, 0 for one")


class FollowingArm:
    """An armed arm. `cameras` has the URL of each of the scene's cameras that was named, for `edge.cameras`.

    `report` is the run's report, complete after `close`.
    """

    def __init__(self, settings: FollowingSettings) -> None:
        self.profile = load_arm(settings.arm)
        self.cameras: dict[str, str] = {}
        self.report: dict[str, Any] = {}
        self._error: tuple[int, str] | None = None
        self._positions: Positions | None = None
        self._seen, self._said = 0, threading.Event()
        self._records = FollowingRecords(self.profile.dof)
        descriptor = self._records.memory.descriptor
        self._process = start_module(
            "edge.doors.following_process",
            ["--memory", str(descriptor), "--settings", json.dumps(asdict(settings))],
            end=signal.SIGTERM,  # a controlled stop
            pass_fds=[descriptor],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, name="arm's notices", daemon=True)
        self._reader.start()
        try:
            self._wait_ready()
        except BaseException:
            self.close()
            raise

    def _read(self) -> None:
        """Takes what the process says, to its end, so that it never waits for this one."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            if "note" in told:
                logging.getLogger("edge").info(told["note"])
            self.cameras |= told.get("cameras", {})
            self.report |= told.get("report", {})
            if "error" in told:
                self._error = told["code"], told["error"]
        self._said.set()

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while self._newest() is None:
            self._check()
            if time.monotonic() > deadline:
                raise InputError(f"the arm was not ready within {READY_TIMEOUT_S:.0f} s")
            time.sleep(LOOK_S)

    def _newest(self) -> Positions | None:
        found = self._records.measured.read(self._seen)
        if found is not None:
            self._seen, self._positions = found
        return self._positions

    @property
    def moves(self) -> bool:
        """Whether the arm is armed and takes set-points."""
        return self._process.poll() is None

    def _check(self) -> None:
        """Raises what ended the arm's process, if it has ended."""
        code = self._process.poll()
        if code is None:
            return
        self._said.wait(END_TIMEOUT_S)
        code, why = self._error or (code, f"the arm's process has ended ({code}); connect again")
        raise SafetyStop(why) if code == 1 else InputError(why)

    def go(self, q: ArrayLike) -> FloatArray:
        """Makes (J,), in rad or m, the newest set-point; returns it as far as it lies within the arm's limits.

        Raises `ValueError` for what is not J finite numbers, `SafetyStop` or `InputError` once the arm has stopped.
        """
        target = np.asarray(q, dtype=np.float64)
        if target.shape != (self.profile.dof,) or not np.isfinite(target).all():
            raise ValueError(f"a set-point is {self.profile.dof} finite numbers, not {np.array2string(target)[:160]}")
        self._check()
        self._records.set_points.write(Positions(time.monotonic_ns(), target))
        limits = self.profile.operating
        return np.clip(target, limits.position_min_rad, limits.position_max_rad)

    def q(self) -> FloatArray:
        """The newest measured positions (J,), rad or m. Raises `SafetyStop` or `InputError`."""
        self._check()
        newest = self._newest()
        assert newest is not None  # without one it was not ready
        age_s = (time.monotonic_ns() - newest.at_ns) * 1e-9
        if age_s > FRESH_S:
            with suppress(subprocess.TimeoutExpired):  # an arm that is being stopped says why when it has stopped
                self._process.wait(END_TIMEOUT_S)
            self._check()
            raise SafetyStop(f"the arm's positions are {age_s:.1f} s old, and its process says nothing; end it")
        return newest.q

    def close(self) -> None:
        """A controlled stop, then the drive is off. Later calls do nothing."""
        end(self._process, END_TIMEOUT_S)
        self._reader.join(END_TIMEOUT_S)

    def __enter__(self) -> FollowingArm:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def follow(arm: str, bridge_url: str = "sim:", *, cameras: Iterable[str] = (), **settings: Any) -> FollowingArm:
    """Arms an arm that follows the newest set-point, in a process of its own; for a `with`.

    cameras   names of cameras of a simulated scene, to be opened by `FollowingArm.cameras`
    settings  `scene_seed` and `task` of a simulated scene (None: the arm alone), `speed` (a share of the operating
              speed), `log` and `trace` (files), `realtime`

    Raises `VlaEdgeError` where it cannot be armed; then it has not moved.
    """
    return FollowingArm(FollowingSettings(arm, bridge_url, tuple(cameras), **settings))
