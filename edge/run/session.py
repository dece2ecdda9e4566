"""One session with a device: handshake, wait for inference, arm, control until the end, stop, disarm."""

from __future__ import annotations

import time
from contextlib import ExitStack

from edge.arms import ArmProfile
from edge.errors import InputError
from edge.inference.records import PlannerStatus
from edge.inference.source import InferenceHandle
from edge.log.records import Kind
from edge.log.taps import open_recorder
from edge.plan.replanner import ControlSettings
from edge.plan.start import far_from_start
from edge.plan.trajectory import FloatArray, from_micro
from edge.realtime.rights import RealtimeSetting, cpus_here, realtime
from edge.realtime.scheduler import measured_spin_ns
from edge.run.arm import ConnectedArm, LatchedFault, client_in_real_time
from edge.run.clearing import clear, reason_of
from edge.run.commands import Command
from edge.run.controller import NEARER, Controller
from edge.run.display import Display, LivePage
from edge.run.ending import End, drive
from edge.run.homing import describe, plan_move, told_of_pose
from edge.run.loop import ControlLoop
from edge.run.made_from import pack_controller
from edge.run.outcome import RunOutcome
from edge.run.settings import RunSettings
from edge.run.signals import Operator
from edge.run.slow_run import SlowRun
from edge.run.supervision import OnLoss
from edge.run.take_over import Leader
from firmware_bridge.bus_load import BusLoad
from firmware_bridge.messages import StateReport
from firmware_bridge.transports import Transport

STATE_RATE_HZ = 100
MOST_KEPT_S = 600.0
"""Of the samples that the plot shows: the newest ones of a longer run."""
IDLE_S = 0.01
TO_FIRST_GOALS = "to the first goals"


def kept_samples(duration_s: float) -> int:
    """How many samples a run of this length keeps."""
    return round(STATE_RATE_HZ * min(duration_s + 10, MOST_KEPT_S))


