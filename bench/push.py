"""Pushes the arm itself in mid-run, by commands that are not the policy's: where it is, that has to find out.

The firmware stops an arm that is not where it was told to be, so a push that the set-points do not share ends a run.
Here somebody else has the arm for a second: chunks are replaced by a way 5 cm aside, which is spliced, checked and
executed like any other, and seen by the policy in frames and history alike. Nothing is read that it does not read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from edge.inference.records import Outcome, Planner, PlannerStatus, PlanRequest, PlanResult
from edge.plan.trajectory import FloatArray
from edge.run.controller import Controller
from edge.sim.scenes import ReachScene
from lab.experts.reach_expert import STEP_S, InverseKinematics

PUSH_M, PUSH_STEPS = 0.05, 10
PUSHES = {"to the base": (-1.0, 0.0, 0.0), "aside": (0.0, 1.0, 0.0), "down": (0.0, 0.0, -1.0)}


class Push:
    """A planner whose chunks are the push while that lasts, and the policy's before and after."""

    def __init__(self, planner: Planner, scene: ReachScene, from_step: int, direction: tuple[float, ...]) -> None:
        self._planner, self._scene = planner, scene
        self._from_step, self._offset_m = from_step, PUSH_M * np.array(direction)
        self._asked: PlanRequest | None = None
        self._way: FloatArray | None = None

    def attach(self, controller: Controller) -> None:
        """Control is not needed: what is replaced follows from the request."""

    def request(self, request: PlanRequest) -> None:
        self._asked = request
        self._planner.request(request)

    def result(self) -> PlanResult | None:
        result, asked = self._planner.result(), self._asked
        if result is None or asked is None or result.outcome is not Outcome.CHUNK:
            return result
        free, horizon = asked.step + len(asked.prefix_rad), len(result.increments_rad)
        if free < self._from_step:
            return result
        if self._way is None:
            self._from_step, self._way = free, self._push(asked.states_rad[-1])
        left = self._way[free - self._from_step :][: horizon - len(asked.prefix_rad)]
        if not len(left):
            return result
        increments = np.zeros_like(result.increments_rad)
        increments[: len(asked.prefix_rad)] = asked.prefix_rad
        increments[len(asked.prefix_rad) :][: len(left)] = left
        return replace(result, increments_rad=increments)

    def status(self) -> PlannerStatus | None:
        return self._planner.status()

    def _push(self, q: FloatArray) -> FloatArray:
        """Increments (PUSH_STEPS, J) that move the tip, smoothly, from rest to rest."""
        aside = InverseKinematics(self._scene.model, q).solve(self._scene.tip_m(q) + self._offset_m)
        share = np.linspace(0.0, 1.0, PUSH_STEPS + 1)
        smooth = share**3 * (10 - 15 * share + 6 * share**2)
        return np.diff(smooth)[:, None] * (aside - q)


def pushing(scene: ReachScene, at_s: float, name: str) -> Callable[[Planner], Push]:
    """What puts a push, one of `PUSHES`, between the planner and control."""
    return lambda planner: Push(planner, scene, round(at_s / STEP_S), PUSHES[name])
