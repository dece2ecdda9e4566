"""From goals to knots: the least departure from a policy's goals that the arm's limits allow, then slower in time.

A policy that was trained elsewhere names positions that no limit has touched: noisy, on whole servo counts, faster than
the arm, or away from what the chunk before it has committed. Here they become knots that leave the committed trajectory
with its position and velocity, that host and device accept, and that the device's limiter leaves alone. A joint whose
goals are such knots as they are keeps them; the others take the knots nearest to their goals (`edge/plan/nearest.py`).
Where those would be further away than the arm's profile allows, all joints take the shortest longer spacing of steps
that needs less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from edge.arms import ArmProfile, JointLimits
from edge.errors import InputError
from edge.plan.checks import ChunkRefusal, check_chunk, check_finite, judge
from edge.plan.nearest import TICK_S, JointBounds, JointStart, Nearest, Program, prepare, rounding_rad_s2
from edge.plan.timeline import MOST_STEPS, Timeline
from edge.plan.trajectory import BoolArray, FloatArray, Knots, from_micro, segment_accelerations
from firmware_bridge.codes import MICRO
from firmware_bridge.constants import MAX_SPACING_US

PACES = (*(1.04**power for power in range(36)), 4.0)
"""How many times as long as wanted the steps may take; each within 5 % of the one before."""


@dataclass(frozen=True)
class Deviation:
    """How far knots are from the goals within limits, per joint (J,): root mean square and largest."""

    rms_rad: FloatArray
    max_rad: FloatArray


@dataclass(frozen=True)
class ShapedChunk:
    """Knots for a chunk's goals.

    knots      accepted by `check_chunk`
    deviation  of the knots from the goals; a goal beyond a limit counts as one at that limit
    clamped    goals that stood beyond a position limit
    changed    whether the knots are anywhere else than on the goals, or later
    slowed     how many times as long as wanted the steps take
    """

    knots: Knots
    deviation: Deviation
    clamped: int
    changed: bool
    slowed: float


class GoalShaper:
    """Makes knots of goals, for one arm. Raises `InputError` for a profile without bounds."""

    def __init__(self, arm: ArmProfile) -> None:
        if arm.goals is None:
            raise InputError(
                f"the profile of '{arm.name}' has no table [goals], which a policy of positions needs: "
                "add it as docs/howto/add-an-arm.md says"
            )
        self._limits = limits = arm.operating
        self._low, self._high = np.array(limits.position_min_rad), np.array(limits.position_max_rad)
        self._velocity, self._jerk = np.array(limits.velocity_rad_s), np.array(limits.jerk_rad_s3)
        self._beyond = np.array(arm.goals.beyond_rad)
        self._beyond[list(arm.grippers)] = math.inf  # one closes further than it goes, and means "hold"
        self._bounds = [JointBounds(*row) for row in zip(*limits.rows(), arm.goals.deviation_rad)]
        prepare(MOST_STEPS)

    def shape(
        self, timeline: Timeline, splice: int, goals_rad: FloatArray, spacing_us: int
    ) -> ShapedChunk | ChunkRefusal:
        """Knots that leave the committed one at `splice` for `goals_rad` (n, J), goal i due i + 1 steps later.

        Steps take `spacing_us`, or as much longer as the limits make necessary. Goals beyond the wire's `MOST_STEPS`
        are left for the next chunk.
        """
        given = goals_rad[:MOST_STEPS]
        refusal = check_finite(given) or self._too_far_beyond(given)
        if refusal is not None:
            return refusal
        goals = np.clip(given, self._low, self._high)
        knots = timeline.through(splice, goals, spacing_us)
        limits = self._limits.reaching(from_micro(timeline.q_urad(splice)))
        sound = judge(knots, limits).sound & self._followed(timeline, knots)
        if not sound.all():
            paths = _Paths(timeline, splice, goals, spacing_us, self._bounds_within(limits))
            paths.keep(np.flatnonzero(sound).tolist())
            pace = paths.least_pace(self._hardest_first(timeline, splice, goals))
            if isinstance(pace, ChunkRefusal):
                return pace
            knots = timeline.through(splice, paths.at(pace), paths.spacing_us(pace))
        refusal = check_chunk(knots, timeline, self._limits)
        if refusal is not None:
            return refusal
        away = np.abs(knots.q_rad[1:] - goals)
        return ShapedChunk(
            knots,
            Deviation(np.sqrt(np.square(away).mean(axis=0)), away.max(axis=0)),
            int((given != goals).sum()),
            not sound.all(),
            knots.spacing_us / spacing_us,
        )

    def followable(self, timeline: Timeline, knots: Knots) -> Knots:
        """Knots that the device follows without its limiter, for some that `check_chunk` accepts.

        A joint whose acceleration changes faster than the jerk limit allows, as where a policy changes its mind at a
        splice, takes the knots nearest to its own that do not; all others keep theirs, and time stays as it is. Where
        there are none near enough, the limiter has to do it.
        """
        followed = self._followed(timeline, knots)
        if followed.all():
            return knots
        limits = self._limits.reaching(from_micro(timeline.q_urad(knots.first)))
        paths = _Paths(timeline, knots.first, knots.q_rad[1:], knots.spacing_us, self._bounds_within(limits))
        paths.keep([joint for joint, kept in enumerate(followed) if kept or paths.path(joint, 0) is None])
        found = timeline.through(knots.first, paths.at(0), knots.spacing_us)
        return found if check_chunk(found, timeline, self._limits) is None else knots

    def _bounds_within(self, limits: JointLimits) -> list[JointBounds]:
        """The bounds of every joint with the positions of these limits."""
        ends = zip(self._bounds, limits.position_min_rad, limits.position_max_rad)
        return [replace(bound, low=low, high=high) for bound, low, high in ends]

    def _followed(self, timeline: Timeline, knots: Knots) -> BoolArray:
        """Which joints (J,) the device follows without its limiter: their acceleration changes no faster than the jerk
        limit allows, and at the splice jumps by no more than is left of that in one tick."""
        step_s = knots.spacing_s
        start, end = segment_accelerations(knots.q_rad, knots.dq_rad_s, step_s)
        rounding, jerk = rounding_rad_s2(step_s), np.abs(end - start) / step_s
        jump = np.abs(start[0] - timeline.acceleration_rad_s2(knots.first))
        smooth = np.all(jerk <= self._jerk + 2 * rounding / step_s, axis=0)
        followed: BoolArray = np.logical_and(
            smooth, jump <= np.maximum(self._jerk - jerk[0], 0.0) * TICK_S + 2 * rounding
        )
        return followed

    def _too_far_beyond(self, goals: FloatArray) -> ChunkRefusal | None:
        beyond = np.maximum(self._low - goals, goals - self._high)
        far = np.argwhere(beyond > self._beyond)
        if not far.size:
            return None
        row, joint = (int(index) for index in far[0])
        return ChunkRefusal(
            "goal beyond limit",
            joint,
            row + 1,
            f"{goals[row, joint]:.4f} rad is {beyond[row, joint]:.4f} outside, and at most {self._beyond[joint]:g} is "
            "clamped",
        )

    def _hardest_first(self, timeline: Timeline, splice: int, goals: FloatArray) -> list[int]:
        """Joints in the order in which they are likely to need more time: by the speed of their fastest step."""
        steps = np.abs(np.diff(np.vstack([from_micro(timeline.q_urad(splice)), goals]), axis=0)).max(axis=0)
        order: list[int] = np.argsort(-steps / self._velocity, kind="stable").tolist()
        return order


class _Paths:
    """One chunk: the positions (n,) of each joint at each of `PACES`, where it has any that are near enough."""

    def __init__(
        self, timeline: Timeline, splice: int, goals: FloatArray, wanted_us: int, bounds: list[JointBounds]
    ) -> None:
        q, dq = from_micro(timeline.q_urad(splice)), from_micro(timeline.dq_urad_s(splice))
        ddq = timeline.acceleration_rad_s2(splice)
        self._starts = [JointStart(*row) for row in zip(q.tolist(), dq.tolist(), ddq.tolist())]
        self._goals, self._wanted_us, self._bounds = goals, wanted_us, bounds
        self._paths: dict[tuple[int, int], FloatArray | None] = {}
        self._multipliers: dict[int, FloatArray] = {}

    def spacing_us(self, pace: int) -> int:
        return min(math.ceil(self._wanted_us * PACES[pace]), max(MAX_SPACING_US, self._wanted_us))

    def keep(self, joints: list[int]) -> None:
        """These joints' goals pass as they are."""
        self._paths.update({(joint, 0): self._goals[:, joint] for joint in joints})

    def at(self, pace: int) -> FloatArray:
        """Positions (n, J) at a pace at which all joints have some."""
        columns = [self.path(joint, pace) for joint in range(len(self._bounds))]
        return np.stack([column for column in columns if column is not None], axis=1)

    def least_pace(self, joints: list[int]) -> int | ChunkRefusal:
        """Index of the least of `PACES` at which every joint has a path; the joints are tried in the order given."""
        pace, left = 0, list(joints)
        while left:
            if self.path(left[0], pace) is not None:
                left.pop(0)
                continue
            slower = self._slower(left[0], pace)
            if slower is None:
                return self._refusal(left[0])
            pace, left = slower, [joint for joint in joints if joint != left[0]]
        return pace

    def _slower(self, joint: int, pace: int) -> int | None:
        """The least pace above `pace` at which the joint has a path.

        A joint that leaves the splice under way can be too far away again in a long time. Where a few paces have shown
        no path, every one is asked; for a single goal, which has no other knots to make up for that, from the start.
        """
        found = self._among_few(joint, pace) if len(self._goals) > 1 else None
        if found is not None:
            return found
        return next((one for one in range(pace + 1, len(PACES)) if self.path(joint, one) is not None), None)

    def _among_few(self, joint: int, pace: int) -> int | None:
        """The same in growing steps, then by halving the last one, as if more time always allowed more."""
        below, step = pace, 1
        while True:
            above = min(below + step, len(PACES) - 1)
            if above == below:
                return None
            if self.path(joint, above) is not None:
                break
            below, step = above, 2 * step
        while above - below > 1:
            middle = (above + below) // 2
            if self.path(joint, middle) is None:
                below = middle
            else:
                above = middle
        return above

    def path(self, joint: int, pace: int) -> FloatArray | None:
        """Positions (n,) of one joint at a pace; None where there are none near enough."""
        key = joint, pace
        if key not in self._paths:
            found = self._nearest(joint, pace)
            self._paths[key] = found.path_rad if found is not None and found.allowed else None
        return self._paths[key]

    def _nearest(self, joint: int, pace: int, bounded: bool = True) -> Nearest | None:
        step_s = self.spacing_us(pace) * MICRO
        program = Program(self._goals[:, joint], self._starts[joint], self._bounds[joint], step_s)
        found = program.nearest(self._multipliers.get(joint), bounded)
        if found is not None:
            self._multipliers[joint] = found.multipliers
        return found

    def _refusal(self, joint: int) -> ChunkRefusal:
        """Says what the joint would need at the slowest pace."""
        found, allowed = self._nearest(joint, len(PACES) - 1, bounded=False), self._bounds[joint].deviation
        if found is None:
            return ChunkRefusal("no way", joint, None, "no motion from the committed one on is within limits")
        return ChunkRefusal(
            "deviation",
            joint,
            None,
            f"{found.share * allowed:.4f} rad rms from the goals, in {PACES[-1]:g} times their time; the profile "
            f"allows {allowed:g}",
        )
