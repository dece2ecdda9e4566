"""One's own Python function in the place of a bundle's engines: an observation in, joint goals or increments out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge.bundle import ChunkShape
from edge.plan.trajectory import FloatArray, from_micro
from edge.policy.base import NO_ROWS, PolicyInput, PolicyOutput
from firmware_bridge.messages import StateReport

NO_FRAMES = np.zeros((0, 0, 0, 3), dtype=np.uint8)


@dataclass(frozen=True)
class Observation:
    """What a function decides from; J joints of the arm, d steps that are committed already.

    step           number of the step that row 0 of the answer belongs to; it is 0 when the arm is at rest
    q_rad          (J,) newest measured positions
    start_rad      (J,) commanded positions at the beginning of `step`
    committed_rad  (d, J) commanded positions at the ends of the d steps from `step` on: these rows of an answer
                   change nothing any more
    frames         uint8 (cameras, height, width, 3)
    """

    step: int
    q_rad: FloatArray
    start_rad: FloatArray
    committed_rad: FloatArray
    frames: NDArray[np.uint8]


PolicyFunction: TypeAlias = Callable[[Observation], "ArrayLike | None"]
"""Returns (n, J) rows for the steps from `Observation.step` on, d < n <= horizon, or None when there are no more.

Rows are goals in rad, the positions at the ends of the steps, or increments in rad per step. A short answer (n below
the horizon) is a short plan: the run ends with it if no other follows."""
Answer = Literal["goals", "increments"]


class PolicyEnded(Exception):
    """The function has returned None: there is nothing more to do."""


def chunk_shape(horizon: int) -> ChunkShape:
    """The shape of a function's chunks. One may arrive until it is half over."""
    return ChunkShape(horizon, horizon, max_delay=horizon // 2)


class FunctionPolicy:
    """Calls the function and makes a chunk of its answer. `report` returns the device's newest report.

    `error` is what the function raised, for whoever reports it.
    """

    parts: tuple[str, ...] = ("function",)
    observations, step_s = 1, 0.0

    def __init__(
        self,
        function: PolicyFunction,
        joints: int,
        horizon: int,
        answer: Answer,
        report: Callable[[], StateReport | None],
    ) -> None:
        self.joints, self.shape = joints, chunk_shape(horizon)
        self.error: Exception | None = None
        self._function, self._goals, self._report = function, answer == "goals", report
        self._start_rad, self._step = np.zeros(joints), 0

    def infer(self, observed: PolicyInput) -> PolicyOutput:
        """One chunk, of at most `horizon` rows. Raises `PolicyEnded`, or `RuntimeError` in place of any error."""
        began_ns = time.perf_counter_ns()
        report = self._report()
        assert report is not None  # nothing is requested before the first report
        self._follow(observed, report)
        observation = Observation(
            observed.step,
            from_micro(report.measured_urad),
            self._start_rad.copy(),
            self._start_rad + np.cumsum(observed.prefix_rad, axis=0),
            np.stack(observed.frames) if len(observed.frames) else NO_FRAMES,
        )
        try:
            rows = self._rows(self._function(observation), len(observed.prefix_rad))
        except PolicyEnded:
            raise
        except Exception as error:  # of somebody else's code: the arm stops, whatever it is
            self.error = error
            raise RuntimeError(f"the function raised {type(error).__name__}: {error}") from error
        engine_ns = (time.perf_counter_ns() - began_ns,)
        return PolicyOutput(NO_ROWS, engine_ns, rows) if self._goals else PolicyOutput(rows, engine_ns)

    def _follow(self, observed: PolicyInput, report: StateReport) -> None:
        """Keeps the commanded position at the beginning of the observed step, from the increments that were executed.

        A request lies less than a horizon behind the one before it, and brings at least as many executed steps.
        """
        if observed.step == 0:
            self._start_rad = from_micro(report.commanded_urad)
        elif observed.step > self._step:
            self._start_rad = self._start_rad + observed.actions_rad[self._step - observed.step :].sum(axis=0)
        self._step = observed.step

    def _rows(self, answer: ArrayLike | None, delay: int) -> FloatArray:
        if answer is None:
            raise PolicyEnded
        rows, most = np.asarray(answer, dtype=np.float64), self.shape.horizon
        if rows.ndim != 2 or rows.shape[1] != self.joints or not delay < len(rows) <= most:
            raise ValueError(f"the answer is {rows.shape}; return (n, {self.joints}) with n from {delay + 1} to {most}")
        return rows
