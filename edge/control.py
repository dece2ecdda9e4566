"""The control loop's decisions: when to ask for a chunk, where to join it, when to refuse it, when to stop.

Time, device and inference come in from outside, so the same code runs on a robot, in a lockstep simulation and on a
fake clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge.arms import ArmProfile
from edge.bundle import PolicyShape
from edge.chunks import DelayEstimate, Timeline, soft_start
from edge.errors import SafetyStop
from edge.history import HistoryRing
from edge.planning import Outcome, Planner, PlanRequest, PlanResult
from edge.safety.checks import check_finite, check_knots
from edge.telemetry.recorder import Recorder
from edge.trajectory import MICRO, Knots, segment_accelerations, spline_velocities
from firmware_bridge.client import DeviceClient, Inbox, KnotChunk, refusal_text, stop_text
from firmware_bridge.clock_sync import WRAP_US
from firmware_bridge.codes import DeviceState, StopReason
from firmware_bridge.errors import LinkLost
from firmware_bridge.messages import StateReport

HEARTBEAT_NS = 10_000_000
MAX_REFUSALS = 5
"""Refusals in a row after which the run ends: the policy wants what the arm must not do."""
PUNCTUAL_US = 25_000
"""A request is made this soon after its step began, or waits for the next step: the frames belong to the step."""
MEASURED_KEPT = 64
CHUNK_IDS = 0xFFFF

CURES = {
    StopReason.HEARTBEAT_LOST: "the host was silent for over 100 ms; free its CPU or lower --rate",
    StopReason.BUFFER_EMPTY: "no new chunk came in time; inference is too slow or has stopped",
    StopReason.TRACKING_LOST: "the plan could not be followed within the limits",
    StopReason.TICK_LATE: "the device missed its own 1 kHz tick",
    StopReason.FEEDBACK_LOST: "the drive reports no position",
    StopReason.FOLLOWING_ERROR: "the arm does not follow; look for a collision or a payload",
    StopReason.HOST_ESTOP: "emergency stop",
    StopReason.RATE_WINDOW: "the device's ticks came too fast; its clock or timer is broken",
}


@dataclass(frozen=True)
class ControlSettings:
    """`execute_steps` steps are executed of each chunk before the next is asked for; a chunk must reach the device
    `lead_us` before its first new knot."""

    execute_steps: int
    lead_us: int


@dataclass
class Counters:
    """What happened, for the report."""

    requests: int = 0
    chunks: int = 0
    late: int = 0
    refused: list[str] = field(default_factory=list)
    latency_us: list[int] = field(default_factory=list)
    engine_us: list[tuple[int, int, int, int]] = field(default_factory=list)
    delays: list[int] = field(default_factory=list)
    splice_acceleration: list[float] = field(default_factory=list)
    least_buffer_ms: float = float("inf")
    interventions: int = 0
    interventions_before: int | None = None
    device_refusals: int = 0
    committed_ids: list[int] = field(default_factory=list)


class Controller:
    """One run's control, from the armed device to the stop. `step` never waits."""

    def __init__(
        self,
        client: DeviceClient,
        planner: Planner,
        arm: ArmProfile,
        shape: PolicyShape,
        step_s: float,
        settings: ControlSettings,
        recorder: Recorder,
    ) -> None:
        self.client, self.planner, self.arm, self.shape = client, planner, arm, shape
        self.settings, self.recorder = settings, recorder
        self.counters = Counters()
        self.timeline = Timeline(round(step_s / MICRO), arm.dof)
        self.delay = DelayEstimate(self.timeline.step_us, settings.lead_us)
        self.history = HistoryRing(shape.history, arm.dof)
        self.last_state: StateReport | None = None
        self._asked: PlanRequest | None = None
        self._proposed: Knots | None = None
        self._next_request_step = 0
        self._recorded_step = 0
        self._refusals_in_row = 0
        self._next_heartbeat_ns = 0
        self._measured_us = np.zeros(MEASURED_KEPT, dtype=np.int64)
        self._measured = np.zeros((MEASURED_KEPT, arm.dof))
        self._measured_count = 0
        for knots in range(2, shape.horizon + 2):  # each length of chunk once, before the arm depends on it
            spline_velocities(np.zeros((knots, arm.dof)), step_s, np.zeros(arm.dof))

    def step(self, now_ns: int, loop_tick: int) -> None:
        """One control step. Raises `SafetyStop` or `LinkLost`; the arm is then stopping or has stopped."""
        self.recorder.begin_step(now_ns, loop_tick)
        try:
            self._step(now_ns, loop_tick)
        except (SafetyStop, LinkLost) as stop:
            self.recorder.decide("stop", reason=str(stop))
            raise

    def _step(self, now_ns: int, loop_tick: int) -> None:
        inbox = self.client.poll(now_ns)
        self.client.check_alive(now_ns)
        if now_ns >= self._next_heartbeat_ns:
            self.client.heartbeat(loop_tick)
            self._next_heartbeat_ns = now_ns + HEARTBEAT_NS
        now_us = self.client.link.clock.device_us(now_ns)
        self._observe(inbox)
        self._take_answers(inbox)
        self._remember_steps(now_us)
        result = self.planner.result()
        if result is not None:
            self._take_chunk(result, now_ns, now_us)
        self._ask(now_ns, now_us)

    # The device ------------------------------------------------------------------------------------------------------

    def _observe(self, inbox: Inbox) -> None:
        for event in inbox.events:
            self._check_state(event.state, event.reason)
        report = inbox.state
        if report is None:
            return
        self._check_state(report.state, report.reason)
        if self.last_state is None:
            self.history.rest(MICRO * np.array(report.measured_urad))
        self.last_state = report
        device_us = self.client.link.clock.unwrap(report.device_us)
        row = self._measured_count % MEASURED_KEPT
        self._measured_us[row] = device_us
        self._measured[row] = report.measured_urad
        self._measured_count += 1
        self.recorder.sample(device_us, report.commanded_urad, report.measured_urad, report.buffered_ms, report.state)
        counters = self.counters
        if counters.interventions_before is None:
            counters.interventions_before = report.interventions
        counters.interventions = report.interventions - counters.interventions_before
        if report.state == DeviceState.STREAMING:
            counters.least_buffer_ms = min(counters.least_buffer_ms, report.buffered_ms)

    def _check_state(self, state: int, reason: int) -> None:
        if state not in (DeviceState.ARMED, DeviceState.STREAMING):
            cure = CURES.get(StopReason(reason)) if reason in set(StopReason) else None
            raise SafetyStop(f"the device stopped the arm: {stop_text(state, reason)}" + (f"; {cure}" if cure else ""))

    def _take_answers(self, inbox: Inbox) -> None:
        for chunk in inbox.committed:
            self.counters.committed_ids.append(chunk)
            if self._proposed is not None:
                self._record_splice(self._proposed)
                self.timeline.accept(self._proposed)
                self._proposed = None
                self._refusals_in_row = 0
        for chunk, nak in inbox.refused:
            self._proposed = None
            self.counters.device_refusals += 1
            self._refuse(f"chunk {chunk} by the device: {refusal_text(nak)}")

    def _record_splice(self, knots: Knots) -> None:
        splice = knots.first
        self.recorder.splice(self.timeline.due_us(splice))
        if splice >= self.timeline.last:
            return
        step_s = self.timeline.step_us * MICRO
        before = self.timeline.knots(splice, 2)
        old, _ = segment_accelerations(before.q_rad, before.dq_rad_s, step_s)
        new, _ = segment_accelerations(knots.q_rad[:2], knots.dq_rad_s[:2], step_s)
        self.counters.splice_acceleration.append(float(np.abs(new - old).max()))
        self.recorder.decide("splice", acceleration_jump_rad_s2=self.counters.splice_acceleration[-1])

    # History ---------------------------------------------------------------------------------------------------------

    def _remember_steps(self, now_us: float) -> None:
        if not self.timeline.begun:
            return
        step = min(self.timeline.step_at(now_us), self.timeline.last)
        while self._recorded_step < step:
            done = self._recorded_step
            state = self._measured_at(self.timeline.due_us(done))
            self.history.push(state, self.timeline.increments_rad(done, 1)[0])
            self._recorded_step += 1

    def _measured_at(self, device_us: int) -> NDArray[np.float64]:
        """Measured positions at a device time, between the two nearest reports, rad (J,)."""
        held = min(self._measured_count, MEASURED_KEPT)
        rows = np.arange(self._measured_count - held, self._measured_count) % MEASURED_KEPT
        times = self._measured_us[rows]
        positions = self._measured[rows] * MICRO
        return np.array([np.interp(device_us, times, positions[:, joint]) for joint in range(self.arm.dof)])

    # Chunks ----------------------------------------------------------------------------------------------------------

    def _ask(self, now_ns: int, now_us: float) -> None:
        if self._asked is not None or self._proposed is not None or self.last_state is None:
            return
        step, delay = 0, 0
        if self.timeline.begun:
            step = self.timeline.step_at(now_us)
            punctual = now_us - self.timeline.due_us(step) <= PUNCTUAL_US
            delay = min(self.delay.steps, self.shape.max_delay, self.timeline.last - step)
            if step < self._next_request_step or not punctual or delay < 1:
                return
        states = np.zeros((self.shape.history, self.arm.dof))
        actions = np.zeros((self.shape.history, self.arm.dof))
        mask = np.zeros(self.shape.history, dtype=np.bool_)
        self.history.read(states, actions, mask)
        self.counters.requests += 1
        prefix = self.timeline.increments_rad(step, delay) if delay else np.zeros((0, self.arm.dof))
        self._asked = PlanRequest(self.counters.requests, step, now_ns, states, actions, mask, prefix)
        self._next_request_step = step + self.settings.execute_steps
        self.planner.request(self._asked)

    def _take_chunk(self, result: PlanResult, now_ns: int, now_us: float) -> None:
        asked = self._asked
        if asked is None or result.id != asked.id:
            return
        self._asked = None
        if result.outcome is Outcome.FAILED:
            raise SafetyStop(f"inference failed: {result.message}")
        refusal = check_finite(result.increments_rad)
        if refusal is not None:
            raise SafetyStop(f"chunk {result.id} refused, {refusal}; check the checkpoint and the camera's image")
        latency_us = (now_ns - asked.sent_ns) // 1000
        self.delay.add(latency_us)
        counters = self.counters
        counters.chunks += 1
        counters.latency_us.append(latency_us)
        counters.engine_us.append(
            (result.camera_ns // 1000, result.history_ns // 1000, result.backbone_ns // 1000, result.decoder_ns // 1000)
        )
        delay = len(asked.prefix_rad)
        if self.timeline.begun and now_us + self.settings.lead_us > self.timeline.due_us(asked.step + delay):
            counters.late += 1
            self.recorder.decide("late", chunk=result.id, latency_us=latency_us, prefix_steps=delay)
            self._next_request_step = asked.step + 1
            return
        counters.delays.append(delay)
        self._propose(asked.step, delay, result, now_us)

    def _propose(self, step: int, delay: int, result: PlanResult, now_us: float) -> None:
        if not self.timeline.begun:
            assert self.last_state is not None  # nothing is asked for before the first report
            held = np.array(self.last_state.commanded_urad, dtype=np.int64)
            self.timeline.begin(round(now_us) + 2 * self.settings.lead_us, held)
        at_rest = self.timeline.last == 0
        increments_rad = soft_start(result.increments_rad) if at_rest else result.increments_rad
        knots = self.timeline.propose(step, delay, increments_rad)
        refusal = check_knots(knots, self.timeline.step_us * MICRO, self.arm.operating)
        if refusal is not None:
            self._refuse(f"chunk {result.id} by the host: {refusal}")
            return
        self._proposed = knots
        self.client.send_chunk(
            KnotChunk(
                id=(result.id - 1) % CHUNK_IDS + 1,
                start_us=self.timeline.due_us(knots.first) % WRAP_US,
                spacing_us=self.timeline.step_us,
                q_urad=tuple(tuple(row) for row in knots.q_urad.tolist()),
                dq_urad_s=tuple(tuple(row) for row in knots.dq_urad_s.tolist()),
            )
        )

    def _refuse(self, text: str) -> None:
        if self.timeline.last == 0:  # nothing has moved: begin again with the next chunk
            self.timeline.last = -1
        self.counters.refused.append(text)
        self.recorder.decide("refused", reason=text)
        self._refusals_in_row += 1
        self._next_request_step = 0
        if self._refusals_in_row >= MAX_REFUSALS:
            raise SafetyStop(f"{MAX_REFUSALS} chunks in a row were refused, the last: {text}")
