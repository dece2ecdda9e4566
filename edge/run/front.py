"""The front for Python, and for `edge-run`: connect an arm, then run a bundle, a function or set-points on it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.arms import ArmProfile, load_arm
from edge.arms.bridge import is_simulated
from edge.arms.drives import fitted_arm
from edge.bundle import Bundle, load_bundle
from edge.engines import DEFAULT_ENGINE
from edge.errors import InputError, SafetyStop
from edge.log.recorder import Samples
from edge.log.run_log import RunLog
from edge.plan.trajectory import from_micro
from edge.policy import base
from edge.policy.function_policy import Answer, PolicyFunction
from edge.policy.set_points import SetPoints
from edge.policy.stepper import PolicyStepper
from edge.realtime.rights import cpus_here
from edge.run.arm import ConnectedArm, client_in_real_time
from edge.run.controller import HEARTBEAT_NS
from edge.run.display import Display
from edge.run.ending import drive
from edge.run.homing import plan_move
from edge.run.outcome import RunOutcome
from edge.run.policies import FunctionRun, FunctionSettings, Runnable, described, runnable
from edge.run.report import cameras_header, run_header, summarise
from edge.run.session import Session
from edge.run.settings import RunSettings
from edge.run.signals import Operator
from edge.run.slow_run import SlowRun
from edge.run.take_over import Leader
from edge.run.workcell import Workcell
from firmware_bridge.bus_load import bus_load
from firmware_bridge.codes import MAX_KNOTS

SILENT = Display()
DEFAULT = FunctionSettings()
HOUR_S = 3600.0


class Arm:
    """An arm on its line. Leaving the `with` closes the line, with the drive off, whatever happens.

    Each run begins with a handshake of its own: what has waited in the line since the last one does not count.
    """

    def __init__(self, profile: ArmProfile, cell: Workcell) -> None:
        self.profile, self.cell = profile, cell
        self._connected: ConnectedArm | None = None

    def connect(self) -> ConnectedArm:
        """The handshake, unless it has been made since the last run. Raises `BridgeError`."""
        if self._connected is None:
            client = client_in_real_time(self.cell.bridge.transport)
            self._connected = ConnectedArm.connect(self.profile, client)
        return self._connected

    def q_rad(self) -> NDArray[np.float64]:
        """Measured positions (J,), rad. Raises `SafetyStop` while a fault is latched, `BridgeError`."""
        connected = self.connect()
        connected.client.poll(time.monotonic_ns())  # what has waited in the line is old
        return from_micro(connected.standing().measured_urad)

    def move_to(self, target_rad: Sequence[float] | NDArray[np.float64], towards: str) -> None:
        """Goes slowly to a pose (J,), which `towards` names, and switches the drive off there.

        Raises `InputError` for a move that must not be made, `SafetyStop` when it did not arrive.
        """
        connected, operator = self.connect(), Operator()
        if plan_move(self.profile, self.q_rad(), target_rad, towards) is not None:
            with operator:
                move = SlowRun(connected, operator, target_rad, towards)
                end = drive(connected, operator, move.run)
            if end.error is not None or end.ended != "arrived":
                raise SafetyStop(end.error or f"stopped on the way {towards}")
        self._connected = None

    def run(
        self,
        policy: Bundle | str | Path | PolicyFunction,
        *,
        step_s: float = 0.1,
        horizon: int = 15,
        answer: Answer = "goals",
        log: str | Path | None = None,
        display: Display = SILENT,
        **settings: Any,
    ) -> RunOutcome:
        """Runs a bundle or a Python function until the time is over or it has to stop; then the drive is off.

        step_s, horizon, answer   of a function: seconds a step, most steps of an answer, and whether its rows are
                                  "goals" or "increments" (`edge.policy.function_policy.PolicyFunction`)
        log                       a file for `read_log` and `edge-run --replay`
        settings                  fields of `RunSettings`: task, duration_s, seed, execute_steps, ...

        Raises `VlaEdgeError` or `BridgeError` before anything moves; after the stop, what the function raised.
        """
        run = RunSettings(self.profile.name, **settings)
        made = runnable(policy, self.profile, run, FunctionSettings(step_s, horizon, answer))
        return self.run_opened(made, run, log, display)

    def stream(
        self,
        set_points: Iterable[Any],
        *,
        step_s: float = 0.02,
        horizon: int = 25,
        log: str | Path | None = None,
        display: Display = SILENT,
        **settings: Any,
    ) -> RunOutcome:
        """Follows set-points (J,) in rad, `step_s` apart, to their end or for an hour; else as `run`.

        They are read ahead in a thread, one horizon before the drive is switched on and up to two. When they stop
        coming, the plan is stretched, then runs out into a controlled stop.
        """
        run = RunSettings(self.profile.name, **{"duration_s": HOUR_S, **settings})
        function = FunctionSettings(step_s, horizon)
        with closing(SetPoints(set_points, self.profile.dof, horizon)) as points:
            return self.run_opened(FunctionRun(points, self.profile, function, points.ready), run, log, display)

    def run_opened(
        self,
        policy: Runnable,
        run: RunSettings,
        log: str | Path | None,
        display: Display,
        operator: Operator | None = None,
        leader: Leader | None = None,
    ) -> RunOutcome:
        """A run of what has been checked; `leader` is where a person wants the arm who takes it over."""
        cell = self.cell
        names = [camera.name for camera in policy.cameras]
        cameras = cell.cameras(names) if names or policy.bundle else cell.given_cameras()
        execute = policy.execute_steps if run.execute_steps is None else run.execute_steps
        run = replace(run, execute_steps=execute, cameras=cameras, cpus=cpus_here().others if run.realtime else ())
        load, line = None, cell.bridge.rate
        if line is not None:
            knots = min(policy.shape.horizon + 1, MAX_KNOTS)
            load = bus_load(line, self.profile.dof, knots, execute * policy.step_s, 1e9 / HEARTBEAT_NS)
            load.check()
        self._connected = None
        with logged(display, log) as shown:
            if shown.log is not None:
                where = {"bridge": cell.url, "scene_seed": cell.scene_seed}
                views = policy.views(run.cameras)
                shown.log.prepare(run_header(policy.bundle, self.profile, run, where | cameras_header(views)), views)
            session = Session(self.profile, cell.bridge.transport, run, shown, load, operator, leader)
            with closing(policy.open(session.client, run, shown)) as inference:
                outcome = session.run(inference)
                pids = {"control": os.getpid(), "inference": inference.pid}
                outcome = replace(outcome, report=summarise(outcome, run, self._extra(policy, run, outcome, pids)))
            if log is not None:
                end_log(shown, outcome)
        if policy.error is not None:
            raise policy.error
        return outcome

    def _extra(
        self, policy: Runnable, run: RunSettings, outcome: RunOutcome, pids: dict[str, int | None]
    ) -> dict[str, Any]:
        device = self.cell.bridge.device
        return {
            "arm": self.profile.name,
            "bridge": self.cell.url,
            "simulated": is_simulated(self.cell.url),
            "cameras": list(self.cell.given) or ["sim:"] * len(run.cameras),
            "bundle": described(policy.bundle),
            "processes": {name: pid for name, pid in pids.items() if pid} | ({"device": device.pid} if device else {}),
            "simulated_scene": self._verdict(run.task, outcome.samples),
        }

    def _verdict(self, task: str, samples: Samples) -> dict[str, Any] | None:
        """None as well when the simulated world went in the middle of a tick."""
        try:
            return self.cell.verdict(task, samples)
        except InputError:
            return None

    def close(self) -> None:
        """Closes the line, and ends what was started behind it."""
        self.cell.close()

    def __enter__(self) -> Arm:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def logged(display: Display, log: str | Path | None) -> Iterator[Display]:
    """The display with a log of its own, which ends with the block; without a file, as it is."""
    if log is None:
        yield display
        return
    with RunLog(Path(log)) as opened:
        yield replace(display, log=opened)


def end_log(display: Display, outcome: RunOutcome) -> None:
    """Writes the report as the last record."""
    if display.log is not None:
        outcome.report["log"] = display.log.summary()
        display.log.end(outcome.report)


def open_arm(
    arm: str,
    bridge_url: str = "sim:",
    *,
    task: str = "",
    scene_seed: int | None = 0,
    cameras: Iterable[str] = (),
    trace: Path | None = None,
) -> Arm:
    """Opens the line and what stands behind it; see `Workcell`. Raises `VlaEdgeError` or `BridgeError`."""
    profile = fitted_arm(bridge_url, load_arm(arm))
    return Arm(profile, Workcell(profile, bridge_url, scene_seed, task, tuple(cameras), trace))


def connect(arm: str, bridge_url: str = "sim:", **cell: Any) -> Arm:
    """A connected arm, for a `with`: line open, profile and limits agreed, clock known; nothing has moved.

    cell  as for `open_arm`: `task` and `scene_seed` of a simulated scene (None: the arm alone), `cameras`, `trace`

    Raises `VlaEdgeError` or `BridgeError`.
    """
    opened = open_arm(arm, bridge_url, **cell)
    try:
        opened.connect()
    except BaseException:
        opened.close()
        raise
    return opened


def run_policy(
    policy: Bundle | str | Path | PolicyFunction | Runnable,
    arm: str,
    bridge_url: str = "sim:",
    *,
    task: str = "",
    scene_seed: int | None = 0,
    cameras: Iterable[str] = (),
    trace: Path | None = None,
    function: FunctionSettings = DEFAULT,
    log: str | Path | None = None,
    display: Display = SILENT,
    operator: Operator | None = None,
    **settings: Any,
) -> RunOutcome:
    """Connects, runs as `Arm.run` does, and closes: what `edge-run` does. The report then has the adapter's part."""
    profile = load_arm(arm)
    run = RunSettings(arm, task=task, **settings)
    made = runnable(policy, profile, run, function)
    with logged(display, log) as shown:
        with open_arm(arm, bridge_url, task=task, scene_seed=scene_seed, cameras=cameras, trace=trace) as opened:
            outcome = opened.run_opened(made, run, None, shown, operator)
        if (statistics := opened.cell.bridge.statistics) is not None:
            outcome.report["adapter"] = statistics
        end_log(shown, outcome)
    return outcome


def open_policy(
    bundle: Bundle | str | Path,
    arm: str,
    task: str,
    *,
    seed: int = 0,
    execute_steps: int | None = None,
    engine: str = DEFAULT_ENGINE,
    threads: int = 1,
) -> PolicyStepper:
    """A bundle's policy on one's own frames, without an arm. Raises `VlaEdgeError`."""
    opened = bundle if isinstance(bundle, Bundle) else load_bundle(Path(bundle))
    return PolicyStepper(base.open_policy(opened, arm, task, threads, engine), seed, execute_steps)
