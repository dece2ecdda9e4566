"""The control loop: connects device, planner and recorder to the decisions about requests, plans and motion.

`Replanner` decides when to request a chunk, `Splicer` what to do with it, `MotionMachine` what the arm is meant to do.
Time, device and inference come in from outside, so the same code runs on a robot, in a lockstep simulation and on a
fake clock.
"""

from __future__ import annotations

import numpy as np

from edge.arms import ArmProfile
from edge.bundle import ChunkShape
from edge.errors import SafetyStop
from edge.inference.records import Outcome, Planner, PlanRequest, PlanResult
from edge.log.recorder import Recorder
from edge.plan.checks import ChunkRefusal, check_finite
from edge.plan.ensemble import Ensemble
from edge.plan.pace import splice_acceleration
from edge.plan.replanner import ControlSettings, Pending, Replanner
from edge.plan.splicer import Splicer
from edge.plan.start import far_from_start
from edge.plan.timeline import Timeline
from edge.plan.trajectory import FloatArray, Knots, from_micro, spline_velocities
from edge.policy.history import StepHistory
from edge.run.counters import Counters, PaceChange, Slow
from edge.run.motion import DeviceReport, Event, Motion, MotionMachine
from edge.run.plausible import ReportJudge, check_states
from firmware_bridge.client import DeviceClient, Inbox, KnotChunk, refusal_text
from firmware_bridge.clock_sync import WRAP_US
from firmware_bridge.codes import DeviceState
from firmware_bridge.errors import LinkLost
from firmware_bridge.messages import StateReport

HEARTBEAT_NS = 10_000_000
RESEND_NS = 20_000_000
CHUNK_IDS = 0xFFFF
NEARER = "bring the arm nearer by hand or with --to-home, or let it go there slowly with --approach"
PAUSED_AT_REST_NS = 5_000_000_000
"""A pause this long before the arm has moved ends the run; once it moves, the end of the buffer does."""


