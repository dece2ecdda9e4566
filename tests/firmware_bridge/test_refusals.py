"""Every refusal that the host's own client would never provoke, and the rarer ways through the state machine."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge.log.trace import read_trace, violations
from edge.run.arm import wire_limits
from firmware_bridge.client import KnotChunk
from firmware_bridge.codes import MAGIC, DeviceState, MessageType, Refusal, StateFlag, StopReason
from firmware_bridge.framing import UNSEEDED, cobs_encode, encode_frame
from firmware_bridge.messages import (
    SCHEMA_HASH,
    Ack,
    Arm,
    Chunk,
    Clear,
    Commit,
    Disarm,
    Estop,
    Event,
    Heartbeat,
    Hello,
    Limits,
    Message,
    Nak,
    Stop,
    TimeReply,
    TimeRequest,
)
from firmware_bridge.simulator import SimulatedFault
from tests.support import FRANKA, HOME, Rig, chunk_from, swing

SESSION = 7


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path / "trace.csv", session=SESSION)
    yield rig
    rig.close()
    assert violations(read_trace(tmp_path / "trace.csv"), FRANKA.limits, FRANKA.edges) == []


@pytest.fixture
def idle(rig: Rig) -> Rig:
    """Past the handshake, not armed, heart beating."""
    rig.device.tick()
    rig.client.connect(rig.arm.name, rig.arm.hash32, rig.arm.dof)
    rig.client.synchronise_clock()
    rig.run(20)
    return rig


def answers(rig: Rig, message: Message) -> list[Message]:
    """What comes back at once, state reports and events aside."""
    rig.client.link.receive()
    rig.client.link.send(message)
    return [reply for reply in rig.client.link.receive() if isinstance(reply, (Ack, Nak, TimeReply))]


def refusal(rig: Rig, message: Message) -> Refusal | None:
    replies = answers(rig, message)
    assert len(replies) <= 1
    return Refusal(replies[0].refusal) if replies and isinstance(replies[0], Nak) else None


def raw_refusal(rig: Rig, kind: int, payload: bytes) -> Refusal | None:
    """Sends a payload that no message class would pack."""
    header = struct.pack("<BHHH", 1 << 5 | kind, SESSION, 77, len(payload))
    body = header + payload
    rig.client.link.receive()
    crc = zlib.crc32(body, 0 if kind in UNSEEDED else SCHEMA_HASH)
    rig.device.write(cobs_encode(body + crc.to_bytes(4, "little")) + b"\0")
    naks = [reply for reply in rig.client.link.receive() if isinstance(reply, Nak)]
    assert len(naks) <= 1
    assert all((nak.sequence, nak.type) == (77, kind) for nak in naks)
    return Refusal(naks[0].refusal) if naks else None


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        (MessageType.LIMITS, 139),
        (MessageType.LIMITS, 0),
        (MessageType.ARM, 27),
        (MessageType.ARM, 29),
        (MessageType.CHUNK, 3),
        (MessageType.CHUNK, 5),
        (MessageType.COMMIT, 15),
        (MessageType.COMMIT, 17),
        (MessageType.HEARTBEAT, 3),
        (MessageType.HEARTBEAT, 5),
        (MessageType.TIME_REQUEST, 7),
        (MessageType.TIME_REQUEST, 9),
    ],
)
def test_a_payload_of_the_wrong_size_is_refused(rig: Rig, kind: MessageType, size: int) -> None:
    rig.armed()
    rig.run(20)
    assert raw_refusal(rig, kind, bytes(size)) == Refusal.BAD_LENGTH
    assert rig.device.state == DeviceState.ARMED


@pytest.mark.parametrize("kind", [0, MessageType.CAPS, MessageType.STATE, MessageType.ACK, 31])
def test_what_a_device_does_not_take_is_refused_by_type(idle: Rig, kind: int) -> None:
    assert raw_refusal(idle, kind, bytes(8)) == Refusal.UNKNOWN_TYPE


@pytest.mark.parametrize(
    ("first", "count", "values"),
    [(0, 0, 0), (0, 2, 7), (0, 1, 8), (0, 1, 15), (50, 1, 7), (49, 2, 14), (255, 1, 7)],
)
def test_a_fragment_that_does_not_add_up_is_refused(rig: Rig, first: int, count: int, values: int) -> None:
    rig.armed()
    assert refusal(rig, Chunk(1, first, count, (0,) * values)) == Refusal.BAD_LENGTH


def test_before_a_session_the_device_is_deaf_and_mute(rig: Rig) -> None:
    rig.device.write(encode_frame(SESSION, 0, Hello(MAGIC, SCHEMA_HASH)))
    assert rig.device.read() == b"", "not even HELLO counts in BOOT"
    rig.device.tick(25)
    for message in (Stop(), Arm((0,) * 7), TimeRequest(1), Clear()):
        rig.device.write(encode_frame(SESSION, 0, message))
    rig.device.tick(25)
    assert rig.device.read() == b"" and rig.device.state == DeviceState.SILENT


def test_an_emergency_stop_before_any_session_counts(rig: Rig) -> None:
    rig.device.tick()
    rig.device.write(encode_frame(1234, 0, Estop()))
    rig.device.tick()
    assert rig.device.state == DeviceState.ESTOP
    rig.client.connect(rig.arm.name, rig.arm.hash32, rig.arm.dof)
    assert rig.device.state == DeviceState.ESTOP, "a handshake clears nothing"
    rig.run(20)
    rig.client.clear()
    assert rig.device.state == DeviceState.IDLE


def test_an_emergency_stop_counts_from_any_session_and_in_any_state(idle: Rig) -> None:
    idle.device.write(encode_frame(SESSION + 1, 0, Estop()))
    idle.device.tick()
    assert idle.device.state == DeviceState.ESTOP
    assert refusal(idle, Estop()) is None, "asked for again, it is acknowledged"


def test_an_emergency_stop_overrides_a_fault_and_a_fault_never_an_emergency_stop(rig: Rig) -> None:
    rig.armed()
    assert rig.commit(swing(1, rig.device.now_us + 50_000, knots=50, amplitude=0.4)) is None
    rig.run(700)
    rig.device.fault(SimulatedFault.FEEDBACK_LOST, 1)
    rig.run(3)
    assert rig.device.state == DeviceState.FAULT
    assert refusal(rig, Estop()) is None
    rig.run(3)
    assert rig.device.state == DeviceState.ESTOP
    rig.device.fault(SimulatedFault.OFFSET_RAD, 1.0)
    rig.run(500)
    state = rig.state()
    assert (state.state, state.reason) == (DeviceState.ESTOP, StopReason.HOST_ESTOP)


def test_a_clock_that_crawls_cuts_the_drive_even_in_an_emergency_stop() -> None:
    rig = Rig().armed()  # its trace is not judged: ticks cannot be trusted
    assert rig.commit(swing(1, rig.device.now_us + 50_000, knots=50, amplitude=0.4)) is None
    rig.run(800)
    rig.client.estop()
    rig.device.fault(SimulatedFault.TICK_ERROR_US, -990)
    rig.run(60)
    state = rig.state()
    assert (state.state, state.reason) == (DeviceState.ESTOP, StopReason.HOST_ESTOP)
    assert not state.flags & StateFlag.DRIVE_ON
    rig.close()


@pytest.mark.parametrize(
    ("row", "value"),
    [(0, 10**6), (1, -(10**6)), (2, 0), (2, -1), (3, 0), (3, -5), (4, 0), (4, -(2**31)), (0, -(2**31)), (1, 2**31 - 1)],
)
def test_limits_that_make_no_sense_or_widen_are_refused(idle: Rig, row: int, value: int) -> None:
    rows = [list(values) for values in wire_limits(FRANKA.limits).__dict__.values()]
    if (row, value) == (0, 10**6):
        rows[1][2] = 10**6  # lowest = highest
    if (row, value) == (1, -(10**6)):
        rows[0][2] = 10**5  # lowest above highest
    rows[row][2] = value
    assert refusal(idle, Limits(*map(tuple, rows))) == Refusal.WIDER_THAN_COMPILED


def test_limits_are_not_changed_while_armed(rig: Rig) -> None:
    rig.armed()
    assert refusal(rig, wire_limits(FRANKA.operating)) == Refusal.WRONG_STATE


def test_limits_may_be_tightened_again_in_hold(rig: Rig) -> None:
    rig.armed()
    assert rig.commit(swing(1, rig.device.now_us + 50_000, knots=5)) is None
    rig.run(900)
    assert rig.device.state == DeviceState.HOLD
    assert refusal(rig, wire_limits(FRANKA.operating)) is None


@pytest.mark.parametrize(("joint", "side"), [(0, 0), (3, 1), (6, 0), (6, 1)])
def test_an_arm_outside_its_limits_is_not_armed(idle: Rig, joint: int, side: int) -> None:
    rows = [list(values) for values in wire_limits(FRANKA.limits).__dict__.values()]
    here = round(HOME[joint] * 1e6)
    rows[side][joint] = here + (10_000 if side == 0 else -10_000)
    assert refusal(idle, Limits(*map(tuple, rows))) is None
    idle.run(5)
    naks = answers(idle, Arm(idle.state().measured_urad))
    assert isinstance(naks[0], Nak)
    assert (naks[0].refusal, naks[0].joint) == (Refusal.OUTSIDE_LIMITS, joint)


def test_arming_needs_feedback(idle: Rig) -> None:
    pose = idle.state().measured_urad
    idle.device.fault(SimulatedFault.FEEDBACK_LOST, 1)
    idle.run(5)
    assert refusal(idle, Arm(pose)) == Refusal.FEEDBACK_MISSING


def test_arming_with_a_measured_nan_is_refused(idle: Rig) -> None:
    pose = idle.state().measured_urad
    idle.device.fault(SimulatedFault.FEEDBACK_NAN, 1)
    idle.run(5)
    assert refusal(idle, Arm(pose)) == Refusal.FEEDBACK_MISSING
    assert not idle.state().flags & StateFlag.FEEDBACK_OK
    assert idle.device.state == DeviceState.IDLE


def test_arming_needs_a_fresh_heartbeat(idle: Rig) -> None:
    idle.heartbeats = False
    idle.run(120)
    assert refusal(idle, Arm(idle.state().measured_urad)) == Refusal.HEARTBEAT_MISSING


def test_arming_twice_is_acknowledged_and_changes_nothing(rig: Rig) -> None:
    rig.armed()
    assert refusal(rig, Arm((0,) * 7)) is None
    assert rig.device.state == DeviceState.ARMED


def test_what_the_state_does_not_allow_is_refused(idle: Rig) -> None:
    assert refusal(idle, Chunk(1, 0, 1, (0,) * 7)) == Refusal.WRONG_STATE
    assert refusal(idle, Commit(1, 2, 0, 0, 2000, 0)) == Refusal.WRONG_STATE
    assert refusal(idle, Clear()) == Refusal.WRONG_STATE
    assert refusal(idle, Stop()) is None, "a device that stands still has stopped"
    assert idle.device.state == DeviceState.IDLE


def test_disarming_is_for_standstill(rig: Rig) -> None:
    rig.armed()
    assert rig.commit(swing(1, rig.device.now_us + 50_000, knots=6)) is None
    rig.run(300)
    assert refusal(rig, Disarm()) == Refusal.WRONG_STATE
    rig.run(700)
    assert rig.device.state == DeviceState.HOLD
    assert refusal(rig, Disarm()) is None and rig.device.state == DeviceState.IDLE
    rig.run(20)
    assert not rig.state().flags & StateFlag.DRIVE_ON
    assert refusal(rig, Disarm()) is None and rig.device.state == DeviceState.IDLE


def test_disarming_while_armed_drops_what_was_committed(rig: Rig) -> None:
    rig.armed()
    assert rig.commit(swing(1, rig.device.now_us + 300_000)) is None
    assert refusal(rig, Disarm()) is None
    rig.run(500)
    assert rig.device.state == DeviceState.IDLE
    rig.client.arm(rig.state().measured_urad, rig.loop_tick + 1)
    rig.run(500)
    assert rig.device.state == DeviceState.ARMED


def test_a_stop_asked_for_twice_is_one_stop(rig: Rig) -> None:
    rig.armed()
    assert rig.commit(swing(1, rig.device.now_us + 50_000, knots=50)) is None
    rig.run(400)
    assert refusal(rig, Stop()) is None and refusal(rig, Stop()) is None
    events = [event for event in rig.run(300).events if isinstance(event, Event)]
    assert [event.state for event in events][-1] == DeviceState.HOLD
    assert refusal(rig, Stop()) is None and rig.device.state == DeviceState.HOLD


def test_nobody_takes_over_an_armed_arm(rig: Rig) -> None:
    rig.armed()
    rig.new_client(9).link.send(Hello(MAGIC, SCHEMA_HASH))
    rig.run(20)
    assert rig.device.state == DeviceState.ARMED and rig.state().refusals == 1


def test_nobody_takes_over_while_the_arm_decelerates(rig: Rig) -> None:
    rig.armed()
    assert rig.commit(swing(1, rig.device.now_us + 50_000, knots=50, amplitude=0.4)) is None
    rig.run(800)
    rig.client.stop()
    other = rig.new_client(9)
    other.link.send(Hello(MAGIC, SCHEMA_HASH))
    assert rig.device.state == DeviceState.DECEL
    rig.run(400)
    assert rig.device.state == DeviceState.HOLD
    other.connect(rig.arm.name, rig.arm.hash32, rig.arm.dof)


def test_a_chunk_after_a_plan_that_would_run_dry_is_a_gap(rig: Rig) -> None:
    rig.armed()
    start_us = rig.device.now_us + 50_000
    assert rig.commit(swing(1, start_us, knots=6)) is None
    nak = rig.commit(swing(2, start_us + 600_000, zero_us=start_us))
    assert nak is not None and nak.refusal == Refusal.GAP
    assert rig.commit(swing(3, start_us + 500_000, zero_us=start_us)) is None, "at the last knot there is no gap"


def test_a_chunk_after_a_plan_that_rests_is_no_gap(rig: Rig) -> None:
    rig.armed()
    start_us = rig.device.now_us + 50_000
    still = np.tile(HOME, (3, 1))
    assert rig.commit(chunk_from(1, start_us, still, np.zeros((3, 7)), 100_000)) is None
    assert rig.commit(swing(2, start_us + 600_000)) is None
    rig.run(400)
    assert rig.device.state == DeviceState.ARMED and rig.state().free_slots == 2
    rig.run(600)
    assert rig.device.state == DeviceState.STREAMING and rig.state().chunk == 2


def test_the_splice_is_judged_in_velocity_too(rig: Rig) -> None:
    rig.armed()
    chunk = swing(1, rig.device.now_us + 50_000)
    assert chunk.dq_urad_s is not None
    dq = [list(row) for row in chunk.dq_urad_s]
    dq[0][4] += 60_000
    moved = KnotChunk(1, chunk.start_us, chunk.spacing_us, chunk.q_urad, tuple(map(tuple, dq)))
    nak = rig.commit(moved)
    assert nak is not None and (nak.refusal, nak.joint, nak.knot) == (Refusal.SPLICE_VELOCITY, 4, 0)


def test_fragments_with_and_without_velocities_do_not_mix(rig: Rig) -> None:
    rig.armed()
    *fragments, commit = swing(1, rig.device.now_us + 100_000, knots=4).messages()
    assert len(fragments) == 1 and isinstance(commit, Commit)
    rig.client.link.send(Chunk(1, 0, 2, (0,) * 14))
    assert isinstance(fragments[0], Chunk)
    tail = Chunk(1, 2, 2, fragments[0].values[28:])
    rig.client.link.send(tail)
    rig.client.link.receive()
    naks = answers(rig, commit)
    assert isinstance(naks[0], Nak) and (naks[0].refusal, naks[0].knot) == (Refusal.KNOTS_MISSING, 0)


def test_a_plan_that_jumps_away_is_given_up() -> None:
    rig = Rig().armed()  # its trace is not judged: the clock jumps
    assert rig.commit(swing(1, rig.device.now_us + 50_000, knots=50, amplitude=0.4)) is None
    rig.run(800)
    rig.device.fault(SimulatedFault.TICK_ERROR_US, -200_000)
    assert rig.run(1).events[0].reason == StopReason.TRACKING_LOST
    rig.close()


def test_a_plan_that_ends_before_the_arm_is_on_it_ends_a_little_later() -> None:
    rig = Rig().armed()  # its trace is not judged: the clock jumps
    q, dq = np.tile(HOME, (2, 1)), np.zeros((2, 7))
    q[1, 0] += 0.3
    start_us = rig.device.now_us + 50_000
    assert rig.commit(chunk_from(1, start_us, q, dq, 500_000)) is None
    rig.run(start_us // 1000 + 480 - rig.device.now_us // 1000)
    for error_us in (1999, 1999, 1999, 1999, 1999, 1999, 1999, 0):
        rig.device.fault(SimulatedFault.TICK_ERROR_US, error_us)
        rig.run(1)
    assert rig.device.now_us > start_us + 500_000 and rig.device.state == DeviceState.STREAMING
    rig.run(300)
    state = rig.state()
    assert (state.state, state.reason) == (DeviceState.ARMED, StopReason.NONE)
    assert state.interventions > 0 and state.commanded_urad[0] == 300_000
    rig.close()


def test_a_drive_that_stays_on_is_not_cleared(rig: Rig) -> None:
    rig.armed()
    rig.client.estop()
    rig.run(50)
    rig.device.fault(SimulatedFault.DRIVE_STUCK, 1)
    rig.run(5)
    rig.client = rig.new_client(8)
    rig.client.connect(rig.arm.name, rig.arm.hash32, rig.arm.dof)
    assert refusal(rig, Clear()) == Refusal.DRIVE_ON
    rig.device.fault(SimulatedFault.DRIVE_STUCK, 0)
    rig.run(5)
    assert refusal(rig, Clear()) is None


def test_a_drive_that_is_still_on_is_not_armed_elsewhere(rig: Rig) -> None:
    """Found by the fuzzer: DISARM and ARM between two ticks, and the drive jumped to where the arm was measured."""
    rig.armed()
    rig.run(50)
    rig.device.fault(SimulatedFault.OFFSET_RAD, 0.01)
    rig.run(20)
    measured = rig.state().measured_urad
    rig.client.heartbeat(rig.loop_tick + 1)
    rig.client.link.send(Disarm())
    assert refusal(rig, Arm(measured)) == Refusal.DRIVE_ON
    rig.run(5)
    assert rig.device.state == DeviceState.IDLE and not rig.state().flags & StateFlag.DRIVE_ON
    assert refusal(rig, Arm(measured)) is None


def test_an_arm_whose_drive_reports_on_is_not_armed(rig: Rig) -> None:
    rig.armed()
    measured = rig.state().measured_urad
    rig.client.disarm()
    rig.device.fault(SimulatedFault.DRIVE_STUCK, 1)
    rig.run(20)
    assert refusal(rig, Arm(measured)) == Refusal.DRIVE_ON
    rig.device.fault(SimulatedFault.DRIVE_STUCK, 0)
    rig.run(5)
    assert refusal(rig, Arm(measured)) is None


def test_heartbeats_beat_on_over_the_wrap_of_their_tick(rig: Rig) -> None:
    rig.armed()
    for tick in (2**32 - 2, 2**32 - 1, 0, 1):
        rig.client.link.send(Heartbeat(tick))
        rig.device.tick(60)
    assert rig.device.state == DeviceState.ARMED


def test_a_host_that_reads_nothing_does_not_stop_the_device(rig: Rig) -> None:
    rig.armed()
    assert rig.commit(swing(1, rig.device.now_us + 50_000, knots=50)) is None
    for index in range(150):
        rig.client.link.send(Heartbeat(1000 + index))
        rig.device.tick(10)
    assert rig.device.state == DeviceState.STREAMING
