"""One run: start inference, shake hands with the device, arm, control until the end, stop, disarm."""

from __future__ import annotations

import gc
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

from edge.arms import ArmProfile, JointLimits
from edge.bundle import Bundle
from edge.control import HEARTBEAT_NS, Controller, ControlSettings, Counters
from edge.errors import InputError, SafetyStop
from edge.inference import InferenceSettings, start_arguments
from edge.planning import Phase, PlannerStatus, PlanningRecords, SharedPlanner
from edge.scheduler import FixedStep
from edge.telemetry.log import RunLog
from edge.telemetry.recorder import Samples
from edge.telemetry.records import Kind
from edge.telemetry.taps import open_client, open_recorder, pack_controller, tapped_planner
from firmware_bridge.bus_load import BusLoad, bus_load
from firmware_bridge.client import stop_text
from firmware_bridge.codes import MICRO, DeviceState
from firmware_bridge.errors import BridgeError, LinkLost
from firmware_bridge.messages import Limits, StateReport
from firmware_bridge.transports import LineRate, Transport

READY_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 5.0
CHILD_CHECK_NS = 20_000_000
STATE_RATE_HZ = 100
LEAD_MARGIN_US = 10_000


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


@dataclass(frozen=True)
class RunOutcome:
    """How a run went. `ended` is "duration", "user" or "safety stop"; `error` is the reason of a safety stop."""

    ended: str
    error: str | None
    counters: Counters
    samples: Samples
    planner: PlannerStatus
    lateness: FixedStep
    clock_uncertainty_us: float
    clock_drift_ppm: float
    moved_s: float
    sent_bytes: int
    resent_chunks: int
    bad_frames: int


def wire_limits(limits: JointLimits) -> Limits:
    """Limits as the wire carries them, rounded to the tighter side."""

    def scaled(row: tuple[float, ...], unit: float) -> tuple[int, ...]:
        return tuple(int(value * unit * (1 + 1e-12)) for value in row)  # 2.62 is a hair below 2620000e-6

    return Limits(
        position_min_urad=tuple(round(value * MICRO) for value in limits.position_min_rad),
        position_max_urad=tuple(round(value * MICRO) for value in limits.position_max_rad),
        velocity_urad_s=scaled(limits.velocity_rad_s, MICRO),
        acceleration_mrad_s2=scaled(limits.acceleration_rad_s2, 1000),
        jerk_mrad_s3=scaled(limits.jerk_rad_s3, 1000),
    )


def line_load(bundle: Bundle, arm: ArmProfile, execute_steps: int, line: LineRate) -> BusLoad:
    """What a run of this bundle takes of its line."""
    step_s = bundle.embodiment(arm.embodiment).step_s
    knots = bundle.manifest.policy.horizon + 1
    return bus_load(line, arm.dof, knots, execute_steps * step_s, 1e9 / HEARTBEAT_NS)


def lead_us(min_lead_us: int, load: BusLoad | None) -> int:
    """How long before its first new knot a chunk must be sent: the device's minimum, the transmission, a margin."""
    return min_lead_us + (round(load.chunk_s * MICRO) if load else 0) + LEAD_MARGIN_US


