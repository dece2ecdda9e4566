"""When to request a chunk, and with which delay: decisions of what was answered so far, the timeline and the time."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from edge.bundle import ChunkShape
from edge.errors import InputError
from edge.plan.pace import Pace
from edge.plan.timeline import Timeline

LATENCIES = 10
PUNCTUAL = 0.25
"""A request is made within this share of its step, or waits for the next step: the frames belong to the step."""
OVERDUE = 1.25
"""An answer that takes longer than any before it is expected to take this many times what it has taken so far."""


@dataclass(frozen=True)
class ControlSettings:
    """`execute_steps` steps are executed of each chunk before the next is requested; a chunk must reach the device
    `lead_us` before its first new knot. With `may_starve` a plan that runs out leaves the arm held and the run waiting.
    Each goal of a policy of positions is the average of the last `ensemble` chunks that name it.
    """

    execute_steps: int
    lead_us: int
    may_starve: bool = False
    ensemble: int = 1


class LatencyEstimate:
    """How long before a chunk can change anything it has to be requested."""

    def __init__(self, lead_us: int) -> None:
        self._lead_us = lead_us
        self._latencies_us: deque[int] = deque(maxlen=LATENCIES)

    def add(self, latency_us: int) -> None:
        """Takes one measured time from observation to chunk. Cold calls do not belong here."""
        self._latencies_us.append(latency_us)

    @property
    def largest_us(self) -> int:
        """The largest of the last ten latencies."""
        return max(self._latencies_us, default=0)

    @property
    def needed_us(self) -> int:
        """From an observation to the first knot it can change: `largest_us`, and the time a chunk must be early."""
        return self.largest_us + self._lead_us


@dataclass(frozen=True)
class Pending:
    """A request without an answer: made at `step` at host time `sent_ns`, to be joined `delay` steps later."""

    id: int
    step: int
    delay: int
    sent_ns: int

    @property
    def splice(self) -> int:
        """The knot at which its chunk joins the timeline."""
        return self.step + self.delay


class Replanner:
    """One request at a time. A chunk is followed by the next request `execute_steps` later; one that came to nothing,
    or a plan that is stretched further than need be, by a request in the very next step."""

    def __init__(self, shape: ChunkShape, settings: ControlSettings, step_us: int, latency_us: int) -> None:
        self._shape, self._pace = shape, Pace(step_us)
        self.execute_steps, self._lead_us = settings.execute_steps, settings.lead_us
        self.latency = LatencyEstimate(settings.lead_us)
        self.latency.add(latency_us)
        self.pending: Pending | None = None
        """The request that waits for its answer."""
        self.period_us = 0
        """Expected inference period at the time of the last request."""
        self._next_step = self._goals_us = 0
        self._not_before_ns = 0

    @property
    def spacing_us(self) -> int:
        """Time a step should take: the expected latency then fits into the steps that a chunk may lag behind, also for
        a request that is as late in its step as it may be."""
        return self._pace.wanted_us(self.latency.needed_us, self.lag_steps - PUNCTUAL)

    def replan_every(self, steps: int) -> None:
        """From now on so many steps of a chunk are executed before the next is requested."""
        self.execute_steps = steps

    def stretch(self) -> float:
        """How many times as slowly as trained the expected latency makes the arm move. Raises `InputError` when it
        would hardly move at all."""
        needed_us, most_us = self.latency.needed_us, self.lag_steps * self._pace.slowest_us
        covered_us = self._shape.horizon * self._pace.step_us
        if self._shape.measured and needed_us > covered_us:
            raise InputError(
                f"inference takes {needed_us / 1e6:.1f} s, and a chunk covers {self._shape.horizon} steps of "
                f"{self._pace.step_us / 1000:.0f} ms, {covered_us / 1e6:.1f} s: too slow; use a faster engine, "
                "another --precision or fewer flow steps"
            )
        if needed_us > most_us:
            raise InputError(
                f"inference takes {needed_us / 1e6:.1f} s and this bundle allows {most_us / 1e6:.1f} s; "
                "use a faster engine, fewer flow steps or a smaller --execute"
            )
        return self._pace.wanted_us(needed_us, self.lag_steps) / self._pace.step_us

    @property
    def lag_steps(self) -> int:
        """How many steps after its observation a chunk may be joined, and be followed in time by the next one."""
        return min(self._shape.max_delay, self._shape.horizon - self.execute_steps)

    def due(self, timeline: Timeline, now_ns: int, now_us: float) -> tuple[int, int] | None:
        """Step and delay of a request that is to be made now; None when none is."""
        if self.pending is not None or now_ns < self._not_before_ns:
            return None
        if not timeline.begun:
            return 0, 0
        step = timeline.step_at(now_us)
        late_us = now_us - timeline.due_us(step)
        if not max(self._next_step, 0) <= step < timeline.last or late_us > PUNCTUAL * timeline.spacing_us(step):
            return None
        latest = min(step + self._shape.max_delay, timeline.last)
        return step, max(1, min(timeline.first_due(now_us + self.latency.needed_us), latest) - step)

    def requested(self, pending: Pending, timeline: Timeline) -> None:
        """Notes a request that has been made."""
        spacing_us = timeline.spacing_us(timeline.last)
        may_hurry = timeline.begun and spacing_us > max(self.spacing_us, self._goals_us)
        self.pending = pending
        self._next_step = pending.step + (1 if may_hurry else self.execute_steps)
        self.period_us = max(self.execute_steps * spacing_us, self.latency.largest_us)

    def waited_us(self, now_ns: int) -> float:
        """How long the pending request has waited; 0 without one."""
        return 0.0 if self.pending is None else (now_ns - self.pending.sent_ns) / 1000

    def expected_us(self, waited_us: float) -> float:
        """What a request that has waited so long is expected to take until its chunk can change anything."""
        overdue = waited_us > self.latency.largest_us
        return OVERDUE * waited_us + self._lead_us if overdue else self.latency.needed_us

    def slowed_by_goals(self, spacing_us: int) -> None:
        """The last chunk's goals needed steps of `spacing_us`, 0 when they needed none longer: another in the very next
        step would not be faster."""
        self._goals_us = spacing_us

    @property
    def waits_for_goals(self) -> bool:
        """Whether the last chunk's goals, rather than the latency, say how long a step takes."""
        return self._goals_us > self.spacing_us

    def answered(self, id: int) -> Pending | None:
        """The pending request, when this is the number of its answer; it is pending no longer."""
        pending = self.pending if self.pending is not None and self.pending.id == id else None
        if pending is not None:
            self.pending = None
        return pending

    def retry(self, after: Pending, not_before_ns: int = 0) -> None:
        """`after` came to nothing, late or paused: the step after it requests again, not before `not_before_ns`."""
        self._next_step, self._not_before_ns = after.step + 1, not_before_ns

    def request_from(self, step: int) -> None:
        """The next request is for this step, or the first one after it that can have one."""
        self._next_step = step

    def abandon(self) -> None:
        """The answer to the pending request will not be taken."""
        self.pending = None
