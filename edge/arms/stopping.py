"""How long an arm takes to stand still, and how far it comes meanwhile: a bound for every axis, from its profile alone.

Every stop of the firmware keeps to the compiled limits, also where a session has tightened its own. With limits of
velocity v, acceleration a and jerk j, the limiter leaves no state from which the velocity could not be kept: a joint
that still accelerates by w moves at v - w^2 / 2j at most. The longest stop first takes w / j to end that, at which it
has reached v, and then a trapezoid of deceleration from v to rest:

    time      a/j + v/a + a/j                     or a/j + 2 sqrt(v/j) where the deceleration never reaches a
    distance  v t - j t^3 / 6,  t = min(a/j, sqrt(2v/j)),  and then  v/2 (v/a + a/j)  or  v sqrt(v/j)

A stop in whole ticks takes up to three ticks more than the continuous one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from edge.arms.profile import ArmProfile, JointLimits

TICK_S = 1e-3
EXTRA_TICKS = 3


@dataclass(frozen=True)
class StopBound:
    """The longest and the farthest stop of one axis: seconds, and the axis's own unit (rad or m)."""

    time_s: float
    distance: float


def stop_bound(velocity: float, acceleration: float, jerk: float) -> StopBound:
    """Of one axis that moves at most at `velocity` and stops within `acceleration` and `jerk`."""
    rise_s = min(acceleration / jerk, math.sqrt(2 * velocity / jerk))
    rising = velocity * rise_s - jerk * rise_s**3 / 6
    if velocity >= acceleration**2 / jerk:
        fall_s = velocity / acceleration + acceleration / jerk
    else:
        fall_s = 2 * math.sqrt(velocity / jerk)
    extra_s = EXTRA_TICKS * TICK_S
    return StopBound(rise_s + fall_s + extra_s, rising + velocity * (fall_s / 2 + extra_s))


def stop_bounds(arm: ArmProfile, speeds: JointLimits | None = None) -> tuple[StopBound, ...]:
    """For every axis, from the speeds of these limits (default: the compiled ones, so of any session)."""
    velocities = (speeds or arm.limits).velocity_rad_s
    rows = zip(velocities, arm.limits.acceleration_rad_s2, arm.limits.jerk_rad_s3)
    return tuple(stop_bound(*row) for row in rows)
