"""The commanded trajectory on the policy's grid: what is committed, what a new chunk may change, and from when on.

The grid lives in device time, so the steps of the policy are the device's own and no estimate of its clock can shift
a knot. A chunk observed at step k is joined at step k + d: the d steps in between are its committed prefix, the
actions that will have run when it arrives.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from edge.trajectory import MICRO, FloatArray, IntArray, Knots, from_micro, spline_velocities

KEPT_STEPS = 256
START_SHARES = np.array([0.25, 0.75])
"""Of the first steps after standstill, what is commanded."""
LATENCIES = 10


class DelayEstimate:
    """How many steps pass between an observation and the first knot it can change."""

    def __init__(self, step_us: int, lead_us: int) -> None:
        self._step_us = step_us
        self._lead_us = lead_us
        self._latencies_us: deque[int] = deque(maxlen=LATENCIES)

    def add(self, latency_us: int) -> None:
        """Takes one measured time from observation to chunk. Cold calls do not belong here."""
        self._latencies_us.append(latency_us)

    @property
    def steps(self) -> int:
        """d: from the largest of the last ten latencies plus the time a chunk must arrive early."""
        return math.ceil((max(self._latencies_us, default=0) + self._lead_us) / self._step_us)


def soft_start(increments_rad: FloatArray) -> FloatArray:
    """A chunk (horizon, J) that begins at standstill, with its first steps shortened by `START_SHARES`.

    A full first step would begin with a jump of acceleration, which no limit of jerk allows: the device would have to
    lag behind its plan.
    """
    softened: FloatArray = increments_rad.copy()
    softened[: len(START_SHARES)] *= START_SHARES[:, None]
    return softened


class Timeline:
    """Committed knots. Knot k is due at `start_us + k * step_us` of (unwrapped) device time."""

    def __init__(self, step_us: int, joints: int) -> None:
        self.step_us = step_us
        self.start_us = 0
        self.last = -1
        self._q = np.zeros((KEPT_STEPS, joints), dtype=np.int64)
        self._dq = np.zeros((KEPT_STEPS, joints), dtype=np.int64)

    @property
    def begun(self) -> bool:
        """Whether a first chunk has been proposed."""
        return self.last >= 0

    def begin(self, start_us: int, q_urad: IntArray) -> None:
        """Puts knot 0 at `start_us`, at rest at `q_urad`."""
        self.start_us = start_us
        self.last = 0
        self._q[0] = q_urad
        self._dq[0] = 0

    def due_us(self, knot: int) -> int:
        """Device time of a knot."""
        return self.start_us + knot * self.step_us

    def step_at(self, now_us: float) -> int:
        """The step under way: the last knot that is due, -1 before the first."""
        return math.floor((now_us - self.start_us) / self.step_us)

    def buffered_us(self, now_us: float) -> float:
        """Committed motion still ahead."""
        return self.due_us(self.last) - now_us

    def q_urad(self, knot: int) -> IntArray:
        """Commanded position of one of the last `KEPT_STEPS` committed knots."""
        row: IntArray = self._q[knot % KEPT_STEPS]
        return row

    def dq_urad_s(self, knot: int) -> IntArray:
        row: IntArray = self._dq[knot % KEPT_STEPS]
        return row

    def knots(self, first: int, count: int) -> Knots:
        """`count` committed knots from `first` on, as a copy."""
        rows = np.arange(first, first + count) % KEPT_STEPS
        return Knots(first, self._q[rows], self._dq[rows])

    def increments_rad(self, first: int, count: int) -> FloatArray:
        """Commanded increments of `count` steps from step `first` on, (count, J). All must be committed."""
        rows = np.arange(first, first + count + 1) % KEPT_STEPS
        return from_micro(np.diff(self._q[rows], axis=0))

    def propose(self, observed: int, delay: int, increments_rad: FloatArray) -> Knots:
        """The knots that a chunk observed at step `observed` would command, from its splice at `observed + delay` on.

        increments_rad (horizon, J); the first `delay` rows are the committed prefix and are not used again. The first
        knot is the one already committed, so the commanded position cannot jump.
        """
        splice = observed + delay
        at_splice, velocity = self.q_urad(splice), self.dq_urad_s(splice)
        rises = np.cumsum(increments_rad[delay:], axis=0) / MICRO
        q_urad = np.vstack([at_splice, at_splice + np.rint(rises).astype(np.int64)])
        dq = spline_velocities(from_micro(q_urad), self.step_us * MICRO, from_micro(velocity))
        dq_urad_s = np.rint(dq / MICRO).astype(np.int64)
        dq_urad_s[0] = velocity
        return Knots(splice, q_urad, dq_urad_s)

    def accept(self, knots: Knots) -> None:
        """Takes over knots that the device has committed; what stood behind their first knot is replaced."""
        rows = np.arange(knots.first, knots.last + 1) % KEPT_STEPS
        self._q[rows] = knots.q_urad
        self._dq[rows] = knots.dq_urad_s
        self.last = knots.last
