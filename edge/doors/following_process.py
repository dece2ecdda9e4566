"""The process of an arm that follows set-points: one run with a `Pursuer` as its planner. Prints JSON, a line each."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edge.arms import ArmProfile
from edge.bundle import ArmSpec, Bundle, CameraSpec, ChunkShape
from edge.doors.following import FollowingRecords, FollowingSettings, Positions
from edge.errors import SafetyStop, VlaEdgeError
from edge.inference.film import CameraView, NewestFrames
from edge.inference.layout import Newest
from edge.inference.records import Phase, Planner, PlannerStatus
from edge.inference.source import InferenceHandle
from edge.plan.trajectory import FloatArray, from_micro
from edge.realtime.scheduler import FixedStep
from edge.run.commands import CommandQueue
from edge.run.controller import Controller
from edge.run.display import Display
from edge.run.front import open_arm
from edge.run.pursuit import Pursuer, Pursuit
from edge.run.settings import RunSettings
from edge.run.signals import Operator
from firmware_bridge.client import DeviceClient
from firmware_bridge.errors import BridgeError
from firmware_bridge.messages import StateReport
from firmware_bridge.printing import print_line

STEP_S, EXECUTE_STEPS = 0.02, 3
"""A chunk is joined two or three steps ahead, and the next one is requested when it has been."""
SHAPE = ChunkShape(horizon=25, history=1, max_delay=12, measured=1)
"""Half a second: long enough to come to rest from the arm's operating speed."""
DAY_S = 86_399.0
PATIENCE_S = 2.0
"""For the last lines, when the arm is at rest and its drive off."""


class FollowingRun:
    """A `Runnable`, and its own `InferenceHandle`: there is nothing to start, to warm up or to lose."""

    shape, step_s, execute_steps = SHAPE, STEP_S, EXECUTE_STEPS
    parts: tuple[str, ...] = ("pursuit",)
    bundle: Bundle | None = None
    cameras: tuple[CameraSpec, ...] = ()
    error: Exception | None = None
    trained: ArmSpec | None = None
    pid: int | None = None
    ending = finished = False

    def __init__(self, arm: ArmProfile, share: float, records: FollowingRecords) -> None:
        self._newest = Newest(records.set_points)
        self._target: FloatArray | None = None
        self.planner: Planner = Pursuer(Pursuit.of(arm, STEP_S, share), SHAPE.horizon, self._take)

    def _take(self) -> FloatArray | None:
        newest = self._newest.take()
        if newest is not None:
            self._target = newest.q
        return self._target

    def views(self, urls: Sequence[str]) -> tuple[CameraView, ...]:
        return ()

    def open(self, client: DeviceClient, run: RunSettings, display: Display) -> InferenceHandle:
        self.planner = display.tap(self.planner)
        return self

    def wait_ready(self, notify: Callable[[str], None], idle: Callable[[], object]) -> PlannerStatus:
        return PlannerStatus(Phase.READY, 0, 0, 0, "")

    def first_goals(self, measured_rad: FloatArray, idle: Callable[[], object]) -> FloatArray | None:
        """None: whatever is pursued, it is from where the arm stands."""
        return None

    def beat(self) -> PlannerStatus | None:
        return None

    def exit_reason(self) -> str | None:
        return None

    def restart(self) -> Planner:
        raise SafetyStop("the planner of set-points does not answer; the arm has come to rest")

    def close(self) -> None: ...


class Measured:
    """Writes the device's newest report where the other process reads it: a `LivePage`."""

    frames: NewestFrames | None = None

    def __init__(self, records: FollowingRecords) -> None:
        self._box = records.measured
        self._last: StateReport | None = None

    def look(self, client: DeviceClient) -> None:
        """For the control loop alone: a mailbox has one writer."""
        report = client.last_state
        if report is not None and report is not self._last:
            self._last = report
            self._box.write(Positions(client.last_state_ns, from_micro(report.measured_urad)))

    def publish(self, controller: Controller, loop: FixedStep | None) -> None:
        self.look(controller.client)

    def publish_report(self, report: StateReport, device_us: int) -> None: ...

    def note(self, text: str) -> None: ...

    def pass_on(self, commands: CommandQueue) -> None: ...


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="edge.doors.following_process", description=__doc__)
    parser.add_argument("--memory", type=int, required=True, help="descriptor of the shared memory")
    parser.add_argument("--settings", type=json.loads, required=True)
    args = parser.parse_args(argv)
    try:
        with Operator(to_the_end=True) as operator:
            return _run(FollowingSettings(**args.settings), args.memory, operator)
    except (VlaEdgeError, BridgeError) as error:
        code = error.exit_code if isinstance(error, VlaEdgeError) else 2
        _tell(PATIENCE_S, error=str(error), code=code)
        return code
    except KeyboardInterrupt:
        return 0


def _run(settings: FollowingSettings, memory: int, operator: Operator) -> int:
    trace = Path(settings.trace) if settings.trace else None
    with open_arm(
        settings.arm, settings.bridge, task=settings.task, scene_seed=settings.scene_seed, trace=trace
    ) as arm:
        if settings.cameras:
            _tell(PATIENCE_S, cameras=dict(zip(settings.cameras, arm.cell.cameras(settings.cameras))))
        records = FollowingRecords(arm.profile.dof, memory)
        run = RunSettings(
            settings.arm,
            task=settings.task,
            duration_s=DAY_S,
            execute_steps=EXECUTE_STEPS,
            realtime=settings.realtime,
        )
        display = Display(line=lambda text: _tell(note=text), page=Measured(records))
        policy = FollowingRun(arm.profile, settings.speed, records)
        outcome = arm.run_opened(policy, run, settings.log, display, operator)
    _tell(PATIENCE_S, report=outcome.report)
    if outcome.error:
        _tell(PATIENCE_S, error=outcome.error, code=1)
        return 1
    return 0


def _tell(wait_s: float = 0.0, **what: Any) -> None:
    print_line(json.dumps(what), sys.stdout, wait_s)


if __name__ == "__main__":
    sys.exit(main())
