"""How fast in time a plan is executed: as it was trained while inference keeps up, slower when it does not.

A chunk may be spliced `max_delay` steps after its observation at the latest, since longer prefixes were not trained.
When inference needs more time than that many steps take, the steps are stretched: the same path, slower.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edge.arms import JointLimits
from edge.plan.checks import check_chunk
from edge.plan.timeline import Timeline
from edge.plan.trajectory import Knots, segment_accelerations

MOST_STRETCH = 8.0
"""Maximum time-stretch: where more is needed the plan runs out, and the device stops."""
CHANGE = 2.0
"""Most that one chunk may stretch or shorten the steps of the one before it."""
TRIES = 4
MARGIN = 1.05
SPLICE_ACCELERATION_RAD_S2 = 2.0
"""Most that a change of pace may change acceleration at a splice: no jerk limit notices so little in a tick."""


@dataclass(frozen=True)
class Pace:
    """The spacing of steps, in us; `step_us` is the trained one."""

    step_us: int

    @property
    def slowest_us(self) -> int:
        return round(MOST_STRETCH * self.step_us)

    def wanted_us(self, needed_us: float, steps: float) -> int:
        """The spacing at which `steps` steps last `needed_us`."""
        return min(self.slowest_us, max(self.step_us, math.ceil(needed_us / steps)))

    def eased(self, current_us: int, wanted_us: int) -> Iterator[int]:
        """Spacings to try for a new chunk, the shortest first and the current one last; a chunk never brakes."""
        for ratio in _ratios(current_us / max(wanted_us, self.step_us)):
            yield math.ceil(current_us / ratio)
        yield current_us

    def braked(self, current_us: int, wanted_us: int) -> Iterator[int]:
        """Spacings to try for what is committed already, the longest first; empty when its steps are long enough."""
        if wanted_us > current_us:
            for ratio in _ratios(min(MARGIN * wanted_us, self.slowest_us) / current_us):
                yield math.ceil(ratio * current_us)


def _ratios(wanted: float) -> Iterator[float]:
    """From `wanted`, or the most that is allowed at once, towards 1."""
    ratio = min(wanted, CHANGE)
    for _ in range(TRIES):
        if ratio <= 1.0:
            return
        yield ratio
        ratio = math.sqrt(ratio)


def splice_acceleration(timeline: Timeline, knots: Knots) -> float:
    """Jump of acceleration where `knots` leave the plan in force, the largest of all joints, rad/s^2."""
    before = timeline.knots(knots.first, 2)
    old, _ = segment_accelerations(before.q_rad, before.dq_rad_s, before.spacing_s)
    new, _ = segment_accelerations(knots.q_rad[:2], knots.dq_rad_s[:2], knots.spacing_s)
    return float(np.abs(new - old).max())


def gentle(timeline: Timeline, knots: Knots) -> bool:
    """Whether a change of pace goes unnoticed by the limiter."""
    return splice_acceleration(timeline, knots) <= SPLICE_ACCELERATION_RAD_S2


def stretched(timeline: Timeline, knot: int, by_us: float, from_us: float, limits: JointLimits) -> Knots | None:
    """The plan from `from_us` on, stretched so that `knot` is due at `by_us`; as far as limits allow, else None."""
    first = timeline.first_due(from_us)
    if first >= knot:
        return None
    wanted_us = math.ceil((by_us - timeline.due_us(first)) / (knot - first))
    for spacing_us in Pace(timeline.step_us).braked(timeline.spacing_us(first), wanted_us):
        knots = timeline.retime(first, spacing_us)
        if gentle(timeline, knots) and check_chunk(knots, timeline, limits) is None:
            return knots
    return None
