"""Set-points that come one at a time, and the planner that follows the newest. No I/O.

A person's leader arm, or another program's loop, sends a set-point 30 to 60 times a second and says nothing of the
next one. The arm goes to the newest as fast as its braking distance allows and never past it, so it comes to rest there
when no other follows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edge.arms import ArmProfile
from edge.inference.records import Outcome, PlannerStatus, PlanRequest, PlanResult
from edge.plan.trajectory import FloatArray

NEAR = 0.05
"""rad or m: where an arm that approaches has arrived (ours: 3 degrees)."""
SPEED_SHARE, ACCELERATION_SHARE = 0.9, 0.7
"""Of the arm's operating limits: the curve through the steps goes above what the steps themselves have."""


@dataclass(frozen=True)
class Pursuit:
    """How each axis may move (J,), per second in its unit, and for how long a step is."""

    low: FloatArray
    high: FloatArray
    speed: FloatArray
    acceleration: FloatArray
    step_s: float

    @staticmethod
    def of(arm: ArmProfile, step_s: float, share: float = 1.0) -> Pursuit:
        """`share` of the arm's operating speed, 0 to 1."""
        limits = arm.operating
        return Pursuit(
            np.array(limits.position_min_rad),
            np.array(limits.position_max_rad),
            SPEED_SHARE * share * np.array(limits.velocity_rad_s),
            ACCELERATION_SHARE * np.array(limits.acceleration_rad_s2),
            step_s,
        )

    def within(self, target: FloatArray) -> FloatArray:
        """The set-point (J,) as the arm can take it."""
        return np.clip(target, self.low, self.high)

    def steps(self, q: FloatArray, dq: FloatArray, target: FloatArray, count: int) -> FloatArray:
        """Positions (count, J) at the ends of the next steps, from `q` at `dq` (J,) towards `target` and to rest.

        The acceleration is constant within a step: the most with which the speed at its end still stops at the target.
        """
        goal, dt = self.within(target), self.step_s
        gain = self.acceleration * dt
        rows = np.empty((count, len(q)))
        for row in rows:
            away = goal - q - dq * dt / 2  # were it at rest at the end of this step
            braking = np.sqrt(np.square(gain) + 2 * self.acceleration * np.abs(away)) - gain
            wanted = np.sign(away) * np.minimum(np.minimum(braking, 2 * np.abs(away) / dt), self.speed)
            then = np.clip(wanted, dq - gain, dq + gain)
            q = q + (dq + then) * dt / 2
            dq = then
            row[:] = q
        return rows


class Pursuer:
    """A `Planner` that pursues what `newest` returns; None, until the first one, stands for where the arm is.

    It goes by `approach`, where that is given, until its plan has been within `NEAR` of a set-point once. Its chunks
    are told as `outcome`.

    It answers where it is asked, within the control loop: a thread beside the loop could be kept from the processor
    while it holds the interpreter, and the loop with it.
    """

    def __init__(
        self,
        pursuit: Pursuit,
        horizon: int,
        newest: Callable[[], FloatArray | None],
        outcome: Outcome = Outcome.CHUNK,
        approach: Pursuit | None = None,
        plan_from: Callable[[int], FloatArray] | None = None,
    ) -> None:
        """`plan_from` gives the commanded positions from a step on, for a policy whose requests have none."""
        self._pursuit, self._horizon, self._newest = pursuit, horizon, newest
        self._outcome, self._approach, self._plan_from = outcome, approach, plan_from
        self._pending: PlanRequest | None = None

    def request(self, request: PlanRequest) -> None:
        self._pending = request

    def result(self) -> PlanResult | None:
        request, self._pending = self._pending, None
        if request is None:
            return None
        began_ns = time.perf_counter_ns()
        plan = request.commanded_rad if self._plan_from is None else self._plan_from(request.step)
        goals = self._goals(plan, len(request.prefix_rad))
        nothing, took_ns = np.zeros((0, goals.shape[1])), np.array([time.perf_counter_ns() - began_ns])
        return PlanResult(request.id, self._outcome, "", 0, took_ns, 0, nothing, goals)

    def status(self) -> PlannerStatus | None:
        return None

    def _goals(self, plan: FloatArray, delay: int) -> FloatArray:
        """Goals (horizon, J) of which the first `delay` are those of `plan` (n, J), which is committed from now on."""
        q, step_s = plan[delay], self._pursuit.step_s
        around = plan[max(delay - 1, 0) : delay + 2]
        dq = (around[-1] - around[0]) / (step_s * max(len(around) - 1, 1))
        target = self._newest()
        if target is not None and np.abs(self._pursuit.within(target) - q).max() < NEAR:
            self._approach = None
        pursuit = self._approach or self._pursuit
        ahead = pursuit.steps(q, dq, q if target is None else target, self._horizon - delay)
        return np.vstack([plan[1 : delay + 1], ahead])
