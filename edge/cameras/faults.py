"""Simulated faults of a camera, by its URL: `freeze_after=S`, `stall_after=S`, `unplug_after=S`, and `for=S`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from edge.cameras.base import CameraLost, Frame, FrameSource, SourceTraits

FaultKind = Literal["freeze", "stall", "unplug"]
KINDS: tuple[FaultKind, ...] = ("freeze", "stall", "unplug")


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


class FaultySource:
    """A source that fails by plan. It can be opened again in the middle of the plan."""

    def __init__(self, source: FrameSource, plan: FaultPlan, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._source, self._plan, self._clock_ns = source, plan, clock_ns
        self._kept: Frame | None = None

    @property
    def traits(self) -> SourceTraits:
        return replace(self._source.traits, cure="leave the simulated fault out of its URL")

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
