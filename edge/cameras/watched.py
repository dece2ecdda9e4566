"""The two kinds of camera, both watched: frames made when asked for, and frames that a thread takes as they come."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from edge.cameras.base import CameraError, CameraLost, CameraUnhealthy, Frame, FrameSource
from edge.cameras.health import HealthLimits, HealthState, fault_of, gone, seen
from edge.errors import VlaEdgeError

FIRST_FRAME_S = 5.0
BACK_OFF_S = (0.25, 0.5, 1.0, 2.0)
"""Waits before each attempt to open a lost camera again; the last one repeats."""
JOIN_S = 1.0


@dataclass(frozen=True)
class Watch:
    """How a camera is called in messages, and when it is not to be trusted."""

    name: str
    limits: HealthLimits
    fix: str

    def check(self, state: HealthState, now_ns: int) -> None:
        """Raises `CameraUnhealthy`."""
        fault = fault_of(state, self.limits, self.fix, now_ns)
        if fault is not None:
            raise CameraUnhealthy(f"{self.name} {fault}")


class OnDemandCamera:
    """Draws its frame in the moment it is asked for one."""

    on_demand = True

    def __init__(
        self,
        source: FrameSource,
        watch: Watch,
        clock_ns: Callable[[], int],
        on_frame: Callable[[Frame], None] | None = None,
    ) -> None:
        self.traits, self._on_frame = source.traits, on_frame
        self._source, self._watch, self._clock_ns = source, watch, clock_ns
        self._state = HealthState.opened(clock_ns())
        self._frame: Frame | None = None
        self._read()  # the first one, whose drawing may have to set up a lot, before anyone depends on its age

    def grab(self) -> Frame:
        self._read()
        self._watch.check(self._state, self._clock_ns())
        assert self._frame is not None  # without one the check has raised
        return self._frame

    def _read(self) -> None:
        try:
            self._frame = self._source.read()
            self._state = seen(self._state, self._frame)
            if self._on_frame is not None:
                self._on_frame(self._frame)
        except CameraLost as error:
            self._state = gone(self._state, str(error))

    def close(self) -> None:
        self._source.close()


class LiveCamera:
    """Takes every frame in a thread of its own and keeps the newest; opens a camera that was lost again."""

    on_demand = False

    def __init__(
        self,
        source: FrameSource,
        reopen: Callable[[], FrameSource],
        watch: Watch,
        clock_ns: Callable[[], int],
        on_frame: Callable[[Frame], None] | None = None,
    ) -> None:
        self.traits, self._on_frame = source.traits, on_frame
        self._reopen, self._watch, self._clock_ns = reopen, watch, clock_ns
        self._slot: tuple[HealthState, Frame | None] = (HealthState.opened(clock_ns()), None)
        self._ended = threading.Event()
        self._first = threading.Event()
        self._thread = threading.Thread(target=self._capture, args=(source,), name=watch.name, daemon=True)
        self._thread.start()

    def wait_first(self, timeout_s: float = FIRST_FRAME_S) -> None:
        """Waits for the first frame. Raises `CameraError`."""
        if not self._first.wait(timeout_s):
            lost = self._slot[0].lost
            self.close()
            raise CameraError(
                f"{self._watch.name} gave no frame within {timeout_s:g} s"
                + (f" ({lost})" if lost else "")
                + f"; {self._watch.fix}"
            )

    def grab(self) -> Frame:
        state, frame = self._slot
        self._watch.check(state, self._clock_ns())
        assert frame is not None  # without one the check has raised
        return frame

    def close(self) -> None:
        self._ended.set()
        self._thread.join(JOIN_S)  # a driver that hangs in a read keeps its thread; it ends with the process

    def _capture(self, source: FrameSource) -> None:
        reopened: FrameSource | None = source
        while reopened is not None:
            try:
                while not self._ended.is_set():
                    frame = reopened.read()
                    self._slot = (seen(self._slot[0], frame), frame)
                    self._first.set()
                    if self._on_frame is not None:
                        self._on_frame(frame)
            except VlaEdgeError as error:
                state, last = self._slot
                self._slot = (gone(state, str(error), last), None)
            finally:
                reopened.close()
            reopened = self._open_again()

    def _open_again(self) -> FrameSource | None:
        """Tries until it works; None when the camera is being closed."""
        attempt = 0
        while not self._ended.wait(BACK_OFF_S[min(attempt, len(BACK_OFF_S) - 1)]):
            try:
                return self._same(self._reopen())
            except CameraError as error:
                self._slot = (gone(self._slot[0], str(error)), None)
            attempt += 1
        return None

    def _same(self, source: FrameSource) -> FrameSource:
        """The source, if it is the device that was there. Raises `CameraError`."""
        was, found = self.traits.identity, source.traits.identity
        if found != was:
            source.close()
            raise CameraError(f"another camera came back: it was '{was}', now it is '{found}'")
        return source