class Session:
    """A run on an open line, which the caller closes. `load` is what it takes of a line with a rate."""

    def __init__(
        self,
        arm: ArmProfile,
        transport: Transport,
        settings: RunSettings,
        display: Display,
        load: BusLoad | None,
        operator: Operator | None = None,
        leader: Leader | None = None,
    ) -> None:
        self._leader = leader
        self.arm, self.settings, self.display = arm, settings, display
        self.client = client_in_real_time(transport, display.journal)
        self._load, self._operator = load, operator or Operator()

    def run(self, inference: InferenceHandle) -> RunOutcome:
        """From start to standstill. Raises `InputError`, `BridgeError` or, for the operator's stop, `KeyboardInterrupt`
        while nothing has moved yet."""
        with self._operator:
            return self._run(inference)

    def _run(self, inference: InferenceHandle) -> RunOutcome:
        notify = self.display.notify
        connected = self._connect()
        notify(f"device '{self.arm.name}', firmware {connected.caps.firmware:08x}; clocks synchronised")
        status = inference.wait_ready(notify, self._drain)
        if status.cold_ns:
            took = f"first inference {status.cold_ns / 1e6:.0f} ms, warm {status.warm_ns / 1e6:.0f} ms"
            notify(f"{took}, on {status.message}")
        controller = self._controller(connected, inference, status)
        self._check_latency(controller)
        with ExitStack() as stack:
            self._operator.listen()
            settings = stack.enter_context(realtime(cpus_here())) if self.settings.realtime else []
            for setting in settings:
                if not setting.granted:
                    notify(f"no {setting.what}: {setting.detail}")
            spin_ns = measured_spin_ns(time.monotonic_ns, time.sleep) if settings else 0
            if self.settings.wait_for_start:
                self._wait_for_start()
            self._check_pose(connected, inference)
            first_rad = self._far_start(connected, inference)
            if self.display.log is not None:
                self.display.log.open()
            loop = ControlLoop(
                controller, inference, self._operator.commands, self.settings, self.display, spin_ns, self._leader
            )
            end = self._approach(connected, first_rad) if first_rad is not None else None
            if self.display.journal is not None:  # now: the approach had a controller of its own
                made_from = pack_controller(controller, inference.step_s, status.warm_ns // 1000)
                self.display.journal.put(Kind.CONTROLLER, made_from)
            end = end or drive(connected, self._operator, loop.run, self._show)
            if self.display.log is not None:
                self.display.log.control_ended(end.ended, end.error)
            if self.display.health is not None:
                self.display.health.stopping(end.error or end.ended)
            if self.display.page is not None:
                self.display.page.note(end.error or f"the run has ended ({end.ended})")
            return self._outcome(loop, end, status, settings)

    def _connect(self) -> ConnectedArm:
        """The arm. One in a fault is waited for, where the run waits for an operator anyway and has a page."""
        try:
            return ConnectedArm.connect(self.arm, self.client)
        except LatchedFault:
            if not self.settings.wait_for_start or self.display.page is None:
                raise
        self._wait_for_clear(self.display.page)
        return ConnectedArm.connect(self.arm, self.client)

    def _wait_for_clear(self, page: LivePage) -> None:
        """Until the fault is cleared on the page. Raises `KeyboardInterrupt` when the command is to stop."""
        why = reason_of(self.client.wait_for_state())
        self.display.notify(f"{why}. Find the cause, then clear it on the page")
        while True:
            self._show(self._drain())
            page.pass_on(self._operator.commands)
            command = self._operator.commands.take()
            if command >= Command.STOP:
                raise KeyboardInterrupt
            if command is Command.CLEAR:
                problem = clear(self.client, self._show)
                if problem is None:
                    self.display.notify("cleared; nothing has moved")
                    return
                self.display.notify(problem)

    def _controller(self, connected: ConnectedArm, inference: InferenceHandle, status: PlannerStatus) -> Controller:
        journal, latency_us, execute = self.display.journal, status.warm_ns // 1000, self.settings.execute_steps
        if execute is None:
            raise InputError("execute_steps is not set: how many steps are executed of a chunk")
        return Controller(
            self.client,
            inference.planner,
            self.arm,
            inference.shape,
            inference.step_s,
            ControlSettings(
                execute,
                connected.lead_us(self._load),
                self.settings.on_loss is OnLoss.WAIT,
                self.settings.ensemble,
            ),
            open_recorder(kept_samples(self.settings.duration_s), self.arm.dof, journal),
            latency_us,
        )

    def _show(self, report: StateReport | None) -> None:
        if self.display.page is not None and report is not None:
            self.display.page.publish_report(report, self.client.link.clock.unwrap(report.device_us))

    def _wait_for_start(self) -> None:
        """Nothing is armed before the operator's command. Raises `KeyboardInterrupt` when the command is to stop."""
        self.display.notify("ready; waits for the start command (the page's button, or SIGUSR1)")
        while True:
            report = self._drain()
            if self.display.page is not None:
                self.display.page.pass_on(self._operator.commands)
            self._show(report)
            self.display.alive("waits for the start command")
            command = self._operator.commands.take()
            if command >= Command.STOP:
                raise KeyboardInterrupt
            if command is Command.START:
                return
            if command is Command.HOME:
                self.display.notify(f"nothing is armed yet; first: {self._to_home()}")

    def _to_home(self) -> str:
        return f"edge-run --arm {self.arm.name} --bridge URL --to-home"

    def _drain(self) -> StateReport | None:
        """Drains STATE while idle: it would fill the line, and the next report to be read would be an old one."""
        report = self.client.poll(time.monotonic_ns()).state
        time.sleep(IDLE_S)
        return report

    def _check_latency(self, controller: Controller) -> None:
        """Reports when the motion will have to be slowed down. Raises `InputError` for what would hardly move."""
        replanner = controller.replanner
        stretch = replanner.stretch()
        if stretch > 1:
            steps = f"{replanner.lag_steps} steps of {controller.timeline.step_us // 1000} ms"
            self.display.notify(
                f"inference takes {replanner.latency.needed_us / 1000:.0f} ms, more than the {steps} that a chunk may "
                f"lag behind: the arm moves {stretch:.1f} times as slowly"
            )

    def _check_pose(self, connected: ConnectedArm, inference: InferenceHandle) -> None:
        state = connected.standing()
        trained = inference.trained
        told = told_of_pose(trained, self.arm, state.measured_urad, self._to_home()) if trained else None
        if told:
            self.display.notify(told)

    def _far_start(self, connected: ConnectedArm, inference: InferenceHandle) -> FloatArray | None:
        """The first goals of a policy, if they are far from where the arm stands.

        Raises `InputError` unless the arm may go there slowly.
        """
        measured_rad = from_micro(connected.standing().measured_urad)
        goals_rad = inference.first_goals(measured_rad, self._drain)
        far = far_from_start(goals_rad[0], measured_rad, self.arm) if goals_rad is not None else None
        if far is None:
            return None
        assert goals_rad is not None
        if not self.settings.approach:
            raise InputError(f"{far}; {NEARER}")
        move = plan_move(self.arm, measured_rad, goals_rad[0], TO_FIRST_GOALS)
        if move is not None:
            self.display.notify(f"{far}; {describe(move)}")
        first: FloatArray = goals_rad[0]
        return first

    def _approach(self, connected: ConnectedArm, target_rad: FloatArray) -> End | None:
        """Goes there slowly; how it ended where it did not arrive."""
        move = SlowRun(
            connected,
            self._operator,
            target_rad,
            TO_FIRST_GOALS,
            lambda move, share: self.display.alive("goes to the first goals"),
            self.display.journal,
        )
        end = drive(connected, self._operator, move.run, self._show)
        return None if end.error is None and end.ended == "arrived" else end

    def _outcome(
        self,
        loop: ControlLoop,
        end: End,
        status: PlannerStatus,
        settings: list[RealtimeSetting],
    ) -> RunOutcome:
        controller, link = loop.controller, self.client.link
        return RunOutcome(
            ended=end.ended,
            error=end.error,
            traceback=end.traceback,
            counters=controller.counters,
            samples=controller.recorder.samples(),
            planner=status,
            parts=loop.parts,
            lateness=loop.schedule,
            realtime=settings,
            losses=loop.losses,
            clock_uncertainty_us=link.clock.uncertainty_us,
            clock_drift_ppm=link.clock.drift * 1e6,
            moved_s=loop.moved_s,
            step_us=controller.timeline.step_us,
            sent_bytes=link.sent_bytes,
            resent_chunks=self.client.resent,
            bad_frames=link.bad_frames,
        )
