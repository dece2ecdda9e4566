"""What a gripper's axis is commanded: to open or to close, and no further than it goes.

For any other axis a command beyond its limits is a fault of the policy, and refused. A gripper at the end of its travel
or at an object is where it is meant to be: a policy that goes on closing means "hold", and one that drifts while open
means "open". Its increments saturate, in speed, in acceleration and at both ends; what is not finite has been refused
before.
"""

from __future__ import annotations

import math

from edge.arms import ArmProfile
from edge.plan.trajectory import FloatArray

MARGIN = 0.02
"""Share of its travel that stays free at each end, for the curve through the knots."""
SPEED = 0.8
"""Share of its velocity limit; the curve is a little faster than its steps."""
CHANGE = 0.2
"""Share of its acceleration limit by which a step may differ from the one before it. A curve that leaves a splice with
the old velocity takes 3.5 times what the steps imply (the natural cubic spline with one end clamped)."""


def within_travel(
    increments_rad: FloatArray,
    delay: int,
    start_rad: FloatArray,
    velocity_rad_s: FloatArray,
    arm: ArmProfile,
    step_s: float,
) -> FloatArray:
    """A chunk (horizon, J) whose rows from `delay` on keep every gripper within its travel and its limits.

    They begin at `start_rad` (J,) with `velocity_rad_s` (J,). Returned as it is for an arm without a gripper. The chunk
    must be finite.
    """
    chunk = increments_rad
    for axis in arm.grippers:
        chunk = _kept(chunk, axis, delay, float(start_rad[axis]), step_s * float(velocity_rad_s[axis]), arm, step_s)
    return chunk


def _kept(
    increments_rad: FloatArray, axis: int, delay: int, at: float, last: float, arm: ArmProfile, step_s: float
) -> FloatArray:
    """The same with one axis kept, which is `at` and has come there by a step of `last`."""
    limits = arm.operating
    low, high = limits.position_min_rad[axis], limits.position_max_rad[axis]
    low, high = low + MARGIN * (high - low), high - MARGIN * (high - low)
    fastest = SPEED * step_s * limits.velocity_rad_s[axis]
    change = CHANGE * step_s**2 * limits.acceleration_rad_s2[axis]
    chunk: FloatArray = increments_rad.copy()
    for row in range(delay, len(chunk)):
        up, down = min(fastest, _braking(high - at, change)), min(fastest, _braking(at - low, change))
        wanted = min(max(float(chunk[row, axis]), last - change), last + change)
        last = min(max(wanted, -down), up)
        chunk[row, axis] = last
        at += last
    return chunk


def _braking(room: float, change: float) -> float:
    """The longest step after which steps that shrink by `change` still end within `room`; 0 where there is none."""
    room = max(room, 0.0)
    return min(room, 0.5 * (math.sqrt(change * (change + 8 * room)) - change))
