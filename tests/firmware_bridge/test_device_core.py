"""The device of the core, call by call, on an arm that no profile has: its thresholds exactly, its memory in full.

`test_device.py` and `test_refusals.py` ask what a host can see through the simulated device. Here inputs, clock and
memory are set directly, also to what a run would never leave behind.
"""

from __future__ import annotations

import ctypes
import math
import struct
import zlib

import pytest

from firmware_bridge import messages as wire
from firmware_bridge.codes import MAGIC, MAX_JOINTS, DeviceState, Refusal, StateFlag, StopReason
from firmware_bridge.framing import encode_frame
from firmware_bridge.replay import JointState
from tests.core_bench import (
    ACCELERATION,
    FIRMWARE_HASH,
    JERK,
    MICRO,
    POSITION,
    PROFILE_HASH,
    SESSION,
    VELOCITY,
    Bench,
    one_of,
    only,
    row,
)
from tests.firmware_core import TRANSMIT_SIZE, Device, Edges, Limits, Outputs, PlanPoint, fresh

WIDER = 1.0000001


def test_a_device_begins_silent_at_the_pose_it_was_given() -> None:
    bench = Bench(q=(0.5, -0.25, 0.125, 0.0, 0.0, 0.0, 1.0))
    untouched = Device()
    untouched.profile, untouched.firmware_hash = bench.device.profile, FIRMWARE_HASH
    untouched.limits, untouched.plan.joints = bench.profile.limits, 7
    for joint, q in zip(untouched.joint, bench.q):
        joint.q = q
    assert bytes(bench.device) == bytes(untouched)
    assert (bench.state, bytes(bench.device.limits)) == (DeviceState.BOOT, bytes(bench.profile.limits))
    bench.tick()
    assert bench.state == DeviceState.SILENT
    assert list(bench.outputs.set_point[:7]) == list(bench.q)
    poison = bytes(fresh(Outputs))[:8]
    assert bytes(bench.outputs)[56:64] == bytes(bench.outputs)[120:128] == poison, "only joints that the arm has"


def test_the_handshake_says_who_the_device_is() -> None:
    bench = Bench()
    bench.tick()
    caps = wire.Caps(
        magic=MAGIC,
        schema=wire.SCHEMA_HASH,
        firmware=FIRMWARE_HASH,
        profile=PROFILE_HASH,
        arm=b"sixteen-letters!",
        joints=7,
        state=DeviceState.IDLE,
        tick_us=1000,
        max_frame=512,
        max_knots=50,
        chunk_slots=3,
        min_lead_us=20_000,
        heartbeat_limit_us=100_000,
    )
    assert bench.send(wire.Hello(MAGIC, wire.SCHEMA_HASH)) == [caps]


@pytest.mark.parametrize("joints", [1, 7, 8])
@pytest.mark.parametrize("channel", [0, 1])
def test_a_session_from_the_handshake_to_the_end(joints: int, channel: int) -> None:
    """Also on as many joints as there can be, where one more would lie outside of every array."""
    bench = Bench(joints, q=[0.1 * joint for joint in range(joints)]).idle()
    edge, fast, hard, jerky = (round(value) for value in (POSITION / MICRO, VELOCITY / MICRO, 1e4, 5e6))
    rows = ((value,) * joints for value in (-edge, edge, fast, hard, jerky))
    assert one_of(wire.Ack, bench.send(wire.Limits(*rows), channel))
    assert bench.refusal(wire.Arm((0,) * (joints + 1))) == (Refusal.BAD_LENGTH, 255)
    bench.arm()
    bench.run(30)
    start = bench.now_us + 50_000
    q = [round(0.1 * joint / MICRO) for joint in range(joints)]
    there = [value + 2000 for value in q]
    for first, values in enumerate((q, there, there)):
        assert bench.send(wire.Chunk(3, first, 1, tuple(values)), channel) == []
    crc = zlib.crc32(b"".join(struct.pack(f"<{joints}i", *values) for values in (q, there, there)))
    assert one_of(wire.Ack, bench.send(wire.Commit(3, 3, 0, start & 0xFFFFFFFF, 200_000, crc), channel))
    bench.run(60)
    assert bench.state == DeviceState.STREAMING
    report = bench.report()
    assert (report.chunk, report.free_slots, report.device_us) == (3, 2, bench.now_us & 0xFFFFFFFF)
    assert report.commanded_urad == tuple(round(joint.q / MICRO) for joint in bench.device.joint[:joints])
    assert report.measured_urad == tuple(round(q / MICRO) for q in bench.device.inputs.measured[:joints])
    bench.run(500)
    assert bench.state == DeviceState.ARMED and bench.device.interventions == 0
    assert bench.outputs.set_point[joints - 1] == pytest.approx(0.1 * (joints - 1) + 0.002)
    window = bench.device.window
    remembered = list(window.q[(window.next - 1) % len(window.q)][:joints])
    assert remembered == [joint.q for joint in bench.device.joint[:joints]]
    for spare in range(joints, MAX_JOINTS):
        bench.device.joint[spare].v = 9.0  # joints that the arm does not have need not come to rest
    bench.send(wire.Stop(), channel)
    bench.run(5)
    assert bench.state == DeviceState.HOLD
    bench.send(wire.Disarm(), channel)
    assert bench.state == DeviceState.IDLE and not bench.device.drive_enable


