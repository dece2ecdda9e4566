"""Knots on the policy's grid, as the wire carries them, and the velocities that join them smoothly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.codes import MICRO

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Knots:
    """Consecutive knots `first`, `first` + 1, ... of the grid; rows are knots, columns joints.

    q_urad int64 (n, J), microradians; dq_urad_s int64 (n, J), microradians per second; `spacing_us` apart in time
    """

    first: int
    q_urad: IntArray
    dq_urad_s: IntArray
    spacing_us: int

    @property
    def spacing_s(self) -> float:
        return self.spacing_us * MICRO

    @property
    def last(self) -> int:
        return self.first + len(self.q_urad) - 1

    @property
    def q_rad(self) -> FloatArray:
        return from_micro(self.q_urad)

    @property
    def dq_rad_s(self) -> FloatArray:
        return from_micro(self.dq_urad_s)


def from_micro(micro: IntArray | Sequence[int]) -> FloatArray:
    """Whole microradians (per second) to radians (per second)."""
    return np.multiply(micro, MICRO, dtype=np.float64)


def to_micro(value: FloatArray) -> IntArray:
    """Radians (per second) to the nearest whole microradians (per second)."""
    return np.rint(value / MICRO).astype(np.int64)


def spline_velocities(q_rad: FloatArray, step_s: float, first_velocity: FloatArray) -> FloatArray:
    """Velocities at knots (n, J) of the cubic spline through them: given at the first knot, free at the last.

    Cubic Hermite segments with these velocities have no jump in acceleration between knots (the classic C2 spline).
    """
    from_q, from_velocity = spline_matrices(len(q_rad))
    return from_q @ q_rad / step_s + from_velocity[:, None] * first_velocity


@lru_cache(maxsize=64)
def spline_matrices(knots: int) -> tuple[FloatArray, FloatArray]:
    """The spline is linear in its knots and its first velocity: velocities = A q / step + b v0."""
    system = np.zeros((knots, knots))
    rises = np.zeros((knots, knots))
    system[0, 0] = 1.0
    for row in range(1, knots - 1):
        system[row, row - 1 : row + 2] = 1.0, 4.0, 1.0
        rises[row, row - 1], rises[row, row + 1] = -3.0, 3.0
    system[-1, -2:] = 1.0, 2.0
    rises[-1, -2:] = -3.0, 3.0
    inverse = np.asarray(np.linalg.inv(system), dtype=np.float64)
    return inverse @ rises, inverse[:, 0]


def segment_accelerations(q_rad: FloatArray, dq_rad_s: FloatArray, step_s: float) -> tuple[FloatArray, FloatArray]:
    """Accelerations at the start and at the end of every Hermite segment, each (n - 1, J)."""
    rise = (q_rad[1:] - q_rad[:-1]) / step_s
    v0, v1 = dq_rad_s[:-1], dq_rad_s[1:]
    return (6.0 * rise - 4.0 * v0 - 2.0 * v1) / step_s, (2.0 * v0 + 4.0 * v1 - 6.0 * rise) / step_s


def turning_points(q_rad: FloatArray, dq_rad_s: FloatArray, step_s: float) -> tuple[FloatArray, FloatArray]:
    """Lowest and highest position of every Hermite segment, its ends included, each (n - 1, J)."""
    q0, q1 = q_rad[:-1], q_rad[1:]
    m0, m1 = step_s * dq_rad_s[:-1], step_s * dq_rad_s[1:]
    c2, c3 = 3.0 * (q1 - q0) - 2.0 * m0 - m1, 2.0 * (q0 - q1) + m0 + m1
    discriminant = c2 * c2 - 3.0 * m0 * c3
    with np.errstate(invalid="ignore", divide="ignore"):
        total = -(c2 + np.copysign(np.sqrt(discriminant), c2))
        roots = (total / (3.0 * c3), m0 / total)
    lowest, highest = np.minimum(q0, q1), np.maximum(q0, q1)
    for u in roots:
        turns = (discriminant > 0.0) & (u > 0.0) & (u < 1.0)
        at = np.where(turns, u, 0.0)
        value = q0 + at * (m0 + at * (c2 + at * c3))
        lowest, highest = np.minimum(lowest, value), np.maximum(highest, value)
    return lowest, highest
