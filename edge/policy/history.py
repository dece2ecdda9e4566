"""What the arm has done: the last state-action pairs, one per policy step."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge.plan.timeline import Timeline
from edge.plan.trajectory import FloatArray, from_micro

TRACK_KEPT = 64


class StepHistory:
    """Measured positions and commanded increments of the last `length` steps, from the device's reports and the
    committed trajectory."""

    def __init__(self, length: int, joints: int) -> None:
        self._states, self._actions = np.zeros((length, joints)), np.zeros((length, joints))
        self._mask = np.zeros(length, dtype=np.bool_)
        self._track: deque[tuple[int, Sequence[int]]] = deque(maxlen=TRACK_KEPT)
        self._steps = 0

    def observe(self, device_us: int, measured_urad: Sequence[int]) -> None:
        """Takes one report of the device; the newest are kept."""
        self._track.append((device_us, measured_urad))

    def rest(self, measured_urad: Sequence[int]) -> None:
        """As if the arm had stood still in this pose; every run begins so. The next step is the first."""
        self._states[:], self._actions[:], self._mask[:] = from_micro(measured_urad), 0.0, True
        self._steps = 0

    def advance(self, timeline: Timeline, now_us: float) -> None:
        """Takes the steps that have ended; the oldest fall out."""
        if not timeline.begun or not len(self._mask):
            return
        for step in range(self._steps, timeline.step_at(now_us)):
            for kept, row in (
                (self._states, self._measured_at(timeline.due_us(step))),
                (self._actions, timeline.increments_rad(step, 1)[0]),
            ):
                kept[:-1] = kept[1:]
                kept[-1] = row
            self._steps = step + 1

    def read(self) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
        """Positions and increments, each (length, J), in time order, rad; and which rows hold a pair."""
        return self._states.copy(), self._actions.copy(), self._mask.copy()

    def measured_rad(self, rows: int, step_us: int) -> FloatArray:
        """Measured positions (rows, J) by the newest report and one, two, ... steps before it, the newest last."""
        newest_us = self._track[-1][0]
        return np.array([self._measured_at(newest_us - row * step_us) for row in reversed(range(rows))])

    def _measured_at(self, device_us: int) -> FloatArray:
        """Positions at a device time, between the two nearest reports, rad (J,)."""
        times, rows = zip(*self._track)
        return np.array([np.interp(device_us, times, column) for column in from_micro(np.array(rows)).T])
