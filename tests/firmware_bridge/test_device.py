"""The firmware's state machine, watchdogs and commit rules, through real frames on a lockstep device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge.log.trace import read_trace, violations
from edge.run.arm import wire_limits
from firmware_bridge.client import KnotChunk
from firmware_bridge.codes import MAGIC, DeviceState, Refusal, StateFlag, StopReason
from firmware_bridge.errors import HandshakeError
from firmware_bridge.framing import encode_frame
from firmware_bridge.messages import SCHEMA_HASH, Arm, Caps, Commit, Heartbeat, Hello, Limits, Nak, Stop
from firmware_bridge.simulator import SimulatedFault
from tests.support import FRANKA, HOME, Rig, chunk_from, swing


@pytest.fixture
def trace_file(tmp_path: Path) -> Path:
    return tmp_path / "trace.csv"


@pytest.fixture
def rig(trace_file: Path) -> Iterator[Rig]:
    rig = Rig(trace_file)
    yield rig
    rig.close()
    assert violations(read_trace(trace_file), FRANKA.limits, FRANKA.edges) == []


def test_caps_name_the_device(rig: Rig) -> None:
    rig.device.tick()
    caps = rig.client.connect("franka", FRANKA.hash32, 7)
    assert isinstance(caps, Caps)
    assert (caps.tick_us, caps.max_frame, caps.max_knots, caps.heartbeat_limit_us) == (1000, 512, 50, 100_000)


@pytest.mark.parametrize(
    ("arm", "profile", "joints", "message"),
    [
        ("panda", FRANKA.hash32, 7, "drives 'franka'"),
        ("franka", FRANKA.hash32 ^ 1, 7, "limits for 'franka' are not those"),
        ("franka", FRANKA.hash32, 6, "with 7 joints"),
    ],
)
def test_another_device_is_refused(rig: Rig, arm: str, profile: int, joints: int, message: str) -> None:
    rig.device.tick()
    with pytest.raises(HandshakeError, match=message):
        rig.client.connect(arm, profile, joints)


def test_firmware_of_another_schema_is_named_not_guessed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.device.tick()
    monkeypatch.setattr("firmware_bridge.client.SCHEMA_HASH", 0xABCDEF01)
    with pytest.raises(HandshakeError, match=r"speaks schema .* this host abcdef01"):
        rig.client.connect("franka", FRANKA.hash32, 7)


def test_limits_can_be_tightened_and_never_widened(rig: Rig) -> None:
    rig.device.tick()
    rig.client.connect("franka", FRANKA.hash32, 7)
    rig.client.set_limits(wire_limits(FRANKA.operating))
    for row in range(5):
        rows = [list(values) for values in wire_limits(FRANKA.limits).__dict__.values()]
        rows[row][3] += -5 if row == 0 else 5
        with pytest.raises(HandshakeError, match="wider than compiled, joint 4"):
            rig.client.set_limits(Limits(*(tuple(values) for values in rows)))


def test_arming_needs_a_heartbeat_and_the_right_pose(rig: Rig) -> None:
    rig.device.tick()
    rig.client.connect("franka", FRANKA.hash32, 7)
    pose = rig.client.wait_for_state().measured_urad

    rig.client.link.send(Arm(pose))
    rig.device.tick()
    assert rig.client.poll(0).naks[0].refusal == Refusal.HEARTBEAT_MISSING
    wrong = (pose[0], pose[1] + 30_000, *pose[2:])
    with pytest.raises(HandshakeError, match="pose mismatch, joint 2"):
        rig.client.arm(wrong, 1)
    assert rig.device.state == DeviceState.IDLE
    rig.client.arm(pose, 2)
    assert rig.device.state == DeviceState.ARMED


def test_a_committed_chunk_is_executed_at_its_time(rig: Rig, trace_file: Path) -> None:
    rig.armed()
    start_us = rig.device.now_us + 50_000
    assert rig.commit(swing(1, start_us)) is None
    rig.run(400)
    rig.device.flush()
    trace = read_trace(trace_file)
    row = int(np.searchsorted(trace.tick_us, start_us + 300_000))
    assert trace.chunk[row] == 1 and trace.state[row] == "STREAMING"
    assert trace.q[row] == pytest.approx(HOME + 0.2 * (1 - np.cos(0.6)), abs=1e-4)
    assert trace.limited.sum() == 0


def test_nothing_of_an_uncommitted_chunk_moves_the_arm(rig: Rig, trace_file: Path) -> None:
    rig.armed()
    chunk = swing(1, rig.device.now_us + 50_000)
    for message in chunk.messages()[:-1]:
        rig.client.link.send(message)
    rig.run(600)
    assert rig.device.state == DeviceState.ARMED
    rig.device.flush()
    trace = read_trace(trace_file)
    assert np.ptp(trace.q[trace.state == "ARMED"], axis=0).max() == 0.0


def test_a_missing_fragment_is_refused_with_the_knot(rig: Rig) -> None:
    rig.armed()
    chunk = swing(1, rig.device.now_us + 100_000, knots=20)
    fragments = chunk.messages()
    for message in (fragments[0], *fragments[2:]):
        sequence = rig.client.link.send(message)
    assert sequence
    naks = [nak for nak in _all_naks(rig) if nak.refusal == Refusal.KNOTS_MISSING]
    assert naks and naks[0].knot == fragments[0].count  # type: ignore[attr-defined]


def _all_naks(rig: Rig) -> list:

    return [message for message in rig.client.link.receive() if isinstance(message, Nak)]


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"crc": 1}, Refusal.CHUNK_CRC),
        ({"knots": 1}, Refusal.KNOT_COUNT),
        ({"knots": 51}, Refusal.KNOT_COUNT),
        ({"knots": 10}, Refusal.KNOT_COUNT),
        ({"knots": 12}, Refusal.KNOTS_MISSING),
        ({"spacing_us": 1000}, Refusal.KNOT_SPACING),
        ({"spacing_us": 2_000_000}, Refusal.KNOT_SPACING),
        ({"flags": 0}, Refusal.KNOT_COUNT),
        ({"chunk": 9}, Refusal.KNOTS_MISSING),
    ],
)
def test_a_commit_that_does_not_fit_its_chunk_is_refused(rig: Rig, change: dict[str, int], refusal: Refusal) -> None:
    rig.armed()
    *fragments, commit = swing(1, rig.device.now_us + 100_000).messages()
    for message in fragments:
        rig.client.link.send(message)
    assert isinstance(commit, Commit)
    rig.client.link.send(Commit(**{**commit.__dict__, **change}))
    naks = _all_naks(rig)
    assert [nak.refusal for nak in naks] == [refusal]
    rig.run(300)
    assert rig.device.state == DeviceState.ARMED


def test_the_lead_is_kept_and_the_far_future_refused(rig: Rig) -> None:
    rig.armed()
    too_soon = rig.commit(swing(1, rig.device.now_us + 19_000))
    assert too_soon is not None and too_soon.refusal == Refusal.LEAD_TOO_SHORT
    too_far = rig.commit(swing(2, rig.device.now_us + 11_000_000))
    assert too_far is not None and too_far.refusal == Refusal.START_TOO_FAR
    assert rig.commit(swing(3, rig.device.now_us + 21_000)) is None


def test_a_refused_replacement_leaves_the_old_plan_in_force(rig: Rig, trace_file: Path) -> None:
    rig.armed()
    start_us = rig.device.now_us + 50_000
    assert rig.commit(swing(1, start_us)) is None
    rig.run(200)
    jump = swing(2, start_us + 500_000, zero_us=start_us)
    q = np.array(jump.q_urad)
    q[:, 2] += 2_000
    bad = KnotChunk(2, jump.start_us, jump.spacing_us, tuple(map(tuple, q.tolist())), jump.dq_urad_s)
    nak = rig.commit(bad)
    assert nak is not None and (nak.refusal, nak.joint) == (Refusal.SPLICE_POSITION, 2)
    rig.run(500)
    rig.device.flush()
    trace = read_trace(trace_file)
    assert set(trace.chunk) == {0, 1}
    assert trace.limited.sum() == 0


def test_a_replacement_takes_over_at_its_first_knot_without_a_jump(rig: Rig, trace_file: Path) -> None:
    rig.armed()
    start_us = rig.device.now_us + 50_000
    assert rig.commit(swing(1, start_us)) is None
    rig.run(300)
    assert rig.commit(swing(2, start_us + 500_000, zero_us=start_us)) is None
    rig.run(600)
    rig.device.flush()
    trace = read_trace(trace_file)
    first = int(np.argmax(trace.chunk == 2))
    assert trace.tick_us[first] == start_us + 500_000
    assert trace.limited.sum() == 0


def test_a_chunk_without_velocities_moves_smoothly_too(rig: Rig, trace_file: Path) -> None:
    rig.armed()
    start_us = rig.device.now_us + 50_000
    with_dq = swing(1, start_us, knots=50, spacing_us=20_000)
    assert rig.commit(KnotChunk(1, start_us, 20_000, with_dq.q_urad, None)) is None
    rig.run(900)
    rig.device.flush()
    assert read_trace(trace_file).limited.sum() == 0


def test_fifty_knots_without_velocities_take_at_most_1500_bytes() -> None:
    chunk = swing(1, 0, knots=50, spacing_us=20_000)
    bare = KnotChunk(1, 0, 20_000, chunk.q_urad, None)
    assert sum(len(encode_frame(1, index, message)) for index, message in enumerate(bare.messages())) <= 1500


def test_an_empty_buffer_stops_within_the_limits_and_holds(rig: Rig) -> None:
    rig.armed()
    assert rig.commit(swing(1, rig.device.now_us + 50_000, knots=5)) is None
    events = rig.run(1000).events
    assert [(event.state, event.reason) for event in events[-2:]] == [
        (DeviceState.DECEL, StopReason.BUFFER_EMPTY),
        (DeviceState.HOLD, StopReason.BUFFER_EMPTY),
    ]
    nak = rig.commit(swing(2, rig.device.now_us + 50_000))
    assert nak is not None and nak.refusal == Refusal.WRONG_STATE
    assert rig.device.state == DeviceState.HOLD


def test_a_plan_that_comes_to_rest_by_itself_ends_armed(rig: Rig) -> None:
    rig.armed()
    start_us = rig.device.now_us + 50_000
    s = np.linspace(0, 1, 11)[:, None]
    q = HOME + 0.1 * (10 * s**3 - 15 * s**4 + 6 * s**5)
    dq = 0.1 * (30 * s**2 - 60 * s**3 + 30 * s**4) * np.ones(7)
    assert rig.commit(chunk_from(1, start_us, q, dq, 100_000)) is None
    events = rig.run(1500).events
    assert [event.state for event in events] == [DeviceState.STREAMING, DeviceState.ARMED]
    assert rig.commit(swing_from(2, rig.device.now_us + 50_000, q[-1])) is None


def swing_from(identity: int, start_us: int, pose: np.ndarray) -> KnotChunk:
    return chunk_from(identity, start_us, np.tile(pose, (5, 1)), np.zeros((5, 7)), 100_000)


def test_a_silent_host_stops_the_arm_after_100_ms_and_not_before(rig: Rig) -> None:
    rig.armed()
    assert rig.commit(swing(1, rig.device.now_us + 50_000, knots=50)) is None
    rig.run(300)
    rig.heartbeats = False
    assert rig.run(88).events == []
    assert rig.device.state == DeviceState.STREAMING
    events = rig.run(300).events
    assert [(event.state, event.reason) for event in events] == [
        (DeviceState.DECEL, StopReason.HEARTBEAT_LOST),
        (DeviceState.HOLD, StopReason.HEARTBEAT_LOST),
    ]
    rig.heartbeats = True
    rig.run(500)
    assert rig.device.state == DeviceState.HOLD, "nothing resumes by itself"


def test_a_live_line_with_a_hung_loop_counts_as_silence(rig: Rig) -> None:
    rig.armed()
    assert rig.commit(swing(1, rig.device.now_us + 50_000, knots=50)) is None
    rig.run(300)
    rig.heartbeats = False
    for _ in range(30):
        rig.client.link.send(Heartbeat(rig.loop_tick))
        rig.run(10)
    assert rig.device.state == DeviceState.HOLD


def test_stop_then_arm_again_and_go_on(rig: Rig) -> None:
    rig.armed()
    assert rig.commit(swing(1, rig.device.now_us + 50_000, knots=50)) is None
    rig.run(400)
    rig.client.stop()
    rig.run(400)
    assert rig.device.state == DeviceState.HOLD
    state = rig.state()
    rig.client.arm(state.measured_urad, rig.loop_tick + 1)
    pose = np.array(state.commanded_urad) * 1e-6
    assert rig.commit(swing_from(2, rig.device.now_us + 50_000, pose)) is None
    rig.run(200)
    assert rig.device.state == DeviceState.STREAMING


def test_emergency_stop_latches_until_a_new_session_clears_it(rig: Rig) -> None:
    rig.armed()
    assert rig.commit(swing(1, rig.device.now_us + 50_000, knots=50)) is None
    rig.run(500)
    rig.client.estop()
    rig.run(400)
    state = rig.state()
    assert state.state == DeviceState.ESTOP and state.reason == StopReason.HOST_ESTOP
    assert not state.flags & 1, "the drive is off once the arm stands still"
    with pytest.raises(HandshakeError, match="same session"):
        rig.client.clear()
    rig.client = rig.new_client(8)
    rig.client.connect("franka", FRANKA.hash32, 7)
    with pytest.raises(HandshakeError, match="wrong state"):
        rig.client.arm(state.measured_urad, 1)
    rig.client.clear()
    assert rig.device.state == DeviceState.IDLE


def test_clear_is_refused_while_the_arm_still_moves(rig: Rig) -> None:
    rig.armed()
    assert rig.commit(swing(1, rig.device.now_us + 50_000, knots=50, amplitude=0.4)) is None
    rig.run(700)
    rig.client.estop()
    other = rig.new_client(8)
    other.connect("franka", FRANKA.hash32, 7)
    with pytest.raises(HandshakeError, match="drive on"):
        other.clear()


def test_a_second_host_cannot_take_over_a_moving_arm(rig: Rig) -> None:
    rig.armed()
    assert rig.commit(swing(1, rig.device.now_us + 50_000, knots=50)) is None
    rig.run(200)
    other = rig.new_client(9)

    other.link.send(Hello(MAGIC, SCHEMA_HASH))
    other.link.send(Heartbeat(1))
    rig.run(200)
    assert rig.device.state == DeviceState.STREAMING
    with pytest.raises(HandshakeError, match=r"refuses a session: wrong state .*; stop the arm first"):
        other.connect("franka", FRANKA.hash32, 7)


def test_frames_of_an_older_session_are_dropped(rig: Rig) -> None:
    rig.armed()
    stale = rig.new_client(6)

    stale.link.send(Stop())
    rig.run(20)
    assert rig.device.state == DeviceState.ARMED


def test_a_repeated_commit_is_acknowledged_and_changes_nothing(rig: Rig) -> None:
    rig.armed()
    chunk = swing(1, rig.device.now_us + 100_000)
    assert rig.commit(chunk) is None
    assert rig.commit(chunk) is None
    assert rig.state().free_slots == 2


def test_more_chunks_than_the_buffer_holds_are_refused(rig: Rig) -> None:
    rig.armed()
    start_us = rig.device.now_us + 500_000
    for index in range(3):
        assert rig.commit(swing(index + 1, start_us + 100_000 * index, zero_us=start_us, knots=12)) is None
    nak = rig.commit(swing(4, start_us + 300_000, zero_us=start_us, knots=12))
    assert nak is not None and nak.refusal == Refusal.BUFFER_FULL
    assert rig.commit(swing(5, start_us + 200_000, zero_us=start_us, knots=12)) is None, "one that replaces fits"


@pytest.fixture
def moving() -> Iterator[Rig]:
    """A rig in mid-motion whose trace is not judged: its clock or its drive is about to break."""
    rig = Rig().armed()
    assert rig.commit(swing(1, rig.device.now_us + 50_000, knots=50, amplitude=0.4)) is None
    rig.run(800)
    yield rig
    rig.close()


@pytest.mark.parametrize(
    ("fault", "value", "reason"),
    [
        (SimulatedFault.FEEDBACK_LOST, 1, StopReason.FEEDBACK_LOST),
        (SimulatedFault.FEEDBACK_NAN, 1, StopReason.FEEDBACK_LOST),
        (SimulatedFault.OFFSET_RAD, 0.16, StopReason.FOLLOWING_ERROR),
        (SimulatedFault.OFFSET_RAD, -0.16, StopReason.FOLLOWING_ERROR),
        (SimulatedFault.TICK_ERROR_US, 2001, StopReason.TICK_LATE),
        (SimulatedFault.TICK_ERROR_US, -900, StopReason.RATE_WINDOW),
    ],
)
def test_a_broken_drive_or_clock_is_a_fault_that_latches(
    moving: Rig, fault: SimulatedFault, value: float, reason: StopReason
) -> None:
    moving.device.fault(fault, value)
    events = moving.run(120).events
    assert [(event.state, event.reason) for event in events] == [(DeviceState.FAULT, reason)]
    moving.device.fault(fault, 0)
    moving.run(500)
    state = moving.state()
    assert (state.state, state.reason) == (DeviceState.FAULT, reason)
    assert not state.flags & StateFlag.DRIVE_ON


def test_a_clock_that_runs_backwards_ends_with_the_drive_off(moving: Rig) -> None:
    moving.device.fault(SimulatedFault.TICK_ERROR_US, -200_000)
    events = moving.run(5).events
    assert (events[-1].state, events[-1].reason) == (DeviceState.FAULT, StopReason.RATE_WINDOW)
    moving.device.fault(SimulatedFault.TICK_ERROR_US, 0)
    assert not moving.state().flags & StateFlag.DRIVE_ON


def test_clear_waits_for_the_cause_to_be_gone(moving: Rig) -> None:
    moving.device.fault(SimulatedFault.FEEDBACK_LOST, 1)
    moving.run(500)
    moving.client = moving.new_client(8)
    moving.client.connect("franka", FRANKA.hash32, 7)
    with pytest.raises(HandshakeError, match="cause remains"):
        moving.client.clear()
    moving.device.fault(SimulatedFault.FEEDBACK_LOST, 0)
    moving.device.tick()
    moving.client.clear()
    assert moving.device.state == DeviceState.IDLE


def test_ticks_a_little_off_are_no_fault(moving: Rig) -> None:
    for error_us in (-20, 20, 1999, 0):
        moving.device.fault(SimulatedFault.TICK_ERROR_US, error_us)
        moving.run(3 if error_us > 1000 else 100)
    assert moving.device.state == DeviceState.STREAMING