class InferenceProcess:
    """The other process, and the planner that speaks to it."""

    def __init__(self, bundle: Bundle, arm: ArmProfile, settings: InferenceSettings) -> None:
        self.records = PlanningRecords(bundle.manifest.policy, arm.dof)
        descriptor = self.records.memory.descriptor
        self.process = subprocess.Popen(start_arguments(settings, descriptor), pass_fds=[descriptor])
        self.planner = SharedPlanner(self.records)

    def wait_ready(self, tell: Callable[[str], None], idle: Callable[[], None]) -> PlannerStatus:
        """Waits until the policy is warm, calling `idle` meanwhile. Raises `InputError` with the reason if it fails."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        phase = Phase.STARTING
        while time.monotonic() < deadline:
            status = self.planner.status()
            if status is not None and status.phase is not phase:
                phase = status.phase
                if phase is Phase.LOADING:
                    tell("loading engines")
                elif phase is Phase.WARMING:
                    tell("warming up")
                elif phase is Phase.FAILED:
                    raise InputError(status.message)
                elif phase is Phase.READY:
                    return status
            if self.process.poll() is not None:
                last = self.planner.status()
                raise InputError(
                    last.message
                    if last is not None and last.message
                    else f"the inference process ended with {self.process.returncode} before it was ready"
                )
            idle()
        raise InputError(f"the inference process was not ready after {READY_TIMEOUT_S:.0f} s")

    def check(self) -> None:
        """Raises `SafetyStop` when the process is gone."""
        code = self.process.poll()
        if code is not None:
            raise SafetyStop(f"the inference process ended by itself (exit {code}); the arm stops")

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Session:
    """A run, step by step; `close` leaves nothing running and the drive off."""

    def __init__(
        self,
        bundle: Bundle,
        arm: ArmProfile,
        transport: Transport,
        settings: SessionSettings,
        tell: Callable[[str], None],
        log: RunLog | None = None,
    ) -> None:
        self.bundle, self.arm, self.settings, self.tell, self.log = bundle, arm, settings, tell, log
        number = secrets.randbelow(0xFFFF) + 1
        self.client = open_client(transport, time.monotonic_ns, number, time.sleep, log.journal if log else None)
        self.transport = transport
        self.inference: InferenceProcess | None = None
        self.armed = False
        self.stop_asked = False
        self.progress_s = 0.0

    def run(self) -> RunOutcome:
        """From start to standstill. Raises `InputError` or `BridgeError` while nothing has moved yet."""
        line = self.settings.line
        load = line_load(self.bundle, self.arm, self.settings.execute_steps, line) if line else None
        if load is not None:
            load.check()
        self.inference = InferenceProcess(self.bundle, self.arm, self.settings.inference)
        caps = self.client.connect(self.arm.name, self.arm.hash32, self.arm.dof)
        self.client.set_limits(wire_limits(self.arm.operating))
        self.tell(f"device '{self.arm.name}', firmware {caps.firmware:08x}; synchronising clocks")
        self.client.synchronise_clock()
        status = self.inference.wait_ready(self.tell, self._keep_line_empty)
        self.tell(f"first inference {status.cold_ns / 1e6:.0f} ms, warm {status.warm_ns / 1e6:.0f} ms")
        embodiment = self.bundle.embodiment(self.arm.embodiment)
        settings = ControlSettings(self.settings.execute_steps, lead_us(caps.min_lead_us, load))
        journal = self.log.journal if self.log else None
        recorder = open_recorder(round(STATE_RATE_HZ * (self.settings.duration_s + 10)), self.arm.dof, journal)
        controller = Controller(
            self.client,
            tapped_planner(self.inference.planner, journal),
            self.arm,
            self.bundle.manifest.policy,
            embodiment.step_s,
            settings,
            recorder,
        )
        controller.delay.add(status.warm_ns // 1000)
        if journal is not None:
            journal.put(Kind.CONTROLLER, pack_controller(controller, embodiment.step_s, status.warm_ns // 1000))
        self._check_delay(controller)
        gc.collect()  # a collection takes longer than a heartbeat may stay away
        gc.freeze()
        gc.disable()
        self._arm(self.client.wait_for_state())
        return self._control(controller, status)

    def _keep_line_empty(self) -> None:
        """Reports that nobody reads would fill the line, and the next one to be read would be an old one."""
        self.client.poll(time.monotonic_ns())
        time.sleep(0.01)

    def _check_delay(self, controller: Controller) -> None:
        shape, steps = self.bundle.manifest.policy, controller.delay.steps
        most = min(shape.max_delay, shape.horizon - self.settings.execute_steps)
        if steps > most:
            raise InputError(
                f"inference takes {steps} steps of {controller.timeline.step_us // 1000} ms and this bundle "
                f"allows {most}; use a faster engine, fewer flow steps or a smaller --execute"
            )

    def _arm(self, state: StateReport) -> None:
        if state.state in (DeviceState.FAULT, DeviceState.ESTOP):
            raise SafetyStop(
                f"the device is in {stop_text(state.state, state.reason)}; find the cause and clear it first"
            )
        self.client.arm(state.measured_urad, loop_tick=1)
        self.armed = True

    def _control(self, controller: Controller, status: PlannerStatus) -> RunOutcome:
        assert self.inference is not None
        loop = FixedStep(round(1e9 / self.settings.rate_hz), time.monotonic_ns, time.sleep)
        began_ns = now_ns = time.monotonic_ns()
        next_check_ns = began_ns
        beats = SharedPlanner(self.inference.records)  # one that reads for the log only: a status is handed out once
        ended, error = "duration", None
        previous = {number: signal.signal(number, self._on_interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            while now_ns - began_ns < self.settings.duration_s * 1e9 and not self.stop_asked:
                now_ns = loop.wait()
                if self.log is not None:
                    self.log.loop(loop)
                controller.step(now_ns, loop.ticks + 1)
                if now_ns >= next_check_ns:
                    self.inference.check()
                    if self.log is not None:
                        self.log.beat(beats.status())
                    next_check_ns = now_ns + CHILD_CHECK_NS
                self.progress_s = (now_ns - began_ns) / 1e9
                self.client.keep_clock(now_ns, loop.slack_s())
            ended = "user" if self.stop_asked else ended
        except (SafetyStop, LinkLost) as stop:
            ended, error = "safety stop", str(stop)
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        moved_s = (now_ns - began_ns) / 1e9
        if self.log is not None:
            self.log.control_ended(ended, error)
        error = "; ".join(part for part in (error, self._stop()) if part) or None
        return RunOutcome(
            ended="safety stop" if error else ended,
            error=error,
            counters=controller.counters,
            samples=controller.recorder.samples(),
            planner=status,
            lateness=loop,
            clock_uncertainty_us=self.client.link.clock.uncertainty_us,
            clock_drift_ppm=self.client.link.clock.drift * 1e6,
            moved_s=moved_s,
            sent_bytes=self.client.link.sent_bytes,
            resent_chunks=self.client.resent,
            bad_frames=self.client.link.bad_frames,
        )

    def _stop(self) -> str | None:
        """Controlled stop, then drive off. Returns what went wrong, None when all is well."""
        try:
            self.client.stop()
            deadline = time.monotonic() + STOP_TIMEOUT_S
            while time.monotonic() < deadline:
                state = self.client.wait_for_state()
                if state.state in (DeviceState.HOLD, DeviceState.IDLE):
                    if state.state == DeviceState.HOLD:
                        self.client.disarm()
                    self.armed = False
                    return None
                if state.state in (DeviceState.FAULT, DeviceState.ESTOP):
                    self.armed = False
                    return f"the device is in {stop_text(state.state, state.reason)}"
        except BridgeError as failure:
            return f"{failure}; the device stops by itself when its heartbeat is missing"
        return "the arm did not come to rest"

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        self.stop_asked = True

    def pids(self) -> dict[str, int]:
        """Process ids, for those who want to look."""
        pids = {"control": os.getpid()}
        if self.inference is not None:
            pids["inference"] = self.inference.process.pid
        return pids

    def close(self) -> None:
        """Ends the inference process, stops the arm if it still moves, closes the line."""
        gc.enable()
        if self.armed:
            self._stop()
        if self.inference is not None:
            self.inference.close()
        self.transport.close()