def test_a_device_without_room_drops_its_answer_whole_and_counts() -> None:
    bench = Bench().idle()
    size = len(encode_frame(SESSION, 0x0101, wire.TimeReply(0x0101010101010101, 0x01010101, 0x01010101)))
    bench.now_us, bench.device.sequence = 0x01010101, 0x0101
    request = encode_frame(SESSION, 1, wire.TimeRequest(0x0101010101010101))
    for waiting, fits in ((TRANSMIT_SIZE - size, True), (TRANSMIT_SIZE - size + 1, False)):
        bench.device.transmit_count, bench.device.transmit_dropped = waiting, 0
        for byte in request:
            bench.library.ve_device_receive(bench.at, 0, byte, bench.now_us)
        assert bench.device.transmit_count == (TRANSMIT_SIZE if fits else waiting)
        assert bench.device.transmit_dropped == (0 if fits else 1)


def test_a_drive_is_armed_anew_only_when_it_is_commanded_told_and_measured_off() -> None:
    bench = Bench().idle().arm()
    pose = (0,) * bench.joints
    refused = (Refusal.DRIVE_ON, 255)
    assert bench.refusal(wire.Disarm()) is None
    assert bench.refusal(wire.Arm(pose)) is None, "no tick has told it to come on"
    bench.tick()
    assert bench.outputs.drive_enable
    assert bench.refusal(wire.Disarm()) is None
    assert bench.refusal(wire.Arm(pose)) == refused, "told to come on, and slow to do so"
    bench.tick()
    assert not bench.outputs.drive_enable
    assert bench.refusal(wire.Arm(pose)) is None
    bench.drive_is_on = True
    bench.tick()
    assert bench.refusal(wire.Disarm()) is None
    bench.tick()
    assert bench.refusal(wire.Arm(pose)) == refused, "told to go off, and slow to do so"
    bench.drive_is_on = False
    bench.tick()
    assert bench.refusal(wire.Arm(pose)) is None


def test_a_new_session_begins_with_the_compiled_limits_and_no_chunk() -> None:
    bench = Bench().idle()
    rows = ((value,) * 7 for value in (-1_000_000, 1_000_000, 100_000, 100, 100_000))
    assert bench.refusal(wire.Limits(*rows)) is None
    assert bench.device.limits.velocity[0] == pytest.approx(0.1)
    bench.arm()
    first = bench.commit(5, bench.now_us + 100_000)
    assert one_of(wire.Ack, bench.send(first)) and bench.device.plan.chained == 1
    assert bench.refusal(wire.Disarm()) is None
    assert bench.device.plan.chained == 0, "at once"
    report = bench.report()
    assert (report.free_slots, report.buffered_ms) == (3, 0), "a device that is not armed has no plan"
    bench.session += 1
    bench.idle()
    assert bytes(bench.device.limits) == bytes(bench.profile.limits)
    bench.arm()
    assert one_of(wire.Ack, bench.send(bench.commit(5, bench.now_us + 100_000)))
    assert bench.device.plan.chained == 1, "the same id in another session is another chunk"


def test_a_commit_that_is_repeated_is_acknowledged_again() -> None:
    bench = Bench().idle().arm()
    commit = bench.commit(5, bench.now_us + 100_000)
    for _ in range(2):
        assert one_of(wire.Ack, bench.send(commit)) and bench.device.plan.chained == 1
    assert bench.device.refusals == 0


