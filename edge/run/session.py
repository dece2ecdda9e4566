"""One run: start inference, shake hands with the device, arm, control until the end, stop, disarm."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Protocol

from edge.arms import ArmProfile
from edge.bundle import Bundle
from edge.errors import SafetyStop
from edge.inference.handle import InferenceProcess
from edge.inference.process import InferenceSettings
from edge.inference.records import PlannerStatus
from edge.log.recorder import Samples
from edge.log.records import Kind
from edge.log.run_log import RunLog
from edge.log.taps import open_recorder, tapped_planner
from edge.plan.replanner import ControlSettings
from edge.realtime.rights import RealtimeSetting, cpus_here, realtime
from edge.realtime.scheduler import FixedStep, RateGroup, RateTable, measured_spin_ns
from edge.run.arm import ConnectedArm, client_in_real_time
from edge.run.commands import Command, OperatorDesk
from edge.run.controller import HEARTBEAT_NS, Controller
from edge.run.counters import Counters
from edge.run.home_trip import HomeTrip
from edge.run.homing import far_from_training
from edge.run.made_from import pack_controller
from edge.run.standstill import bring_to_rest
from edge.run.supervision import Loss, OnLoss, Supervisor
from firmware_bridge.bus_load import BusLoad, bus_load
from firmware_bridge.errors import LinkLost
from firmware_bridge.messages import StateReport
from firmware_bridge.transports import LineRate, Transport

SUPERVISION_S = 0.02
VIEW_S = 0.04
PROGRESS_S = 0.25
STATE_RATE_HZ = 100
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
WORD_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGRTMIN)
SIGNALS: dict[int, Command] = {
    signal.SIGINT: Command.STOP,
    signal.SIGTERM: Command.STOP,
    signal.SIGUSR1: Command.START,
    signal.SIGUSR2: Command.PAUSE,
    signal.SIGRTMIN: Command.HOME,
}


@contextmanager
def handled(numbers: tuple[signal.Signals, ...], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """These signals go to `handler` for a while."""
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


@dataclass(frozen=True)
class SessionSettings:
    """What a run needs to know. `line` is None for one without a rate (a pty)."""

    task: str
    duration_s: float
    rate_hz: float
    execute_steps: int
    seed: int
    inference: InferenceSettings
    line: LineRate | None
    on_loss: OnLoss = OnLoss.END
    realtime: bool = True
    wait_for_start: bool = False


@dataclass(frozen=True)
class RunOutcome:
    """How a run went. `ended` is "duration", "user" or "safety stop"; `error` is the reason of a safety stop."""

    ended: str
    error: str | None
    counters: Counters
    samples: Samples
    planner: PlannerStatus
    lateness: FixedStep
    grants: list[RealtimeSetting]
    losses: list[Loss]
    clock_uncertainty_us: float
    clock_drift_ppm: float
    moved_s: float
    step_us: int
    sent_bytes: int
    resent_chunks: int
    bad_frames: int


def line_load(bundle: Bundle, arm: ArmProfile, execute_steps: int, line: LineRate) -> BusLoad:
    """What a run of this bundle takes of its line."""
    step_s = bundle.embodiment(arm.embodiment, arm.dof).step_s
    knots = bundle.manifest.policy.horizon + 1
    return bus_load(line, arm.dof, knots, execute_steps * step_s, 1e9 / HEARTBEAT_NS)


class LivePage(Protocol):
    """What shows a run while it goes on. No call waits."""

    def publish(self, controller: Controller, loop: FixedStep | None) -> None:
        """Shows the run as it is now."""

    def publish_report(self, report: StateReport, device_us: int) -> None:
        """Shows the device before anything moves; `device_us` is its time, unwrapped."""

    def note(self, text: str) -> None:
        """Shows a line until the next one."""

    def pass_on(self, desk: OperatorDesk) -> None:
        """Takes presses of buttons to the desk."""


class ProgressLine(Protocol):
    """Shows how far a run has come; never waits."""

    def __call__(self, seconds: float, chunks: int, state: StateReport | None, stretch: float) -> None: ...


def show_progress(line: ProgressLine, seconds: float, controller: Controller) -> None:
    timeline = controller.timeline
    stretch = timeline.spacing_us(timeline.last) / timeline.step_us
    line(seconds, len(controller.counters.committed_ids), controller.last_state, stretch)


class Session:
    """A run, step by step; `close` leaves nothing running and the drive off."""

    def __init__(
        self,
        bundle: Bundle,
        arm: ArmProfile,
        transport: Transport,
        settings: SessionSettings,
        tell: Callable[[str], None],
        progress: ProgressLine,
        view: LivePage | None = None,
        log: RunLog | None = None,
    ) -> None:
        self.bundle, self.arm, self.settings, self.view, self.log = bundle, arm, settings, view, log
        self._progress = progress
        self._say = tell
        self._journal = log.journal if log else None
        self.client = client_in_real_time(transport, self._journal)
        self.transport = transport
        self.inference: InferenceProcess | None = None
        self.armed = False
        self.desk = OperatorDesk()

    def run(self) -> RunOutcome:
        """From start to standstill. Raises `InputError` or `BridgeError` while nothing has moved yet."""
        line = self.settings.line
        load = line_load(self.bundle, self.arm, self.settings.execute_steps, line) if line else None
        if load is not None:
            load.check()
        self.inference = InferenceProcess(
            self.bundle, self.arm, self.settings.inference, lambda planner: tapped_planner(planner, self._journal)
        )
        connected = ConnectedArm.connect(self.arm, self.client)
        self.tell(f"device '{self.arm.name}', firmware {connected.caps.firmware:08x}; clocks synchronised")
        status = self.inference.wait_ready(self.tell, self._idle)
        self.tell(f"first inference {status.cold_ns / 1e6:.0f} ms, warm {status.warm_ns / 1e6:.0f} ms")
        embodiment = self.bundle.embodiment(self.arm.embodiment, self.arm.dof)
        settings = ControlSettings(
            self.settings.execute_steps,
            connected.lead_us(load),
            may_starve=self.settings.on_loss is OnLoss.WAIT,
        )
        recorder = open_recorder(round(STATE_RATE_HZ * (self.settings.duration_s + 10)), self.arm.dof, self._journal)
        controller = Controller(
            self.client,
            self.inference.planner,
            self.arm,
            self.bundle.manifest.policy,
            embodiment.step_s,
            settings,
            recorder,
            status.warm_ns // 1000,
        )
        if self._journal is not None:
            body = pack_controller(controller, embodiment.step_s, status.warm_ns // 1000)
            self._journal.put(Kind.CONTROLLER, body)
        self._check_latency(controller)
        with ExitStack() as stack:
            stack.enter_context(handled(WORD_SIGNALS, self._on_signal))
            grants = stack.enter_context(realtime(cpus_here())) if self.settings.realtime else []
            for grant in grants:
                if not grant.granted:
                    self.tell(f"no {grant.what}: {grant.detail}")
            spin_ns = measured_spin_ns(time.monotonic_ns, time.sleep) if grants else 0
            if self.settings.wait_for_start:
                self._wait_for_start()
            self._arm(connected)
            stack.enter_context(handled(STOP_SIGNALS, self._on_signal))
            return self._control(controller, status, spin_ns, grants)

    def tell(self, text: str) -> None:
        """A line for the person in front of it, on the terminal and on the page."""
        self._say(text)
        if self.log is not None:
            self.log.said(text)
        if self.view is not None:
            self.view.note(text)

    def _show(self, report: StateReport | None) -> None:
        if self.view is not None and report is not None:
            self.view.publish_report(report, self.client.link.clock.unwrap(report.device_us))

    def _wait_for_start(self) -> None:
        """Nothing is armed before the operator's word. Raises `KeyboardInterrupt` when the word is to stop."""
        self.tell("ready; waits for the word to start (the page's button, or SIGUSR1)")
        while True:
            report = self._keep_line_empty()
            if self.view is not None:
                self.view.pass_on(self.desk)
            self._show(report)
            command = self.desk.take()
            if command >= Command.STOP:
                raise KeyboardInterrupt
            if command is Command.START:
                return
            if command is Command.HOME:
                self.tell(f"nothing is armed yet; first: edge-run --arm {self.arm.name} --bridge URL --to-home")

    def _idle(self) -> None:
        self._keep_line_empty()

    def _keep_line_empty(self) -> StateReport | None:
        """Reports that nobody reads would fill the line, and the next one to be read would be an old one."""
        report = self.client.poll(time.monotonic_ns()).state
        time.sleep(0.01)
        return report

    def _check_latency(self, controller: Controller) -> None:
        """Says when the motion will have to be slowed down, and refuses what would hardly move."""
        replanner = controller.replanner
        stretch = replanner.stretch()
        if stretch > 1:
            steps = f"{replanner.lag_steps} steps of {controller.timeline.step_us // 1000} ms"
            self.tell(
                f"inference takes {replanner.latency.needed_us / 1000:.0f} ms, more than the {steps} that a chunk may "
                f"lag behind: the arm moves {stretch:.1f} times as slowly"
            )

    def _arm(self, connected: ConnectedArm) -> None:
        measured_urad = connected.standing().measured_urad
        far = far_from_training(self.bundle.embodiment(self.arm.embodiment), measured_urad)
        if far:
            self.tell(f"{far}; to begin near there: edge-run --arm {self.arm.name} --bridge URL --to-home")
        connected.switch_on()
        self.armed = True

    def _control(
        self, controller: Controller, status: PlannerStatus, spin_ns: int, grants: list[RealtimeSetting]
    ) -> RunOutcome:
        assert self.inference is not None
        loop = FixedStep(round(1e9 / self.settings.rate_hz), time.monotonic_ns, time.sleep, spin_ns)
        began_ns = now_ns = time.monotonic_ns()
        home = HomeTrip(controller, self.tell, lambda way: tapped_planner(way, self._journal))
        supervisor = Supervisor(controller, self.inference, self.desk, self.settings.on_loss, self.tell, home)

        def supervise(now_ns: int, tick: int) -> None:
            supervisor.step(now_ns, tick)
            if self.log is not None and self.inference is not None:
                self.log.beat(self.inference.beat())

        work = RateTable(
            RateGroup("control", 1, lambda now_ns, tick: controller.step(now_ns, tick + 1)),
            RateGroup("supervision", max(1, round(SUPERVISION_S * self.settings.rate_hz)), supervise),
            *self._view_group(controller, loop),
            RateGroup(
                "progress",
                max(1, round(PROGRESS_S * self.settings.rate_hz)),
                lambda now_ns, tick: show_progress(self._progress, (now_ns - began_ns) / 1e9, controller),
            ),
        )
        ended, error = "duration", None
        try:
            while now_ns - began_ns < self.settings.duration_s * 1e9 and not self.desk.waits(Command.STOP):
                now_ns = loop.wait()
                if self.log is not None:
                    self.log.loop(loop)
                work.run(now_ns, loop.ticks)
                self.client.keep_clock(now_ns, loop.slack_s() - spin_ns / 1e9)
            ended = "user" if self.desk.waits(Command.STOP) else ended
        except (SafetyStop, LinkLost) as stop:
            ended, error = "safety stop", str(stop)
        moved_s = (now_ns - began_ns) / 1e9
        if self.log is not None:
            self.log.control_ended(ended, error)
        error = "; ".join(part for part in (error, self._stop()) if part) or None
        if self.view is not None:
            self.view.note(error or f"the run has ended ({ended})")
        return RunOutcome(
            ended="safety stop" if error else ended,
            error=error,
            counters=controller.counters,
            samples=controller.recorder.samples(),
            planner=status,
            lateness=loop,
            grants=grants,
            losses=supervisor.losses,
            clock_uncertainty_us=self.client.link.clock.uncertainty_us,
            clock_drift_ppm=self.client.link.clock.drift * 1e6,
            moved_s=moved_s,
            step_us=controller.timeline.step_us,
            sent_bytes=self.client.link.sent_bytes,
            resent_chunks=self.client.resent,
            bad_frames=self.client.link.bad_frames,
        )

    def _view_group(self, controller: Controller, loop: FixedStep) -> tuple[RateGroup, ...]:
        view = self.view
        if view is None:
            return ()

        def show(now_ns: int, tick: int) -> None:
            view.publish(controller, loop)
            view.pass_on(self.desk)

        return (RateGroup("view", max(1, round(VIEW_S * self.settings.rate_hz)), show),)

    def _stop(self) -> str | None:
        """Controlled stop, then drive off. Returns what went wrong, None when all is well."""
        self.armed, problem = bring_to_rest(self.client, self._show)
        return problem

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.desk.ask(SIGNALS[number])

    def pids(self) -> dict[str, int]:
        """Process ids, for those who want to look."""
        pids = {"control": os.getpid()}
        if self.inference is not None:
            pids["inference"] = self.inference.process.pid
        return pids

    def close(self) -> None:
        """Ends the inference process, stops the arm if it still moves, closes the line."""
        if self.armed:
            self._stop()
        if self.inference is not None:
            self.inference.close()
        self.transport.close()
