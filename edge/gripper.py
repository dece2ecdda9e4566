"""What a gripper's axis is told: to open or to close, and no further than it goes.

For any other axis a command beyond its limits is a fault of the policy, and refused. A gripper at the end of its travel
or at an object is where it is meant to be: a policy that goes on closing means "hold", and one that drifts while open
means "open". Its increments saturate, in speed and at both ends.
"""

from __future__ import annotations

import numpy as np

from edge.arms import ArmProfile
from edge.trajectory import FloatArray

MARGIN = 0.02
"""Share of its travel that stays free at each end, for the curve through the knots."""
SPEED = 0.8
"""Share of its velocity limit; the curve is a little faster than its steps."""


def within_travel(
    increments_rad: FloatArray, delay: int, start_rad: FloatArray, arm: ArmProfile, step_s: float
) -> FloatArray:
    """A chunk (horizon, J) whose rows from `delay` on, begun at `start_rad` (J,), keep the gripper within its travel.

    Returned as it is for an arm without a gripper. The chunk must be finite.
    """
    axis = arm.gripper
    if axis is None:
        return increments_rad
    limits = arm.operating
    low, high = limits.position_min_rad[axis], limits.position_max_rad[axis]
    low, high = low + MARGIN * (high - low), high - MARGIN * (high - low)
    fastest = SPEED * step_s * limits.velocity_rad_s[axis]
    chunk: FloatArray = increments_rad.copy()
    at = float(start_rad[axis])
    for row in range(delay, len(chunk)):
        wanted = at + float(np.clip(chunk[row, axis], -fastest, fastest))
        after = min(max(wanted, min(low, at)), max(high, at))  # one that begins outside may stay, or come back
        chunk[row, axis] = after - at
        at = after
    return chunk
