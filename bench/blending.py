"""Ways to blend chunks into each other, put between the planner and control: same policy, same control, same firmware.

- `committed prefix`: ours. The policy is given what will have been executed and continues from there.
- `naive switching`: the policy knows of no prefix; when its chunk arrives, its targets replace the old ones from the
  step that is due. Targets are positions: the set-point at the observation plus the chunk's increments.
- `temporal ensembling`: the same targets, each averaged over all chunks that name it, with weights exp(-0.01 i), the
  oldest chunk first (Zhao et al. 2023, arXiv:2304.13705).
- `synchronous`: look, think, move, stand, and only then look again. The policy sees an arm at rest, and its chunk's
  first steps are executed whole, with a soft start and a soft end, since the arm begins and ends them at rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from edge.inference.records import Outcome, Planner, PlannerStatus, PlanRequest, PlanResult
from edge.plan.ensemble import ensembled
from edge.plan.timeline import START_SHARES, soft_start
from edge.plan.trajectory import FloatArray, from_micro
from edge.run.controller import Controller

SYNCHRONOUS_STEPS = 5
"""Executed of each chunk, as many as in the other ways."""


class NaiveSwitching:
    """Hides the prefix from the policy and aims at positions."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self._pending: PlanRequest | None = None
        self._commanded: FloatArray = np.zeros(0)

    def attach(self, controller: Controller) -> None:
        self._controller = controller

    def request(self, request: PlanRequest) -> None:
        state, timeline = self._controller.last_state, self._controller.timeline
        assert state is not None
        self._pending = request
        self._commanded = from_micro(timeline.q_urad(request.step) if timeline.begun else state.commanded_urad)
        self._planner.request(replace(request, prefix_rad=request.prefix_rad[:0]))

    def result(self) -> PlanResult | None:
        result, request = self._planner.result(), self._pending
        if result is None or request is None:
            return result
        delay = len(request.prefix_rad)
        targets = self._targets(request.step, self._commanded + np.cumsum(result.increments_rad, axis=0))
        at_splice = self._commanded + request.prefix_rad.sum(axis=0)
        increments = result.increments_rad.copy()
        increments[delay:] = np.diff(np.vstack([at_splice, targets[delay:]]), axis=0)
        return replace(result, increments_rad=increments)

    def status(self) -> PlannerStatus | None:
        return self._planner.status()

    def _targets(self, step: int, targets_rad: FloatArray) -> FloatArray:
        """Positions (horizon, J) to aim at after steps `step`, `step` + 1, ..."""
        return targets_rad


class TemporalEnsembling(NaiveSwitching):
    """Averages the targets of all chunks for a step."""

    def __init__(self, planner: Planner) -> None:
        super().__init__(planner)
        self._chunks: list[tuple[int, FloatArray]] = []

    def _targets(self, step: int, targets_rad: FloatArray) -> FloatArray:
        self._chunks = [chunk for chunk in self._chunks if chunk[0] + len(chunk[1]) > step]
        self._chunks.append((step, targets_rad))
        return ensembled(self._chunks, step)


class Synchronous:
    """Lets the arm come to rest before it looks again, and hold still until the chunk is there."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self._delay = 0

    def attach(self, controller: Controller) -> None:
        self._controller = controller

    def request(self, request: PlanRequest) -> None:
        self._delay = len(request.prefix_rad)
        # Control requests in the first step that it may; this is when the arm stands.
        self._controller.replanner.request_from(request.step + self._delay + SYNCHRONOUS_STEPS)
        self._planner.request(replace(request, prefix_rad=request.prefix_rad[:0]))

    def result(self) -> PlanResult | None:
        result = self._planner.result()
        if result is None or result.outcome is not Outcome.CHUNK:
            return result
        moves = soft_start(result.increments_rad[:SYNCHRONOUS_STEPS])
        moves[-len(START_SHARES) :] *= START_SHARES[::-1, None]
        still = np.zeros((self._controller.shape.horizon, moves.shape[1]))
        waits = np.zeros((self._delay, moves.shape[1]))
        return replace(result, increments_rad=np.vstack([waits, moves, still]))

    def status(self) -> PlannerStatus | None:
        return self._planner.status()


BLENDINGS: dict[str, Callable[[Planner], NaiveSwitching | Synchronous] | None] = {
    "committed prefix": None,
    "naive switching": NaiveSwitching,
    "temporal ensembling": TemporalEnsembling,
    "synchronous": Synchronous,
}
