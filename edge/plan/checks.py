"""Pure checks of a chunk before it is sent: the same rules in the same order as the firmware's.

`tests/vectors` holds cases that both sides must judge alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge.arms import JointLimits
from edge.plan.timeline import Timeline
from edge.plan.trajectory import BoolArray, FloatArray, Knots, segment_accelerations, turning_points
from firmware_bridge.constants import SPLICE_POSITION_RAD, SPLICE_VELOCITY_RAD_S

SWING_RAD = 0.01
"""By which the curve nearest to goals that stand at a limit swings about it, coming from outside (ours)."""


@dataclass(frozen=True)
class ChunkRefusal:
    """Why a chunk may not be sent; joint counted from 0, None where none is to blame."""

    reason: str
    joint: int | None = None
    knot: int | None = None
    detail: str = ""

    def __str__(self) -> str:
        joint = f" of joint {self.joint + 1}" if self.joint is not None else ""
        knot = f" at knot {self.knot}" if self.knot is not None else ""
        return f"{self.reason}{joint}{knot}" + (f": {self.detail}" if self.detail else "")


def check_finite(increments_rad: FloatArray) -> ChunkRefusal | None:
    """Before anything else: NaN and infinity never reach a clamp or a conversion to integers."""
    bad = np.argwhere(~np.isfinite(increments_rad))
    if not bad.size:
        return None
    step, joint = (int(index) for index in bad[0])
    return ChunkRefusal("not finite", joint, step, f"the policy gave {increments_rad[step, joint]}")


@dataclass(frozen=True)
class Judgement:
    """What is wrong with knots (n, J), each of its arrays bool: `outside` of shape (n, J), the others by segment,
    (n - 1, J). `span_rad` are the lowest and highest positions of each segment, `fastest` and `strongest` its largest
    velocity and acceleration."""

    outside: BoolArray
    strays: BoolArray
    too_fast: BoolArray
    too_strong: BoolArray
    span_rad: tuple[FloatArray, FloatArray]
    fastest: FloatArray
    strongest: FloatArray

    @property
    def sound(self) -> BoolArray:
        """Whether nothing is wrong with a joint, (J,)."""
        between = self.strays | self.too_fast | self.too_strong
        sound: BoolArray = np.logical_not(np.any(between, axis=0) | np.any(self.outside, axis=0))
        return sound


def judge(knots: Knots, limits: JointLimits) -> Judgement:
    """Positions at the knots and between them, and the velocities and accelerations that the segments imply."""
    q, dq, step_s = knots.q_rad, knots.dq_rad_s, knots.spacing_s
    low, high = np.array(limits.position_min_rad), np.array(limits.position_max_rad)
    lowest, highest = turning_points(q, dq, step_s)
    start, end = segment_accelerations(q, dq, step_s)
    fastest = _fastest(dq[:-1], dq[1:], start, end, step_s)
    strongest = np.maximum(np.abs(start), np.abs(end))
    return Judgement(
        (q < low) | (q > high),
        (lowest < low) | (highest > high),
        fastest > np.array(limits.velocity_rad_s),
        strongest > np.array(limits.acceleration_rad_s2),
        (lowest, highest),
        fastest,
        strongest,
    )


def check_knots(knots: Knots, limits: JointLimits) -> ChunkRefusal | None:
    """The first thing that is wrong with the knots themselves, None when all of them may be sent."""
    found = judge(knots, limits)
    if found.sound.all():
        return None
    for knot, joint in np.ndindex(*found.outside.shape):
        if found.outside[knot, joint]:
            return ChunkRefusal("position", joint, knot, f"{knots.q_rad[knot, joint]:.4f} rad")
        if knot and found.strays[knot - 1, joint]:
            lowest, highest = (end[knot - 1, joint] for end in found.span_rad)
            return ChunkRefusal("position", joint, knot, f"{lowest:.4f} to {highest:.4f} rad on the way there")
        if knot and found.too_fast[knot - 1, joint]:
            return ChunkRefusal("velocity", joint, knot, f"{found.fastest[knot - 1, joint]:.3f} rad/s")
        if knot and found.too_strong[knot - 1, joint]:
            return ChunkRefusal("acceleration", joint, knot, f"{found.strongest[knot - 1, joint]:.2f} rad/s^2")
    raise AssertionError("what is not sound is one of these")


def check_splice(knots: Knots, q_rad: FloatArray, dq_rad_s: FloatArray) -> ChunkRefusal | None:
    """The jump in position and velocity against the commanded trajectory at the first knot."""
    jump_q = np.abs(knots.q_rad[0] - q_rad)
    jump_dq = np.abs(knots.dq_rad_s[0] - dq_rad_s)
    for joint in range(len(jump_q)):
        if jump_q[joint] > SPLICE_POSITION_RAD:
            return ChunkRefusal("splice position", joint, 0, f"jump of {jump_q[joint]:.5f} rad")
        if jump_dq[joint] > SPLICE_VELOCITY_RAD_S:
            return ChunkRefusal("splice velocity", joint, 0, f"jump of {jump_dq[joint]:.4f} rad/s")
    return None


def check_chunk(knots: Knots, timeline: Timeline, limits: JointLimits) -> ChunkRefusal | None:
    """All that is judged of knots before they are sent: by themselves, and against the plan that they leave.

    A joint that stands outside its limits, as an arm that lies folded on its stops does, may move inward from there.
    """
    committed = timeline.knots(knots.first, 1)
    refusal = check_knots(knots, limits.reaching(committed.q_rad[0])) or check_inward(knots, limits)
    return refusal or check_splice(knots, committed.q_rad[0], committed.dq_rad_s[0])


def check_inward(knots: Knots, limits: JointLimits) -> ChunkRefusal | None:
    """The first knot at which a joint is further outside its limits than it was before."""
    low, high = np.array(limits.position_min_rad), np.array(limits.position_max_rad)
    beyond = np.maximum(np.maximum(low - knots.q_rad, knots.q_rad - high), 0.0)
    outward = np.argwhere(beyond - np.minimum.accumulate(beyond, axis=0) > SWING_RAD)
    if not outward.size:
        return None
    knot, joint = (int(index) for index in outward[0])
    return ChunkRefusal("position", joint, knot, f"{knots.q_rad[knot, joint]:.4f} rad, further out than before")


def _fastest(v0: FloatArray, v1: FloatArray, a0: FloatArray, a1: FloatArray, step_s: float) -> FloatArray:
    """Largest speed on each segment: its ends, or the vertex of the parabola that the velocity follows."""
    ends = np.maximum(np.abs(v0), np.abs(v1))
    turns = a0 * a1 < 0.0
    bend = np.where(turns, a0 - a1, 1.0)
    return np.where(turns, np.maximum(ends, np.abs(v0 + 0.5 * a0 * step_s * a0 / bend)), ends)
