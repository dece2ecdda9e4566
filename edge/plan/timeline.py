"""The commanded trajectory on the policy's grid: what is committed, what a new chunk may change, and from when on.

The grid lives in device time, so the steps of the policy are the device's own and no estimate of its clock can shift
a knot. A chunk observed at step k is joined at step k + d: the d steps in between are its committed prefix, the
actions that will have run when it arrives.
"""

from __future__ import annotations

import math

import numpy as np

from edge.plan.trajectory import (
    FloatArray,
    IntArray,
    Knots,
    from_micro,
    segment_accelerations,
    spline_velocities,
    to_micro,
)
from firmware_bridge.codes import MAX_KNOTS, MICRO

KEPT_STEPS = 256
MOST_STEPS = MAX_KNOTS - 1
"""A chunk on the wire holds the knot that it leaves from, and one for each of so many steps."""
START_SHARES = np.array([0.25, 0.75])
"""Of the first steps after standstill, what is commanded."""


def soft_start(increments_rad: FloatArray) -> FloatArray:
    """A chunk (horizon, J) that begins at standstill, with its first steps shortened by `START_SHARES`.

    A full first step would begin with a jump of acceleration, which no limit of jerk allows: the device would have to
    lag behind its plan.
    """
    softened: FloatArray = increments_rad.copy()
    softened[: len(START_SHARES)] *= START_SHARES[:, None]
    return softened


class Timeline:
    """Committed knots, each with the (unwrapped) device time it is due at.

    Steps are `step_us` apart as the policy was trained; a plan may be stretched, never compressed below that.
    `splice_us` and `splice_before_us` are when the last committed plan and the one before it begin, 0 without one.
    """

    def __init__(self, step_us: int, joints: int) -> None:
        self.step_us = step_us
        self.last = -1
        self.splice_us = self.splice_before_us = 0
        self._due_us = [0] * KEPT_STEPS
        self._q = np.zeros((KEPT_STEPS, joints), dtype=np.int64)
        self._dq = np.zeros((KEPT_STEPS, joints), dtype=np.int64)

    @property
    def begun(self) -> bool:
        """Whether a first chunk has been proposed."""
        return self.last >= 0

    def begin(self, start_us: int, q_urad: IntArray) -> None:
        """Puts knot 0 at `start_us`, at rest at `q_urad`."""
        self.last = 0
        self._due_us[0] = start_us
        self._q[0] = q_urad
        self._dq[0] = 0

    def withdraw(self) -> None:
        """Takes `begin` back, while nothing has moved."""
        self.last = -1

    def due_us(self, knot: int) -> int:
        """Device time of one of the last `KEPT_STEPS` committed knots."""
        return self._due_us[knot % KEPT_STEPS]

    def spacing_us(self, step: int) -> int:
        """Time that a step takes; of one that is not committed, as the last one that is."""
        step = min(step, self.last - 1)
        return self.due_us(step + 1) - self.due_us(step) if step >= 0 else self.step_us

    def step_at(self, now_us: float) -> int:
        """The step under way: the last committed knot that is due, -1 before the first."""
        return self.first_due(math.nextafter(now_us, math.inf)) - 1

    def first_due(self, by_us: float) -> int:
        """The first committed knot that is due at `by_us` or later, `last` + 1 when all are due before."""
        knot, oldest = self.last + 1, max(0, self.last - KEPT_STEPS + 1)
        while knot > oldest and self.due_us(knot - 1) >= by_us:
            knot -= 1
        return knot

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

    def acceleration_rad_s2(self, knot: int) -> FloatArray:
        """Commanded acceleration (J,) with which a committed knot is reached; 0 at the first one."""
        if knot < 1:
            return np.zeros(self._q.shape[1])
        before = self.knots(knot - 1, 2)
        _, end = segment_accelerations(before.q_rad, before.dq_rad_s, before.spacing_s)
        reached: FloatArray = end[0]
        return reached

    def knots(self, first: int, count: int) -> Knots:
        """`count` committed knots from `first` on, as a copy; all of them as far apart as the first two."""
        rows = np.arange(first, first + count) % KEPT_STEPS
        return Knots(first, self._q[rows], self._dq[rows], self.spacing_us(first))

    def increments_rad(self, first: int, count: int) -> FloatArray:
        """Commanded increments of `count` steps from step `first` on, (count, J). All must be committed."""
        rows = np.arange(first, first + count + 1) % KEPT_STEPS
        return from_micro(np.diff(self._q[rows], axis=0))

    def propose(self, observed: int, delay: int, increments_rad: FloatArray, spacing_us: int) -> Knots:
        """The knots that a chunk observed at step `observed` would command, from its splice at `observed + delay` on.

        increments_rad (horizon, J); the first `delay` rows are the committed prefix and are not used again. The first
        knot is the one already committed, so the commanded position cannot jump. Rows that the wire has no room for are
        left for the next chunk.
        """
        rises_rad = np.cumsum(increments_rad[delay : delay + MOST_STEPS], axis=0)
        return self._join(observed + delay, to_micro(rises_rad), spacing_us)

    def through(self, splice: int, q_rad: FloatArray, spacing_us: int) -> Knots:
        """Knots that leave the committed one at `splice` with its velocity, and pass through `q_rad` (n, J)."""
        return self._join(splice, to_micro(q_rad) - self.q_urad(splice), spacing_us)

    def retime(self, first: int, spacing_us: int) -> Knots:
        """What is committed from knot `first` on: the same path, in steps of `spacing_us`."""
        ahead = self.knots(first, self.last - first + 1).q_urad
        return self._join(first, ahead[1:] - ahead[0], spacing_us)

    def _join(self, splice: int, rises_urad: IntArray, spacing_us: int) -> Knots:
        """Knots that leave the committed one at `splice` with its velocity, and rise from it by `rises_urad`."""
        at_splice, velocity = self.q_urad(splice), self.dq_urad_s(splice)
        q_urad = np.vstack([at_splice, at_splice + rises_urad])
        dq = spline_velocities(from_micro(q_urad), spacing_us * MICRO, from_micro(velocity))
        dq_urad_s = to_micro(dq)
        dq_urad_s[0] = velocity
        return Knots(splice, q_urad, dq_urad_s, spacing_us)

    def accept(self, knots: Knots) -> None:
        """Takes over knots that the device has committed; what stood behind their first knot is replaced."""
        rows = np.arange(knots.first, knots.last + 1) % KEPT_STEPS
        self._q[rows] = knots.q_urad
        self._dq[rows] = knots.dq_urad_s
        start_us = self.due_us(knots.first)
        for index, row in enumerate(rows):
            self._due_us[row] = start_us + index * knots.spacing_us
        self.last = knots.last
        self.splice_before_us, self.splice_us = self.splice_us, start_us
