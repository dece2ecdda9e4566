"""The control loop's decisions: when to ask for a chunk, where to join it, when to refuse it, when to stop.

Time, device and inference come in from outside, so the same code runs on a robot, in a lockstep simulation and on a
fake clock.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge.arms import ArmProfile
from edge.bundle import PolicyShape
from edge.errors import SafetyStop
from edge.inference.records import Outcome, Planner, PlanRequest, PlanResult
from edge.log.recorder import Recorder
from edge.plan.checks import check_finite, check_knots
from edge.plan.gripper import within_travel
from edge.plan.pace import Pace, gentle, splice_acceleration, stretched
from edge.plan.timeline import LatencyEstimate, Timeline, soft_start
from edge.plan.trajectory import Knots, from_micro, spline_velocities
from edge.policy.history import HistoryRing, MeasuredTrack
from edge.run.counters import Counters, PaceChange
from edge.run.motion import Motion, after_report
from firmware_bridge.client import DeviceClient, Inbox, KnotChunk, refusal_text
from firmware_bridge.clock_sync import WRAP_US
from firmware_bridge.codes import MICRO, DeviceState
from firmware_bridge.errors import LinkLost
from firmware_bridge.messages import StateReport

HEARTBEAT_NS = 10_000_000
WORD_NS = 20_000_000
COMMIT_MARGIN_US = 5_000
"""What sending a chunk and hearing of its commit may take beyond the lead."""
MAX_REFUSALS = 5
"""Refusals in a row after which the run ends: the policy wants what the arm must not do."""
PUNCTUAL = 0.25
"""A request is made within this share of its step, or waits for the next step: the frames belong to the step."""
OVERDUE = 1.25
"""An answer that takes longer than any before it is expected to take this many times what it has taken so far."""
SPARE_STEPS = 3
"""What should be left of a plan, in trained steps, when the next one is joined to it."""
CHUNK_IDS = 0xFFFF
PAUSED_AT_REST_NS = 5_000_000_000
"""A pause this long before the arm has moved ends the run; once it moves, the end of the buffer does."""


@dataclass(frozen=True)
class ControlSettings:
    """`execute_steps` steps are executed of each chunk before the next is asked for; a chunk must reach the device
    `lead_us` before its first new knot. With `may_starve` a plan that runs out leaves the arm held and the run waiting.
    """

    execute_steps: int
    lead_us: int
    may_starve: bool = False


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
        self.settings, self.recorder, self.step_s = settings, recorder, step_s
        self.counters = Counters()
        self.motion = Motion.RUNNING
        self.timeline = Timeline(round(step_s / MICRO), arm.dof)
        self.latency = LatencyEstimate(settings.lead_us)
        self.pace = Pace(self.timeline.step_us)
        self.history = HistoryRing(shape.history, arm.dof)
        self.last_state: StateReport | None = None
        self._asked: PlanRequest | None = None
        self._answer_period_us = 0
        self._proposed: Knots | None = None
        self._told_us = 0
        self._chunk_id = 0
        self._next_request_step = 0
        self._ask_from_ns = 0
        self._recorded_step = 0
        self._refusals_in_row = 0
        self._next_heartbeat_ns = 0
        self._next_word_ns = 0
        self._track = MeasuredTrack(arm.dof)
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
        if self._proposed is None and self._may_send(now_us):
            result = self.planner.result()
            if result is not None:
                self._take_chunk(result, now_ns, now_us)
        if self.motion is Motion.RUNNING:
            self._hold_out(now_ns, now_us)
            self._ask(now_ns, now_us)
        elif now_ns >= self._next_word_ns:
            self._say_again(loop_tick)
            self._next_word_ns = now_ns + WORD_NS

    # What the operator and the supervisor ask for --------------------------------------------------------------------

    @property
    def answer_period_us(self) -> int:
        """In which an answer was to be expected when it was asked for."""
        return self._answer_period_us

    def waited_us(self, now_ns: int) -> float:
        """How long inference has owed an answer; 0 when it owes none."""
        return 0.0 if self._asked is None else (now_ns - self._asked.sent_ns) / 1000

    def expect(self, latency_us: int) -> None:
        """Takes a latency that was measured elsewhere: by an inference process that has just been warmed up."""
        self.recorder.word("expect", latency_us)
        self.latency.add(latency_us)

    def run_out(self, reason: str) -> None:
        """Asks for no more chunks: the arm executes what is committed, and comes to rest under the device's control."""
        self.recorder.word("run_out", reason)
        if self.motion is Motion.RUNNING:
            self.motion = Motion.ENDING
            self._asked = None

    def pause(self) -> None:
        """Asks the device for a controlled stop; the run goes on, at rest."""
        self.recorder.word("pause")
        if self.motion in (Motion.RUNNING, Motion.ENDING):
            self.motion = Motion.STOPPING
            self._asked = None

    def resume(self) -> None:
        """Starts again from rest, as if the run began here. Only an operator may ask for this."""
        self.recorder.word("resume")
        if self.motion is not Motion.HELD:
            return
        self.motion = Motion.RESUMING
        self.timeline = Timeline(self.timeline.step_us, self.arm.dof)
        self._proposed = None
        self._next_request_step = self._recorded_step = self._refusals_in_row = 0

    def _say_again(self, loop_tick: int) -> None:
        """Words that the device takes any number of times; it answers with its state."""
        if self.motion is Motion.STOPPING or (self.motion is Motion.ENDING and self.timeline.last < 1):
            self.client.ask_stop()
        elif self.motion is Motion.RESUMING and self.last_state is not None:
            self.history.rest(from_micro(self.last_state.measured_urad))
            self.client.ask_arm(self.last_state.measured_urad)

    # The device ------------------------------------------------------------------------------------------------------

    def _may_send(self, now_us: float) -> bool:
        """Whether the last plan is under way, and the device holds no other that waits: by its own reports, since the
        host's estimate of its clock is ahead when that clock is slow."""
        return now_us >= self.timeline.splice_us and self._told_us >= self.timeline.splice_before_us

    def _observe(self, inbox: Inbox) -> None:
        report = inbox.state
        for state, reason in inbox.said:
            self.motion = after_report(
                self.motion, state, reason, self.settings.may_starve, self.counters.pauses.reason
            )
        if report is None:
            return
        if self.last_state is None:
            self.history.rest(from_micro(report.measured_urad))
        self.last_state = report
        self._told_us = device_us = self.client.link.clock.unwrap(report.device_us)
        self._track.add(device_us, report.measured_urad)
        self.recorder.sample(device_us, report.commanded_urad, report.measured_urad, report.buffered_ms, report.state)
        counters = self.counters
        if counters.interventions_before is None:
            counters.interventions_before = report.interventions
        counters.interventions = report.interventions - counters.interventions_before
        if report.state == DeviceState.STREAMING:
            counters.least_buffer_ms = min(counters.least_buffer_ms, report.buffered_ms)

    def _take_answers(self, inbox: Inbox) -> None:
        for nak in inbox.naks:
            if self.motion is Motion.RESUMING:
                raise SafetyStop(f"the device does not resume: {refusal_text(nak)}")
        for chunk in inbox.committed:
            self.counters.committed_ids.append(chunk)
            if self._proposed is not None:
                self._record_splice(self._proposed)
                self.timeline.accept(self._proposed)
                self._proposed = None
                self._refusals_in_row = 0
        for chunk, nak in inbox.refused:
            self._proposed = None
            if self.motion is Motion.RUNNING:
                self.counters.device_refusals += 1
                self._refuse(f"chunk {chunk} by the device: {refusal_text(nak)}")

    def _record_splice(self, knots: Knots) -> None:
        self.recorder.splice(self.timeline.due_us(knots.first))
        if knots.spacing_us != self._spacing_us():
            change = PaceChange(self.timeline.due_us(knots.first), knots.spacing_us, self.latency.largest_us)
            self.counters.pace_changes.append(change)
            self.recorder.decide("pace", spacing_us=change.spacing_us, latency_us=change.latency_us)
        if knots.first < self.timeline.last:
            self.counters.splice_acceleration.append(splice_acceleration(self.timeline, knots))
            self.recorder.decide("splice", acceleration_jump_rad_s2=self.counters.splice_acceleration[-1])

    def _spacing_us(self) -> int:
        """Of the plan in force, at its end."""
        return self.timeline.spacing_us(self.timeline.last)

    # History ---------------------------------------------------------------------------------------------------------

    def _remember_steps(self, now_us: float) -> None:
        if not self.timeline.begun:
            return
        step = self.timeline.step_at(now_us)
        while self._recorded_step < step:
            done = self._recorded_step
            state = self._track.at(self.timeline.due_us(done))
            self.history.push(state, self.timeline.increments_rad(done, 1)[0])
            self._recorded_step += 1

    # Chunks ----------------------------------------------------------------------------------------------------------

    def _ask(self, now_ns: int, now_us: float) -> None:
        if self._asked is not None or self._proposed is not None or self.last_state is None:
            return
        if now_ns < self._ask_from_ns:
            return
        step, delay = 0, 0
        if self.timeline.begun:
            step = self.timeline.step_at(now_us)
            if step < max(self._next_request_step, 0) or step >= self.timeline.last or not self._punctual(step, now_us):
                return
            ready_us = now_us + self.latency.needed_us
            latest = min(step + self.shape.max_delay, self.timeline.last)
            delay = max(1, min(self.timeline.first_due(ready_us), latest) - step)
        states = np.zeros((self.shape.history, self.arm.dof))
        actions = np.zeros((self.shape.history, self.arm.dof))
        mask = np.zeros(self.shape.history, dtype=np.bool_)
        self.history.read(states, actions, mask)
        self.counters.requests += 1
        prefix = self.timeline.increments_rad(step, delay) if delay else np.zeros((0, self.arm.dof))
        self._asked = PlanRequest(self.counters.requests, step, now_ns, states, actions, mask, prefix)
        slowed = self.timeline.begun and self._spacing_us() > self._wanted_us()
        self._next_request_step = step + (1 if slowed else self.settings.execute_steps)
        self._answer_period_us = max(self.settings.execute_steps * self._spacing_us(), self.latency.largest_us)
        self.planner.request(self._asked)

    def _punctual(self, step: int, now_us: float) -> bool:
        return now_us - self.timeline.due_us(step) <= PUNCTUAL * self.timeline.spacing_us(step)

    def _hold_out(self, now_ns: int, now_us: float) -> None:
        """While an answer is awaited: makes the plan last until it, or until the next one when it will be too late."""
        asked = self._asked
        if asked is None or self._proposed is not None or self.timeline.last < 1:
            return
        waited_us = self.waited_us(now_ns)
        overdue = waited_us > self.latency.largest_us
        whole_us = OVERDUE * waited_us + self.settings.lead_us if overdue else self.latency.needed_us
        ready_us = now_us - waited_us + whole_us
        splice, last = asked.step + len(asked.prefix_rad), self.timeline.last
        if now_us + self.settings.lead_us > self.timeline.due_us(splice):
            wanted = [(last, now_us + 2 * whole_us)] if self.timeline.buffered_us(now_us) < whole_us else []
        else:
            wanted = [(splice, ready_us), (last, ready_us + SPARE_STEPS * self.timeline.step_us)]
        for knot, by_us in wanted:
            if by_us > self.timeline.due_us(knot) and self._slow_down(knot, by_us, now_us):
                return

    def _slow_down(self, knot: int, by_us: float, now_us: float) -> bool:
        """Stretches the plan so that `knot` is due at `by_us`; False when nothing can be sent."""
        if not self._may_send(now_us):
            return False
        from_us = now_us + self.settings.lead_us + COMMIT_MARGIN_US
        knots = stretched(self.timeline, knot, by_us, from_us, self.arm.operating)
        if knots is None:
            return False
        self.counters.retimed += 1
        self._send(knots)
        return True

    def _take_chunk(self, result: PlanResult, now_ns: int, now_us: float) -> None:
        asked = self._asked
        if asked is None or result.id != asked.id:
            return
        self._asked = None
        if result.outcome is Outcome.FAILED:
            raise SafetyStop(f"inference failed: {result.message}")
        if result.outcome is Outcome.PAUSED:
            self._pause(asked, result.message, now_ns)
            return
        if result.outcome is Outcome.CHUNK:
            self.counters.pauses.resume(now_ns)
        refusal = check_finite(result.increments_rad)
        if refusal is not None:
            raise SafetyStop(f"chunk {result.id} refused, {refusal}; check the checkpoint and the camera's image")
        latency_us = (now_ns - asked.sent_ns) // 1000
        counters, delay = self.counters, len(asked.prefix_rad)
        counters.chunks += 1
        if result.outcome is Outcome.CHUNK:
            self.latency.add(latency_us)
            counters.measured(asked, result, latency_us)
        if self.timeline.begun and now_us + self.settings.lead_us > self.timeline.due_us(asked.step + delay):
            counters.late += 1
            self.recorder.decide("late", chunk=result.id, latency_us=latency_us, prefix_steps=delay)
            self._next_request_step = asked.step + 1
            return
        counters.delays.append(delay)
        self._propose(asked.step, delay, result, now_us)

    def _pause(self, asked: PlanRequest, reason: str, now_ns: int) -> None:
        """No chunk for now: the plan in force runs on, and the next step asks again."""
        pauses = self.counters.pauses
        pauses.pause(reason, now_ns)
        self.recorder.decide("paused", reason=reason)
        self._next_request_step = asked.step + 1
        self._ask_from_ns = now_ns if self.timeline.begun else now_ns + 1000 * self.timeline.step_us
        patient = self.timeline.begun or self.settings.may_starve
        if not patient and pauses.lasted_ns(now_ns) > PAUSED_AT_REST_NS:
            raise SafetyStop(f"the policy was paused before the arm moved: {reason}")

    def _propose(self, step: int, delay: int, result: PlanResult, now_us: float) -> None:
        if not self.timeline.begun:
            assert self.last_state is not None  # nothing is asked for before the first report
            held = np.array(self.last_state.commanded_urad, dtype=np.int64)
            self.timeline.begin(round(now_us) + 2 * self.settings.lead_us, held)
        at_rest = self.timeline.last == 0
        splice = step + delay
        at_rad, at_rad_s = from_micro(self.timeline.q_urad(splice)), from_micro(self.timeline.dq_urad_s(splice))
        increments_rad = within_travel(result.increments_rad, delay, at_rad, at_rad_s, self.arm, self.step_s)
        if at_rest:
            increments_rad = soft_start(increments_rad)
        pace_us = self._wanted_us() if at_rest else self._spacing_us()
        for spacing_us in self.pace.eased(pace_us, self._wanted_us()):
            knots = self.timeline.propose(step, delay, increments_rad, spacing_us)
            refusal = check_knots(knots, self.arm.operating)
            if refusal is None and (spacing_us == pace_us or gentle(self.timeline, knots)):
                self._send(knots)
                return
        self._refuse(f"chunk {result.id} by the host: {refusal}")

    def _wanted_us(self) -> int:
        """Spacing of steps that the expected latency asks for, when a request is as late in its step as it may be."""
        most = min(self.shape.max_delay, self.shape.horizon - self.settings.execute_steps)
        return self.pace.wanted_us(self.latency.needed_us, most - PUNCTUAL)

    def _send(self, knots: Knots) -> None:
        self._proposed = knots
        self._chunk_id = self._chunk_id % CHUNK_IDS + 1
        self.client.send_chunk(
            KnotChunk(
                id=self._chunk_id,
                start_us=self.timeline.due_us(knots.first) % WRAP_US,
                spacing_us=knots.spacing_us,
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