def exact_edge(raw: int, scale: float) -> float:
    """A compiled limit of which the widest that the wire may say is exactly `raw` wire units."""
    edge = (scale * raw) / WIDER
    candidates = [edge, math.nextafter(edge, 0.0), math.nextafter(edge, math.inf)]
    return next(value for value in candidates if value * WIDER == scale * raw)


def test_limits_may_be_wider_by_the_rounding_of_the_wire_and_are_cut_to_what_is_compiled() -> None:
    wide = (-1_000_001, 1, 2_000_003, 10_007, 5_000_011)
    limits = Limits(  # one end of each joint's range lies at zero, where a microradian more is exact
        row([0.0, -1.0], 2),
        row([1.0, 0.0], 2),
        *(row([exact_edge(raw, scale)] * 2, 2) for raw, scale in zip(wide[2:], (MICRO, 1e-3, 1e-3))),
    )
    bench = Bench(2, limits=limits).idle()
    rows = [[-1, -1_000_000], [1_000_000, 1], *([value] * 2 for value in wide[2:])]
    assert bench.refusal(wire.Limits(*map(tuple, rows))) is None
    assert bytes(bench.device.limits) == bytes(bench.profile.limits)
    for index, (joint, change) in enumerate(((0, -1), (1, 1), (0, 1), (1, 1), (0, 1))):
        wider = [list(values) for values in rows]
        wider[index][joint] += change
        assert bench.refusal(wire.Limits(*map(tuple, wider))) == (Refusal.WIDER_THAN_COMPILED, joint)


@pytest.mark.parametrize("joint", [0, 6])
@pytest.mark.parametrize("index", [2, 3, 4])
def test_a_limit_may_be_small_and_not_zero(joint: int, index: int) -> None:
    bench = Bench().idle()
    rows = [[-3_000_000] * 7, [3_000_000] * 7, [2_000_000] * 7, [10_000] * 7, [5_000_000] * 7]
    rows[index][joint] = 1
    assert bench.refusal(wire.Limits(*map(tuple, rows))) is None
    rows[index][joint] = 0
    assert bench.refusal(wire.Limits(*map(tuple, rows))) == (Refusal.WIDER_THAN_COMPILED, joint)


@pytest.mark.parametrize("joint", [0, 3, 6])
@pytest.mark.parametrize("side", [1, -1])
def test_the_host_may_be_two_hundredths_off_about_the_pose(joint: int, side: int) -> None:
    bench = Bench().idle()
    assert bench.refusal(wire.Arm(only(joint, side * 20_001))) == (Refusal.POSE_MISMATCH, joint)
    assert bench.refusal(wire.Arm(only(joint, side * 20_000))) is None


@pytest.mark.parametrize("joint", [0, 6])
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_an_arm_may_stand_on_a_limit_and_not_beyond(joint: int, side: float) -> None:
    bench = Bench().idle()
    pose = only(joint, round(side * 3_000_000))
    bench.measured = [float(MICRO * value) for value in pose]
    bench.measured[joint] = side * math.nextafter(POSITION, 4.0)
    bench.tick()
    assert bench.refusal(wire.Arm(pose)) == (Refusal.OUTSIDE_LIMITS, joint)
    bench.measured[joint] = side * POSITION
    bench.tick()
    assert bench.refusal(wire.Arm(pose)) is None


@pytest.mark.parametrize("joint", range(7))
def test_every_joint_must_be_measured_to_arm(joint: int) -> None:
    bench = Bench().idle()
    bench.measured = [math.nan if index == joint else 0.0 for index in range(7)]
    bench.tick()
    assert bench.refusal(wire.Arm((0,) * 7)) == (Refusal.FEEDBACK_MISSING, 255)


def test_an_arm_is_taken_over_at_rest_and_without_a_past() -> None:
    """Whatever stood in memory when the drive was off."""
    bench = Bench().idle()
    for joint in bench.device.joint:
        joint.q, joint.v, joint.a, joint.off_plan = 0.01, 9.0, 9.0, True
    bench.device.window.count = 3
    bench.device.plan.chained, bench.device.plan.staged = 2, 0b11
    bench.arm()
    for index in range(7):
        joint = bench.device.joint[index]
        here = bench.device.inputs.measured[index]
        assert (joint.q, joint.v, joint.a, joint.off_plan) == (here, 0.0, 0.0, False)
    assert bench.device.joint[7].v == 9.0, "not a joint of this arm"
    assert (bench.device.window.count, bench.device.plan.chained, bench.device.plan.staged) == (0, 0, 0)


