"""Trajectories that another program asks for, and the policy that follows them. Pure: no clock, no I/O.

A trajectory is points in time with positions and perhaps velocities, as `trajectory_msgs/JointTrajectory` has them.
Between two points it is a cubic where both have velocities and a straight line where not, as ROS 2's own
joint_trajectory_controller does it. What is not legal is refused whole, with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge.arms import ArmProfile
from edge.policy.function_policy import Observation
from firmware_bridge.reading import one_line

FloatArray = NDArray[np.float64]
MOST_POINTS = 1000
MOST_S = 3600.0
START_BOUND = 0.05
"""How far a first point at time 0 may be from where the arm is, rad or m."""
SPEED_SLACK = 1.001
"""Positions and times are rounded by whoever sends them."""


class TrajectoryError(ValueError):
    """A trajectory that is not followed; the text says which joint, point and number."""


@dataclass(frozen=True)
class Trajectory:
    """Times (n,) s from its start, rising; positions (n, J) and, or None, velocities (n, J), in the arm's units."""

    times_s: FloatArray
    positions: FloatArray
    velocities: FloatArray | None
    from_standing: bool = False
    """Whether the first row is where the arm was when it was checked, and becomes where it is when it begins."""

    def begun(self, standing: FloatArray) -> Trajectory:
        """As it is followed by an arm that stands at `standing` (J,)."""
        return replace(self, positions=np.vstack([standing, self.positions[1:]])) if self.from_standing else self

    @property
    def duration_s(self) -> float:
        return float(self.times_s[-1])

    def at(self, times_s: FloatArray) -> FloatArray:
        """Positions (m, J); before the first point and after the last one it stands still."""
        times = np.clip(times_s, self.times_s[0], self.times_s[-1])
        after = np.clip(np.searchsorted(self.times_s, times, side="right"), 1, max(1, len(self.times_s) - 1))
        if len(self.times_s) == 1:
            return np.repeat(self.positions, len(times), axis=0)
        before = after - 1
        span = (self.times_s[after] - self.times_s[before])[:, None]
        s = (times - self.times_s[before])[:, None] / span
        begin, end = self.positions[before], self.positions[after]
        if self.velocities is None:
            return begin + s * (end - begin)
        out, into = span * self.velocities[before], span * self.velocities[after]
        change = end - begin
        return begin + s * (out + s * (3 * change - 2 * out - into + s * (out + into - 2 * change)))


def checked(
    arm: ArmProfile,
    joints: Sequence[str],
    times_s: Sequence[float],
    positions: Sequence[Sequence[float]],
    velocities: Sequence[Sequence[float]],
    start: FloatArray,
) -> Trajectory:
    """The trajectory from `start` (J,) at time 0 on. Raises `TrajectoryError`.

    joints      every joint of the arm, once, in any order; the rows of the points have that order
    velocities  of all points, or none: empty rows
    """
    columns = _columns(arm, joints)
    if not 1 <= len(times_s) <= MOST_POINTS:
        raise TrajectoryError(f"{len(times_s)} points; 1 to {MOST_POINTS} are allowed")
    times = np.array(times_s, dtype=np.float64)
    if not np.isfinite(times).all() or times[0] < 0 or times[-1] > MOST_S or (np.diff(times) <= 0).any():
        raise TrajectoryError(f"times have to rise, from 0 or later to at most {MOST_S:g} s")
    rows = _rows(positions, columns, "positions")
    given = [len(row) for row in velocities]
    speeds = None if not any(given) else _rows(velocities, columns, "velocities")
    from_standing = bool(times[0] > 0)
    if from_standing:
        times, rows = np.concatenate(([0.0], times)), np.vstack([start, rows])
        speeds = None if speeds is None else np.vstack([np.zeros_like(start), speeds])
    away = np.abs(rows[0] - start)
    if away.max() > START_BOUND:
        joint = int(away.argmax())
        raise TrajectoryError(
            f"it begins at once, {away[joint]:.3f} from where {arm.joints[joint]} is; give its first point a time"
        )
    _check_limits(arm, times, rows, speeds, from_standing)
    return Trajectory(times, rows, speeds, from_standing)


