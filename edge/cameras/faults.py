"""Simulated faults of a camera, by its URL: `freeze_after=S`, `stall_after=S`, `unplug_after=S`, and `for=S`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from edge.cameras.base import CameraLost, Frame, FrameSource, SourceTraits
from edge.registry import option

FaultKind = Literal["freeze", "stall", "unplug"]
FOREVER_S = 1e6


@dataclass(frozen=True)
class FaultPlan:
    """What happens from `begins_ns` to `ends_ns` of the host's clock.

    freeze   new frames with the same pixels, as from a camera whose sensor hangs behind a live driver
    stall    no new frame
    unplug   every read fails
    """

    kind: FaultKind
    begins_ns: int
    ends_ns: int

    def strikes(self, now_ns: int) -> bool:
        return self.begins_ns <= now_ns < self.ends_ns


@dataclass(frozen=True)
class FaultOptions:
    """One simulated fault, of any camera, by the options of its URL: when it begins, and how long it lasts."""

    freeze_s: float | None = option(None, most=FOREVER_S, name="freeze_after")
    stall_s: float | None = option(None, most=FOREVER_S, name="stall_after")
    unplug_s: float | None = option(None, most=FOREVER_S, name="unplug_after")
    lasts_s: float | None = option(None, most=FOREVER_S, name="for")

    def __post_init__(self) -> None:
        given = len(self._begins_s)
        if given > 1 or (not given and self.lasts_s is not None):
            raise ValueError("name one of freeze_after=S, stall_after=S, unplug_after=S, with for=S")

    @property
    def _begins_s(self) -> dict[FaultKind, float]:
        after: dict[FaultKind, float | None] = {"freeze": self.freeze_s, "stall": self.stall_s, "unplug": self.unplug_s}
        return {kind: seconds for kind, seconds in after.items() if seconds is not None}

    def around(self, open_source: Callable[[], FrameSource], clock_ns: Callable[[], int]) -> Callable[[], FrameSource]:
        """What opens the source with its fault, counted from now."""
        for kind, seconds in self._begins_s.items():
            begins_ns = clock_ns() + round(seconds * 1e9)
            plan = FaultPlan(kind, begins_ns, begins_ns + round((self.lasts_s or FOREVER_S) * 1e9))
            return lambda: FaultySource(open_source(), plan, clock_ns)
        return open_source


class FaultySource:
    """A source that fails by plan. It can be opened again in the middle of the plan."""

    def __init__(self, source: FrameSource, plan: FaultPlan, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._source, self._plan, self._clock_ns = source, plan, clock_ns
        self._kept: Frame | None = None

    @property
    def traits(self) -> SourceTraits:
        return replace(self._source.traits, fix="leave the simulated fault out of its URL")

    def read(self) -> Frame:
        struck = self._plan.strikes(self._clock_ns())
        if struck and self._plan.kind == "unplug":
            raise CameraLost("simulated fault: unplugged")
        frame = self._source.read()  # also in a stall: it keeps the pace
        if not struck or self._kept is None:
            self._kept = frame
        elif self._plan.kind == "freeze":
            return Frame(self._kept.image, frame.captured_ns, frame.sequence)
        return self._kept

    def close(self) -> None:
        self._source.close()