@pytest.mark.parametrize("joint", [0, 6])
@pytest.mark.parametrize("beside_rad", [-0.49e-6, 0.3e-6])
def test_an_arm_is_held_where_it_is_reported_and_begins_there(joint: int, beside_rad: float) -> None:
    """A first chunk begins at a whole microradian: with the arm beside it, a jump of acceleration in the first tick."""
    bench = Bench().idle()
    bench.measured = [0.1 + beside_rad if index == joint else 0.0 for index in range(7)]
    bench.tick()
    bench.arm()
    assert bench.device.joint[joint].q == pytest.approx(0.1, abs=1e-12)
    assert bench.report().commanded_urad[joint] == 100_000


@pytest.mark.parametrize("joint", [0, 6])
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_an_arm_that_stands_near_a_limit_is_held_within_it(joint: int, side: float) -> None:
    """The limit is none of the wire's microradians, and the one nearest to the arm is beyond."""
    limit_rad = side * 1.0000006
    position = row([limit_rad if index == joint else side * POSITION for index in range(7)], 7)
    ends = (row(-POSITION, 7), position) if side > 0 else (position, row(POSITION, 7))
    bench = Bench(limits=Limits(*ends, row(VELOCITY, 7), row(ACCELERATION, 7), row(JERK, 7))).idle()
    bench.measured = [side * 1.00000055 if index == joint else 0.0 for index in range(7)]
    bench.tick()
    bench.arm()
    assert bench.device.joint[joint].q == limit_rad


@pytest.mark.parametrize(("gap_us", "late"), [(3000, False), (3001, True)])
def test_a_tick_may_be_three_periods_late(gap_us: int, late: bool) -> None:
    bench = Bench().idle().arm()
    bench.tick()
    bench.tick(step_us=gap_us)
    assert bench.state == (DeviceState.FAULT if late else DeviceState.ARMED)
    assert bench.device.reason == (StopReason.TICK_LATE if late else StopReason.NONE)


@pytest.mark.parametrize("joint", range(7))
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_a_joint_may_lag_by_what_its_profile_says(joint: int, side: float) -> None:
    limits = [0.1 + 0.05 * index for index in range(7)]
    bench = Bench(following=limits).idle().arm()
    bench.measured = [0.0] * 7
    bench.measured[joint] = side * limits[joint]
    bench.tick()
    assert bench.state == DeviceState.ARMED
    bench.measured[joint] = side * math.nextafter(limits[joint], 1.0)
    bench.tick()
    assert (bench.state, bench.device.reason) == (DeviceState.FAULT, StopReason.FOLLOWING_ERROR)


@pytest.mark.parametrize("joint", range(7))
@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize(("beyond_urad_s", "followed"), [(1.25, True), (0.75, False)])
def test_velocities_near_an_edge_keep_a_microradian_a_second_below_its_limit(
    joint: int, side: int, beyond_urad_s: float, followed: bool
) -> None:
    """On a plan of 1 mrad/s, where an edge far away allows so much more; the one on the other side allows nothing."""
    slopes, ends = [0.0] * 7, [[math.nan] * 7, [math.nan] * 7]
    allowed, room = 1e-3 + MICRO * beyond_urad_s, 1e6
    offset = [math.nan] * 7
    offset[joint], slopes[joint] = 0.25, (allowed + 0.25) ** 2 / room
    ends[0][joint], ends[1][joint] = (0.0, room) if side > 0 else (-room, 0.0)
    bench = Bench(edges=Edges(row(offset, 7), row(slopes, 7), row(ends[0], 7), row(ends[1], 7))).idle().arm()
    speed, zeros = only(joint, side * 1000), (0,) * 7
    values = (*zeros, *speed, *only(joint, side * 100), *speed)
    assert bench.send(wire.Chunk(1, 0, 2, values)) == []
    crc = zlib.crc32(struct.pack("<28i", *values))
    assert bench.refusal(wire.Commit(1, 2, 1, (bench.now_us + 20_000) & 0xFFFFFFFF, 100_000, crc)) is None
    bench.run(40)
    point = PlanPoint()
    assert bench.library.ve_plan_at(ctypes.addressof(bench.device.plan), bench.now_us, ctypes.byref(point))
    bench.device.joint[joint] = JointState(point.q[joint], side * 1e-3, 0.0, False)
    bench.tick()
    assert bench.state == DeviceState.STREAMING
    assert bench.device.joint[joint].off_plan is not followed


