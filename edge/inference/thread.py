"""Inference in a thread of the control process, as control sees it: for a policy that is a Python function.

The thread shares the interpreter with the control loop. A function that holds the interpreter in one native call delays
the loop by that long, and the report counts it; one that is only slow delays nothing but its own chunk.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from queue import Empty, SimpleQueue

from edge.bundle import ArmSpec
from edge.errors import InputError, SafetyStop
from edge.inference.process import Inference
from edge.inference.records import FloatArray, Phase, Planner, PlannerStatus, PlanRequest, PlanResult
from edge.policy.function_policy import PolicyEnded

END_TIMEOUT_S = 1.0
READY_TIMEOUT_S = 60.0
LOOK_S = 0.02


class InferenceThread:
    """Answers requests in order of arrival, the newest only; `cpus` is where it may run, empty for anywhere.

    `ready` says whether the first chunk may be requested. A step is the time to expect of the first answer. `opened`
    are the cameras, which are closed with it.
    """

    trained: ArmSpec | None = None
    pid: int | None = None
    ending = finished = False

    def __init__(
        self,
        inference: Inference,
        step_s: float,
        cpus: tuple[int, ...],
        tap: Callable[[Planner], Planner],
        ready: Callable[[], bool] = lambda: True,
        opened: ExitStack | None = None,
    ) -> None:
        self.shape, self.parts, self.step_s = inference.policy.shape, inference.policy.parts, step_s
        self._inference, self._cpus, self._ready = inference, cpus, ready
        self._opened = opened or ExitStack()
        self._requests: SimpleQueue[PlanRequest | None] = SimpleQueue()
        self._results: deque[PlanResult] = deque(maxlen=1)
        self.planner = tap(self)
        self._thread = threading.Thread(target=self._serve, name="policy", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        if self._cpus:
            os.sched_setaffinity(0, self._cpus)  # of this thread
        while (request := self._next()) is not None:
            if self._requests.empty():
                try:
                    self._results.append(self._inference.answer(request))
                    self._inference.keep()
                except PolicyEnded:
                    self.finished = True

    def _next(self) -> PlanRequest | None:
        """Looks through the cameras, for those who watch, until the next request comes; None at the end."""
        while self._inference.watched:
            self._inference.look(time.monotonic_ns())
            with suppress(Empty):
                return self._requests.get(timeout=LOOK_S)
        return self._requests.get()

    # The planner -----------------------------------------------------------------------------------------------------

    def request(self, request: PlanRequest) -> None:
        self._requests.put(request)

    def result(self) -> PlanResult | None:
        if not self._results:
            return None
        result = self._results.popleft()
        self.ending = len(result.rows_rad) < self.shape.horizon
        return result

    def status(self) -> PlannerStatus | None:
        return None

    # Its life --------------------------------------------------------------------------------------------------------

    def wait_ready(self, notify: Callable[[str], None], idle: Callable[[], object]) -> PlannerStatus:
        """There are no calls to warm up: those of somebody else's function may have effects. Raises `InputError`."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not self._ready():
            if time.monotonic() > deadline:
                raise InputError(f"the first set-points did not come within {READY_TIMEOUT_S:.0f} s")
            idle()
        return PlannerStatus(Phase.READY, 0, 0, round(1e9 * self.step_s), "")

    def first_goals(self, measured_rad: FloatArray, idle: Callable[[], object]) -> FloatArray | None:
        """Whatever a function answers leads on from where the arm is."""
        return None

    def beat(self) -> PlannerStatus | None:
        """Only a process has one."""
        return None

    def exit_reason(self) -> str | None:
        """Why the thread has ended; None while it runs."""
        return None if self._thread.is_alive() else "the policy's thread has ended by itself"

    def restart(self) -> Planner:
        """Raises `SafetyStop`: what hangs in a thread cannot be ended."""
        raise SafetyStop("a Python function cannot be started again; the arm has come to rest")

    def close(self) -> None:
        """Waits a moment for the function to return; one that does not is left to end with the process."""
        self._requests.put(None)
        self._thread.join(END_TIMEOUT_S)
        self._opened.close()
