"""Host and device together, driven at random: every step must do what the table of states in PROTOCOL.md says."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge.log.trace import read_trace, violations
from firmware_bridge.client import DeviceClient
from firmware_bridge.codes import DeviceState, Refusal, StopReason
from firmware_bridge.errors import HandshakeError
from firmware_bridge.simulator import SimulatedFault
from tests.support import FRANKA, Rig, swing
from tests.support import chunk_from as chunk

S = DeviceState
MOVING = {S.ARMED, S.STREAMING, S.DECEL}
LATCHED = {S.FAULT, S.ESTOP}
SUCCESSORS = {
    S.IDLE: {S.ARMED, S.ESTOP, S.FAULT},
    S.ARMED: {S.STREAMING, S.DECEL, S.IDLE, S.FAULT, S.ESTOP},
    S.STREAMING: {S.ARMED, S.DECEL, S.FAULT, S.ESTOP},
    S.DECEL: {S.HOLD, S.FAULT, S.ESTOP},
    S.HOLD: {S.ARMED, S.IDLE, S.FAULT, S.ESTOP},
    S.FAULT: {S.IDLE, S.ESTOP},
    S.ESTOP: {S.IDLE},
}
"""Section 9 of PROTOCOL.md, from SILENT on."""


class Bridge(RuleBasedStateMachine):
    """Rules are what a host, an operator and a failing drive can do; invariants are what must hold whatever they do."""

    @initialize()
    def power_on(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.trace = Path(self.folder.name) / "trace.csv"
        self.rig = Rig(self.trace)
        self.rig.device.tick()
        self.session = 7
        self.latched_in = 0
        self.chunks = 0
        self.rig.client.connect("franka", FRANKA.hash32, 7)
        self.rig.client.synchronise_clock()
        self.seen = self.state

    def teardown(self) -> None:
        if hasattr(self, "rig"):
            self.rig.close()
            assert violations(read_trace(self.trace), FRANKA.limits, FRANKA.edges) == []
            self.folder.cleanup()

    @property
    def state(self) -> DeviceState:
        return self.rig.device.state

    @property
    def client(self) -> DeviceClient:
        return self.rig.client

    def attempt(self, command: str, allowed: set[DeviceState], otherwise: str = "wrong state") -> bool:
        """Runs a command that must be carried out in the states `allowed` and refused, without effect, in others."""
        before = self.state
        if before in allowed:
            getattr(self.client, command)()
            return True
        with pytest.raises(HandshakeError, match=otherwise):
            getattr(self.client, command)()
        return False

    def step(self, milliseconds: int, heartbeats: bool = True) -> None:
        """Time passes, one tick after the other, and every change of state must be one of the table."""
        self.rig.heartbeats = heartbeats
        for _ in range(milliseconds):
            self.rig.run(1)
            self.follow()

    def follow(self) -> None:
        now = self.state
        if now != self.seen:
            at_once = SUCCESSORS[S.DECEL] if S.DECEL in SUCCESSORS[self.seen] else set()  # from standstill, in one tick
            assert now in SUCCESSORS[self.seen] | at_once, f"{self.seen.name} -> {now.name}"
            if now in LATCHED and self.seen not in LATCHED:
                self.latched_in = self.session
            self.seen = now

    @rule(milliseconds=st.integers(1, 250), heartbeats=st.booleans())
    def time_passes(self, milliseconds: int, heartbeats: bool) -> None:
        self.step(milliseconds, heartbeats)

    @rule()
    def everything_settles(self) -> None:
        self.step(1500)
        assert self.state not in {S.STREAMING, S.DECEL}, "plans here end within a second"

    @rule()
    def arm(self) -> None:
        before = self.state
        measured = self.client.wait_for_state().measured_urad
        self.follow()
        before = self.state
        self.rig.loop_tick += 1
        if before in {S.IDLE, S.HOLD, S.ARMED}:
            self.client.arm(measured, self.rig.loop_tick)
            assert self.state == S.ARMED
        else:
            with pytest.raises(HandshakeError, match="wrong state"):
                self.client.arm(measured, self.rig.loop_tick)
        self.follow()

    @rule()
    def disarm(self) -> None:
        if self.attempt("disarm", {S.ARMED, S.HOLD, S.IDLE}):
            assert self.state == S.IDLE
        self.follow()

    @rule()
    def stop(self) -> None:
        before = self.state
        self.client.stop()
        expected = {S.ARMED: {S.DECEL, S.HOLD}, S.STREAMING: {S.DECEL, S.HOLD}, S.DECEL: {S.DECEL, S.HOLD}}
        assert self.state in expected.get(before, {before})
        self.seen = self.state if before in expected else self.seen

    @rule()
    def emergency_stop(self) -> None:
        before = self.state
        self.client.estop()
        self.rig.run(1)
        assert self.state == S.ESTOP
        if before not in LATCHED:
            self.latched_in = self.session
        if before != S.ESTOP:
            self.latched_in = self.session
        self.seen = S.ESTOP

    @rule()
    def clear(self) -> None:
        before = self.state
        if before in LATCHED and self.session != self.latched_in:
            try:
                self.client.clear()
                assert self.state == S.IDLE
            except HandshakeError as refused:
                assert "drive on" in str(refused) or "cause remains" in str(refused)
        else:
            self.attempt("clear", set(), "same session" if before in LATCHED else "wrong state")
        self.follow()

    @rule()
    def another_host(self) -> None:
        newcomer = self.rig.new_client(self.session + 1)
        if self.state in MOVING:
            with pytest.raises(HandshakeError, match="wrong state"):
                newcomer.connect("franka", FRANKA.hash32, 7)
        else:
            newcomer.connect("franka", FRANKA.hash32, 7)
            self.session += 1
            self.rig.client = newcomer
            newcomer.synchronise_clock()
        self.follow()

    @rule(knots=st.integers(3, 8), lead_us=st.sampled_from([21_000, 60_000]), sound=st.booleans())
    def chunk(self, knots: int, lead_us: int, sound: bool) -> None:
        """A short swing from where the device is told to be, at rest at both ends; an unsound one jumps."""
        self.chunks += 1
        before, device = self.state, self.rig.device
        here = np.array(self.client.wait_for_state().commanded_urad) * 1e-6
        self.follow()
        before = self.state
        wave = swing(self.chunks, 0, knots=knots, amplitude=0.05, around=here)
        q = np.array(wave.q_urad) * 1e-6 + (0.0 if sound else 0.01)
        dq = np.array(wave.dq_urad_s) * 1e-6
        q, dq = np.vstack([q, q[::-1]]), np.vstack([dq, -dq[::-1]])
        dq[knots - 1 : knots + 1] = 0.0
        answer = self.rig.commit(chunk(self.chunks, device.now_us + lead_us, q, dq, 40_000))
        self.follow()
        if before not in {S.ARMED, S.STREAMING}:
            assert answer is not None and answer.refusal == Refusal.WRONG_STATE
        elif before == S.ARMED and sound:
            assert answer is None or answer.refusal in {Refusal.ACCELERATION, Refusal.SPLICE_POSITION}
        elif not sound:
            assert answer is not None

    @precondition(lambda self: self.state not in LATCHED)
    @rule(fault=st.sampled_from([SimulatedFault.FEEDBACK_LOST, SimulatedFault.FEEDBACK_NAN, SimulatedFault.OFFSET_RAD]))
    def the_drive_fails_for_a_moment(self, fault: SimulatedFault) -> None:
        driven = self.state in MOVING | {S.HOLD}
        self.rig.device.fault(fault, 0.3)
        self.step(2)
        self.rig.device.fault(fault, 0.0)
        if driven:
            assert self.state == S.FAULT
            reason = self.rig.state().reason
            assert reason in {StopReason.FEEDBACK_LOST, StopReason.FOLLOWING_ERROR}

    @invariant()
    def what_the_host_hears_is_what_the_device_is(self) -> None:
        if hasattr(self, "rig"):
            self.rig.heartbeats = True
            self.client.poll(self.rig.device.now_us * 1000)  # what lay in the line
            heard = 0
            for _ in range(10):
                report = self.rig.run(1).state
                self.follow()
                heard += report is not None
                assert report is None or report.state == self.state
            assert heard == 1


TestBridge = Bridge.TestCase
TestBridge.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