@pytest.mark.parametrize("joint", range(7))
@pytest.mark.parametrize("side", [1, -1])
def test_a_stop_does_not_ask_what_an_edge_allows(joint: int, side: int) -> None:
    """Motion that is there already, and too fast for where it is, can only be slowed down."""
    edges = Edges(*(row(value, 7) for value in (0.5, 10.0, -0.01, 0.01)))
    bench = Bench(edges=edges).idle().arm()
    bench.device.joint[joint] = JointState(0.0, side * 0.1, 0.0, False)
    bench.send(wire.Stop())
    bench.run(60)
    assert bench.state == DeviceState.HOLD
    assert bench.device.joint[joint].v == 0.0


@pytest.mark.parametrize("joint", range(7))
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_the_plan_may_be_five_hundredths_away(joint: int, side: float) -> None:
    """Displaced behind the device's back; the clock window, which would see it, is emptied."""
    for distance, lost in ((0.05, False), (math.nextafter(0.05, 1.0), True)):
        bench = Bench().idle().arm()
        bench.send(bench.commit(1, bench.now_us + 20_000))
        bench.run(30)
        assert bench.state == DeviceState.STREAMING
        bench.device.joint[joint] = JointState(side * distance, 0.0, 0.0, False)
        bench.library.ve_window_clear(ctypes.addressof(bench.device.window))
        bench.tick()
        assert bench.state == (DeviceState.HOLD if lost else DeviceState.STREAMING)
        assert bench.device.reason == (StopReason.TRACKING_LOST if lost else StopReason.NONE)


@pytest.mark.parametrize("joint", range(7))
def test_a_plan_that_ends_in_motion_on_one_joint_is_a_plan_that_ran_dry(joint: int) -> None:
    bench = Bench().idle().arm()
    bench.send(bench.commit(1, bench.now_us + 20_000, last_dq=only(joint, 10_000)))
    bench.run(125)
    assert (bench.device.reason, bench.state) == (StopReason.BUFFER_EMPTY, DeviceState.HOLD)


@pytest.mark.parametrize(("left_us", "low"), [(50_001, False), (50_000, False), (49_999, True)])
def test_the_buffer_is_low_below_fifty_milliseconds(left_us: int, low: bool) -> None:
    bench = Bench().idle().arm()
    end_us = bench.now_us + 120_000 + left_us - 50_000
    bench.send(bench.commit(1, end_us - 90_000, spacing_us=90_000))
    bench.run(69)
    report = bench.report()
    assert bench.now_us == end_us - left_us and bench.state == DeviceState.STREAMING
    assert bool(report.flags & StateFlag.BUFFER_LOW) is low


@pytest.mark.parametrize("joints", [7, 8])
def test_set_points_that_the_clock_does_not_allow_are_taken_back(joints: int) -> None:
    """In mid-stop, with a remembered set-point that no joint can have left that fast."""
    bench = Bench(joints).idle().arm()
    bench.send(wire.Stop())
    for index in range(joints):
        bench.device.joint[index] = JointState(0.0, 0.5, 3.0, False)
    window = bench.device.window
    window.count, window.next, window.time_us[0] = 1, 1, bench.now_us - 20_000
    for index in range(joints):
        window.q[0][index] = 1.0
    untouched = bytes(bench.device.joint)[ctypes.sizeof(JointState) * joints :]
    bench.tick()
    assert (bench.state, bench.device.reason) == (DeviceState.FAULT, StopReason.RATE_WINDOW)
    assert not bench.device.drive_enable and not bench.outputs.drive_enable
    for index in range(joints):
        joint = bench.device.joint[index]
        assert (joint.q, joint.v, joint.a) == (0.0, 0.0, 0.0)
        assert (bench.outputs.set_point[index], bench.outputs.velocity[index]) == (0.0, 0.0)
    assert bytes(bench.device.joint)[ctypes.sizeof(JointState) * joints :] == untouched
    assert (window.count, list(window.q[1][:joints])) == (2, [0.0] * joints)


def test_what_a_device_does_not_take_is_refused_once() -> None:
    bench = Bench().idle()
    assert bench.refusal(wire.Ack(1, 2, 3)) == (Refusal.UNKNOWN_TYPE, 255)
    assert bench.device.refusals == 1
