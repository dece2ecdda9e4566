"""The inference process as control sees it: started, awaited, watched, started again."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from edge.arms import ArmProfile
from edge.bundle import ArmSpec, Bundle
from edge.errors import InputError
from edge.inference.film import NOWHERE, FrameOutlets
from edge.inference.process import InferenceSettings, arguments_of
from edge.inference.records import (
    FloatArray,
    Outcome,
    Phase,
    Planner,
    PlannerStatus,
    PlanningRecords,
    SharedPlanner,
    at_rest,
)
from firmware_bridge.children import end, start_module

READY_TIMEOUT_S = 120.0
FIRST_CHUNK_S = 30.0


class InferenceProcess:
    """One process at a time, and its planner. `tap` is put around every planner, for those who record it."""

    ending = finished = False

    def __init__(
        self,
        bundle: Bundle,
        arm: ArmProfile,
        settings: InferenceSettings,
        tap: Callable[[Planner], Planner],
        outlets: FrameOutlets = NOWHERE,
    ) -> None:
        self._outlets = outlets  # kept open for a process that is started again
        self.shape, self._joints, self._settings, self._tap = bundle.manifest.shape, arm.dof, settings, tap
        self.parts = tuple(bundle.manifest.engines)
        self.trained: ArmSpec | None = bundle.arm(arm.embodiment, arm.joints)
        self.step_s = self.trained.step_s
        self._start()

    def _start(self) -> None:
        records = PlanningRecords(self.shape, self._joints)  # fresh: a process may have died while it wrote
        descriptor, outlets = records.memory.descriptor, self._outlets.descriptors
        self.process = start_module(
            "edge.inference.process",
            arguments_of(self._settings, descriptor, outlets),
            pass_fds=[descriptor, *outlets.values()],
        )
        self.planner = self._tap(SharedPlanner(records))
        self._listener = SharedPlanner(records)  # a status is handed out once to each reader

    def wait_ready(self, notify: Callable[[str], None], idle: Callable[[], object]) -> PlannerStatus:
        """Waits until the policy is warm, calling `idle` meanwhile. Raises `InputError` with the reason if it fails."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        phase = Phase.STARTING
        while time.monotonic() < deadline:
            status = self.planner.status()
            if status is not None and status.phase is not phase:
                phase = status.phase
                if phase is Phase.LOADING:
                    notify("loading engines")
                elif phase is Phase.WARMING:
                    notify("warming up")
                elif phase is Phase.FAILED:
                    raise InputError(status.message)
                elif phase is Phase.READY:
                    return status
            exit_reason = self.exit_reason()
            if exit_reason is not None:
                last = self.planner.status()
                raise InputError(last.message if last and last.message else f"{exit_reason} before it was ready")
            idle()
        raise InputError(f"the inference process was not ready after {READY_TIMEOUT_S:.0f} s")

    def first_goals(self, measured_rad: FloatArray, idle: Callable[[], object]) -> FloatArray | None:
        """A chunk that is computed for this alone: its number is that of no request of control."""
        if not self.shape.measured:
            return None
        request = at_rest(self.shape, measured_rad)
        deadline, paused = time.monotonic() + FIRST_CHUNK_S, ""
        self._listener.request(request)
        while time.monotonic() < deadline:
            result = self._listener.result()
            if result is not None and result.id == request.id:
                if result.outcome is Outcome.CHUNK:
                    return result.goals_rad if len(result.goals_rad) else None
                if result.outcome is Outcome.FAILED:
                    raise InputError(f"inference failed: {result.message}")
                paused = result.message
                self._listener.request(request)
            exit_reason = self.exit_reason()
            if exit_reason is not None:
                raise InputError(exit_reason)
            idle()
        raise InputError(paused or f"the first chunk was not there after {FIRST_CHUNK_S:.0f} s")

    def beat(self) -> PlannerStatus | None:
        """The newest status, once, beside what the planner hands out."""
        return self._listener.status()

    @property
    def pid(self) -> int:
        return self.process.pid

    def exit_reason(self) -> str | None:
        """Why the process has ended; None while it runs."""
        code = self.process.poll()
        if code is None:
            return None
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit {code}"
        return f"the inference process ended by itself ({how})"

    def restart(self) -> Planner:
        """Ends what is left of the process and starts a new one; returns its planner."""
        self.process.kill()
        self.process.wait()
        self._start()
        return self.planner

    def close(self) -> None:
        end(self.process, 5.0)
