"""Inference in a thread of the control process, as control sees it: for a policy that is a Python function.

The thread shares the interpreter with the control loop. A function that holds the interpreter in one native call delays
the loop by that long, and the report counts it; one that is only slow delays nothing but its own chunk.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

from edge.errors import InputError
from edge.inference.process import Inference
from edge.inference.records import Phase, Planner, PlannerStatus, PlanRequest, PlanResult
from edge.policy.function_policy import PolicyEnded

END_TIMEOUT_S = 1.0


class InferenceThread:
    """Answers requests in order of arrival, the newest only. `first_ns` is the time to expect of the first answer.

    `cpus` is where it may run, empty for anywhere. Once `finished`, nothing more is answered: the policy has ended.
    """

    def __init__(
        self, inference: Inference, first_ns: int, cpus: tuple[int, ...], tap: Callable[[Planner], Planner]
    ) -> None:
        self._inference, self._first_ns, self._cpus = inference, first_ns, cpus
        self._requests: SimpleQueue[PlanRequest | None] = SimpleQueue()
        self._results: deque[PlanResult] = deque(maxlen=1)
        self.finished = False
        self.planner = tap(self)
        self._thread = threading.Thread(target=self._serve, name="policy", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        if self._cpus:
            os.sched_setaffinity(0, self._cpus)  # of this thread
        while (request := self._requests.get()) is not None:
            if self._requests.empty():
                try:
                    self._results.append(self._inference.answer(request))
                except PolicyEnded:
                    self.finished = True

    # The planner -----------------------------------------------------------------------------------------------------

    def request(self, request: PlanRequest) -> None:
        self._requests.put(request)

    def result(self) -> PlanResult | None:
        return self._results.popleft() if self._results else None

    def status(self) -> PlannerStatus | None:
        return None

    # Its life --------------------------------------------------------------------------------------------------------

    def wait_ready(self, notify: Callable[[str], None], idle: Callable[[], None]) -> PlannerStatus:
        """There is nothing to warm up: calls of somebody else's function may have effects."""
        return PlannerStatus(Phase.READY, 0, 0, self._first_ns, "")

    def beat(self) -> PlannerStatus | None:
        """Only a process has one."""
        return None

    def exit_reason(self) -> str | None:
        """Why the thread has ended; None while it runs."""
        return None if self._thread.is_alive() else "the policy's thread has ended by itself"

    def restart(self) -> Planner:
        raise InputError("a policy in this process is not started again; end the run when it is lost")

    def close(self) -> None:
        """Waits a moment for the function to return; one that does not is left to end with the process."""
        self._requests.put(None)
        self._thread.join(END_TIMEOUT_S)