def _columns(arm: ArmProfile, joints: Sequence[str]) -> list[int]:
    if sorted(joints) != sorted(arm.joints):
        known = ", ".join(arm.joints)
        named = one_line(", ".join(map(str, joints)), 120) or "none"
        raise TrajectoryError(f"joints {named}; this arm has {known}, each once")
    return [list(joints).index(name) for name in arm.joints]


def _rows(rows: Sequence[Sequence[float]], columns: list[int], what: str) -> FloatArray:
    for point, row in enumerate(rows):
        if len(row) != len(columns):
            raise TrajectoryError(f"point {point} has {len(row)} {what} for {len(columns)} joints")
        if not all(math.isfinite(value) for value in row):
            raise TrajectoryError(f"point {point} has {what} that are not finite")
    return np.array(rows, dtype=np.float64)[:, columns]


def _check_limits(
    arm: ArmProfile, times: FloatArray, rows: FloatArray, speeds: FloatArray | None, from_standing: bool
) -> None:
    limits = arm.operating
    low, high = np.array(limits.position_min_rad), np.array(limits.position_max_rad)
    most = np.array(limits.velocity_rad_s) * SPEED_SLACK
    asked_for = rows[int(from_standing) :]
    for point, joint in np.argwhere((asked_for < low) | (asked_for > high))[:1]:
        raise TrajectoryError(
            f"point {point} takes {arm.joints[joint]} to {asked_for[point, joint]:.3f}, "
            f"outside {low[joint]:.3f} to {high[joint]:.3f}"
        )
    needed = np.abs(np.diff(rows, axis=0)) / np.diff(times)[:, None] if len(times) > 1 else np.zeros((0, len(low)))
    asked = np.vstack([needed, np.abs(speeds)]) if speeds is not None else needed
    for _, joint in np.argwhere(asked > most)[:1]:
        raise TrajectoryError(
            f"{arm.joints[joint]} would have to move at {asked[:, joint].max():.2f} a second; "
            f"it may at {limits.velocity_rad_s[joint]:.2f}"
        )


class TrajectoryFollower:
    """A policy function: follows the newest trajectory from the first step that is not committed, then holds.

    `put` is safe from any thread. A new trajectory replaces the one in force.
    """

    def __init__(self, step_s: float, horizon: int) -> None:
        self._step_s, self._horizon = step_s, horizon
        self._waiting: Trajectory | None = None
        self._stop = False
        self._current: Trajectory | None = None
        self._first = 0
        self.commanded: FloatArray | None = None
        """Where the arm will be when a trajectory that is put now begins; None before the first chunk."""

    @property
    def busy(self) -> bool:
        """Whether a trajectory is being followed, or waits to be."""
        return self._waiting is not None or self._current is not None

    def put(self, trajectory: Trajectory) -> None:
        self._waiting = trajectory

    def hold(self) -> None:
        """Ends the motion where the plan stands, within the limits."""
        self._waiting, self._stop = None, True

    def __call__(self, observation: Observation) -> FloatArray:
        committed = observation.committed_rad
        delay = len(committed)
        standing = committed[-1] if delay else observation.start_rad
        if self._stop:
            self._current, self._stop = None, False
        if self._waiting is not None:
            self._current, self._waiting = self._waiting.begun(standing), None
            self._first = observation.step + delay
        self.commanded = np.array(standing)
        goals = np.tile(standing, (self._horizon, 1))
        goals[:delay] = committed
        if self._current is not None:
            steps = observation.step + np.arange(delay, self._horizon) + 1 - self._first
            goals[delay:] = self._current.at(np.asarray(steps * self._step_s, dtype=np.float64))
            if (observation.step + delay - self._first) * self._step_s > self._current.duration_s:
                self._current = None
        return goals