class Controller:
    """One run's control, from the armed device to the stop. `step` never waits.

    `latency_us` is the first latency to expect, measured by whoever warmed the planner up.
    """

    def __init__(
        self,
        client: DeviceClient,
        planner: Planner,
        arm: ArmProfile,
        shape: ChunkShape,
        step_s: float,
        settings: ControlSettings,
        recorder: Recorder,
        latency_us: int = 0,
    ) -> None:
        self.client, self.arm, self.shape = client, arm, shape
        self.settings, self.recorder, self.step_s = settings, recorder, step_s
        self.counters = Counters()
        self._planner = planner
        self._machine = MotionMachine(settings.may_starve)
        self._judge = ReportJudge(arm)
        self.splicer = Splicer(arm, step_s, settings.lead_us)
        self.replanner = Replanner(shape, settings, self.timeline.step_us, latency_us)
        self._history = StepHistory(shape.history, arm.dof)
        self._ensemble = Ensemble(settings.ensemble)
        self._nothing = np.zeros((0, arm.dof))
        self._last_state: StateReport | None = None
        self._slow = Slow.LATENCY  # the reason, if the knots sent last are slower than those before
        self._chunk_id = 0
        self._next_heartbeat_ns = 0
        self._next_resend_ns = 0
        for knots in range(2, shape.horizon + 2):  # each length of chunk once, before the arm depends on it
            spline_velocities(np.zeros((knots, arm.dof)), step_s, np.zeros(arm.dof))

    @property
    def motion(self) -> Motion:
        """What the arm is meant to do."""
        return self._machine.motion

    @property
    def timeline(self) -> Timeline:
        """What is committed."""
        return self.splicer.timeline

    @property
    def last_state(self) -> StateReport | None:
        """The device's newest report."""
        return self._last_state

    @property
    def planner(self) -> Planner:
        """What answers the requests."""
        return self._planner

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
        self._observe(inbox, now_ns)
        self._take_answers(inbox)
        self._history.advance(self.timeline, now_us)
        if self.splicer.can_send(now_us):
            self._take_result(now_ns, now_us)
        if self.motion is Motion.RUNNING:
            self._stretch_for_late_inference(now_ns, now_us)
            self._request(now_ns, now_us)
        elif now_ns >= self._next_resend_ns:
            self._resend_command()
            self._next_resend_ns = now_ns + RESEND_NS

    # Commands of the operator and the supervisor ---------------------------------------------------------------------

    def plan_with(self, planner: Planner) -> None:
        """Takes another source of chunks, from the next request on."""
        self._planner = planner

    def expect(self, latency_us: int) -> None:
        """Takes a latency that was measured elsewhere: by an inference process that has just been warmed up."""
        self.recorder.call("expect", latency_us)
        self.replanner.latency.add(latency_us)

    def replan_every(self, steps: int) -> None:
        """Requests the next chunk after so many steps of each, from the next one on."""
        self.recorder.call("replan_every", steps)
        self.replanner.replan_every(steps)

    def run_out(self, reason: str) -> None:
        """Requests no more chunks: the arm executes what is committed, and comes to rest under the device's control."""
        self.recorder.call("run_out", reason)
        if self._machine.update(Event.RUN_OUT):
            self.replanner.abandon()

    def pause(self) -> None:
        """A controlled stop; the run goes on, at rest."""
        self.recorder.call("pause")
        if self._machine.update(Event.PAUSE):
            self.replanner.abandon()

    def resume(self) -> None:
        """Starts again from rest, as if the run began here. For an operator's command alone."""
        self.recorder.call("resume")
        if self._machine.update(Event.RESUME):
            self.splicer.restart()
            self._ensemble.clear()
            self.replanner.request_from(0)

    def _resend_command(self) -> None:
        """Sends STOP or ARM, which are idempotent, until the device's state confirms it."""
        rests = self._last_state is not None and self._last_state.state == DeviceState.ARMED and self.splicer.is_over
        runs_dry = self.motion is Motion.ENDING and (self.timeline.last < 1 or rests)
        if self.motion is Motion.STOPPING or runs_dry:
            self.client.send_stop()
        elif self.motion is Motion.RESUMING and self._last_state is not None:
            self._history.rest(self._last_state.measured_urad)
            self.client.send_arm(self._last_state.measured_urad)

    # The device ------------------------------------------------------------------------------------------------------

    def _observe(self, inbox: Inbox, now_ns: int) -> None:
        check_states(inbox.states)
        for state, reason in inbox.states:
            self._machine.update(DeviceReport(state, reason, self.counters.pauses.reason))
        report = inbox.state
        if report is None:
            return
        if self._last_state is None:
            self._history.rest(report.measured_urad)
        link = self.client.link
        device_us = link.clock.unwrap(report.device_us)
        self._judge.check(report, device_us, link.clock, now_ns, link.sequence_jumps)
        self._last_state = report
        self.splicer.reported(device_us)
        self._history.observe(device_us, report.measured_urad)
        self.recorder.sample(device_us, report.commanded_urad, report.measured_urad, report.buffered_ms, report.state)
        self.counters.reported(report)

    def _take_answers(self, inbox: Inbox) -> None:
        for nak in inbox.naks:
            if self.motion is Motion.RESUMING:
                raise SafetyStop(f"the device does not resume: {refusal_text(nak)}")
        for chunk in inbox.committed:
            self.counters.committed_ids.append(chunk)
            if self.splicer.proposed is not None:
                self._record_splice(self.splicer.proposed)
            self.splicer.accept()
        for chunk, nak in inbox.refused:
            self.splicer.discard()
            if self.motion is Motion.RUNNING:
                self.counters.device_refusals += 1
                self._refuse(f"chunk {chunk} by the device: {refusal_text(nak)}")

    def _record_splice(self, knots: Knots) -> None:
        timeline, counters = self.timeline, self.counters
        due_us = timeline.due_us(knots.first)
        self.recorder.splice(due_us)
        if knots.spacing_us != timeline.spacing_us(timeline.last):
            change = PaceChange(due_us, knots.spacing_us, self.replanner.latency.largest_us, self._slow)
            counters.pace_changes.append(change)
            self.recorder.decide("pace", spacing_us=change.spacing_us, latency_us=change.latency_us)
        if knots.first < timeline.last:
            counters.splice_acceleration.append(splice_acceleration(timeline, knots))
            self.recorder.decide("splice", acceleration_jump_rad_s2=counters.splice_acceleration[-1])

    # Chunks ----------------------------------------------------------------------------------------------------------

    def _request(self, now_ns: int, now_us: float) -> None:
        if self.splicer.proposed is not None or self._last_state is None:
            return
        due = self.replanner.due(self.timeline, now_ns, now_us)
        if due is None:
            return
        step, delay = due
        prefix = self.timeline.increments_rad(step, delay) if delay else self._nothing
        self.counters.requests += 1
        self.replanner.requested(Pending(self.counters.requests, step, delay, now_ns), self.timeline)
        history, positions = self._history.read(), self._positions(step)
        self._planner.request(PlanRequest(self.counters.requests, step, now_ns, *history, prefix, *positions))

    def _positions(self, step: int) -> tuple[FloatArray, FloatArray]:
        """Measured now and at the steps before; commanded at the beginning of `step` and of all that follow it. Neither
        for a policy that goes on from increments alone."""
        if not self.shape.measured:
            return self._nothing, self._nothing
        return self._history.measured_rad(self.shape.measured, self.timeline.step_us), self.commanded_rad(step)

    def commanded_rad(self, step: int) -> FloatArray:
        """Commanded positions (n, J) at the beginning of `step` and at the ends of all that are planned from it on."""
        timeline = self.timeline
        if timeline.begun:
            commanded = timeline.knots(step, min(timeline.last - step, self.shape.horizon) + 1).q_urad
        else:
            assert self._last_state is not None  # nothing is requested before the first report
            commanded = np.array([self._last_state.commanded_urad])
        return from_micro(commanded)

    def _stretch_for_late_inference(self, now_ns: int, now_us: float) -> None:
        """Makes the plan last until the chunk that is pending."""
        pending = self.replanner.pending
        if pending is None:
            return
        waited_us = self.replanner.waited_us(now_ns)
        expected_us = self.replanner.expected_us(waited_us)
        knots = self.splicer.stretch_for_late_inference(pending.splice, waited_us, expected_us, now_us)
        if knots is not None:
            self.counters.retimed += 1
            self._slow = Slow.LATE if self.counters.pauses.reason is None else Slow.PAUSED
            self._send(knots)

    def _take_result(self, now_ns: int, now_us: float) -> None:
        result = self._planner.result()
        pending = self.replanner.answered(result.id) if result is not None else None
        if result is None or pending is None:
            return
        if result.outcome is Outcome.FAILED:
            raise SafetyStop(f"inference failed: {result.message}")
        if result.outcome is Outcome.PAUSED:
            self._pause_policy(pending, result.message, now_ns)
            return
        self._take_chunk(pending, result, now_ns, now_us)

    def _pause_policy(self, pending: Pending, reason: str, now_ns: int) -> None:
        """No chunk for now: the plan in force runs on, and the next step requests again."""
        pauses, begun = self.counters.pauses, self.timeline.begun
        pauses.pause(reason, now_ns)
        self.recorder.decide("paused", reason=reason)
        self.replanner.retry(pending, now_ns if begun else now_ns + 1000 * self.timeline.step_us)
        if not (begun or self.settings.may_starve) and pauses.lasted_ns(now_ns) > PAUSED_AT_REST_NS:
            raise SafetyStop(f"the policy was paused before the arm moved: {reason}")

    def _take_chunk(self, pending: Pending, result: PlanResult, now_ns: int, now_us: float) -> None:
        counters, latency_us = self.counters, (now_ns - pending.sent_ns) // 1000
        if result.outcome is Outcome.CHUNK:
            counters.pauses.resume(now_ns)
        refusal = check_finite(result.rows_rad)
        if refusal is not None:
            raise SafetyStop(f"chunk {result.id} refused, {refusal}; check the checkpoint and the camera's image")
        counters.chunks += 1
        if result.outcome is Outcome.CHUNK:
            self.replanner.latency.add(latency_us)
            counters.measured(pending.sent_ns, result, latency_us)
        if self.splicer.too_late(pending.splice, now_us):
            counters.late += 1
            self.recorder.decide("late", chunk=result.id, latency_us=latency_us, prefix_steps=pending.delay)
            self.replanner.retry(pending)
            return
        counters.delays.append(pending.delay)
        assert self._last_state is not None  # nothing is requested before the first report
        held_urad, spacing_us = self._last_state.commanded_urad, self.replanner.spacing_us
        at = (pending.step, pending.delay)
        if len(result.goals_rad):
            knots = self._knots_for_goals(at, result, held_urad, spacing_us, now_us)
        else:
            knots = self.splicer.propose(*at, result.increments_rad, held_urad, spacing_us, now_us)
            if isinstance(knots, Knots) and self.splicer.moved_rad > 0.0:
                self.recorder.decide("shaped", deviation_rms_rad=self.splicer.moved_rad, clamped=0, slowed=1.0)
        if isinstance(knots, ChunkRefusal):
            self._refuse(f"chunk {result.id} by the host: {knots}")
        else:
            self._slow = Slow.GOALS if self.replanner.waits_for_goals else Slow.LATENCY
            self._send(knots)

    def _knots_for_goals(
        self, at: tuple[int, int], result: PlanResult, held_urad: tuple[int, ...], spacing_us: int, now_us: float
    ) -> Knots | ChunkRefusal:
        """Knots for the goals of a chunk, `at` its step and delay. Raises `SafetyStop` when they begin far away."""
        if not self.timeline.begun:
            assert self._last_state is not None  # nothing is requested before the first report
            far = far_from_start(result.goals_rad[0], from_micro(self._last_state.measured_urad), self.arm)
            if far is not None:
                raise SafetyStop(f"{far}; {NEARER}")
        goals_rad = self._ensemble.with_newest(at[0], result.goals_rad)
        chunk = self.splicer.propose_goals(*at, goals_rad, held_urad, spacing_us, now_us)
        if isinstance(chunk, ChunkRefusal):
            return chunk
        self._ensemble.joined(at[0], result.goals_rad)
        self.counters.goals.add(chunk)
        self.replanner.slowed_by_goals(chunk.knots.spacing_us if chunk.slowed > 1.0 else 0)
        if chunk.changed or chunk.clamped:
            rms = float(chunk.deviation.rms_rad.max())
            self.recorder.decide("shaped", deviation_rms_rad=rms, clamped=chunk.clamped, slowed=chunk.slowed)
        return chunk.knots

    def _send(self, knots: Knots) -> None:
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
        self.counters.refused.append(text)
        self.recorder.decide("refused", reason=text)
        self.replanner.request_from(0)
        self.splicer.refused(text)
