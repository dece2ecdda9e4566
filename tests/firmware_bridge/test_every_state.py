"""Every message and every watchdog in every state, on sixteen axes, on an arm that is not where it is told to be.

The ideal arm of a simulation stands where it was told to: a guard that confuses the two goes unseen there. Faults that
strike in mid-stream alone leave the other states unwatched.
"""

from __future__ import annotations

import ctypes
import math
import struct
import zlib
from collections.abc import Callable

import pytest

from firmware_bridge import messages as wire
from firmware_bridge.codes import MAGIC, DeviceState, Refusal, StopReason
from tests.core_bench import ACCELERATION, JERK, MICRO, POSITION, VELOCITY, Bench, one_of
from tests.firmware_core import PlanPoint

AXES = 16
LAG = tuple((0.012 + 0.0005 * axis) * (-1) ** axis for axis in range(AXES))
"""Above the tolerance of a splice on every axis, below that of a pose; the sides alternate."""
TIGHT = (-2_500_000, 2_400_000, 300_000, 900, 70_000)
"""Session limits, in units of the wire: tighter than compiled in every row."""
S, R = DeviceState, Refusal

SITUATIONS = (
    "SILENT",
    "IDLE",
    "ARMED",
    "STREAMING",
    "DECEL",
    "HOLD",
    "FAULT moving",
    "FAULT",
    "ESTOP moving",
    "ESTOP",
)
DRIVEN = ("ARMED", "STREAMING", "DECEL", "HOLD")


class LaggingArm(Bench):
    """Sixteen axes, each behind its set-point by its own lag; the drive is on when it was told to be."""

    def __init__(self) -> None:
        super().__init__(AXES, lag=LAG)

    def tick(self, count: int = 1, step_us: int = 1000) -> None:
        for _ in range(count):
            super().tick(1, step_us)
            self.drive_is_on = bool(self.outputs.drive_enable)

    @property
    def commanded(self) -> list[float]:
        return [joint.q for joint in self.device.joint[:AXES]]

    @property
    def at_rest(self) -> bool:
        return all(joint.v == 0.0 for joint in self.device.joint[:AXES])

    def stage(self, chunk: int, q: list[list[float]], dq: list[list[float]], lead_us: int = 20_000) -> wire.Commit:
        """Sends knots 50 ms apart; returns the commit to send."""
        values: list[int] = []
        for positions, velocities in zip(q, dq):
            values += [round(value / MICRO) for value in (*positions, *velocities)]
        per_knot = 2 * AXES
        for knot in range(len(q)):
            self.send(wire.Chunk(chunk, knot, 1, tuple(values[per_knot * knot : per_knot * (knot + 1)])))
        crc = zlib.crc32(struct.pack(f"<{len(values)}i", *values))
        return wire.Commit(chunk, len(q), 1, (self.now_us + lead_us) & 0xFFFFFFFF, 50_000, crc)

    def swing(self) -> tuple[list[list[float]], list[list[float]]]:
        """Knots of a swing from rest at the commanded pose: up to 1.6 rad/s, another amplitude on every axis."""
        size = [(0.5 + 0.02 * axis) * (-1) ** axis for axis in range(AXES)]
        times = [0.05 * knot for knot in range(21)]
        q = [[at + a * (1 - math.cos(2 * t)) for at, a in zip(self.commanded, size)] for t in times]
        return q, [[2 * a * math.sin(2 * t) for a in size] for t in times]

    def bring_to(self, situation: str) -> LaggingArm:
        if situation == "SILENT":
            self.tick()
            return self
        self.idle()
        if situation == "IDLE":
            return self
        self.arm()
        self.tick()
        if situation != "ARMED":
            assert self.refusal(self.stage(1, *self.swing())) is None
            self.run(350)
            assert self.state == S.STREAMING and self.device.interventions == 0
        if situation in ("DECEL", "HOLD"):
            self.send(wire.Stop())
        elif situation.startswith("FAULT"):
            self.feedback_ok = False
            self.tick()
            self.feedback_ok = True
        elif situation.startswith("ESTOP"):
            self.send(wire.Estop())
        if situation in ("HOLD", "FAULT", "ESTOP"):
            self.run(200)
        assert self.state.name == situation.split()[0], self.state
        assert self.at_rest is (situation not in ("STREAMING", "DECEL", "FAULT moving", "ESTOP moving"))
        return self

    def untouched(self) -> tuple[object, ...]:
        """What a message that is refused or ignored must leave alone."""
        device = self.device
        facts = (device.state, device.reason, device.session, device.has_session, device.drive_enable)
        plan = device.plan
        chain = tuple(plan.chain[: plan.chained])
        return (
            *facts,
            bytes(device.limits),
            plan.chained,
            chain,
            plan.staged,
            bytes(device.joint),
            bytes(device.window),
        )


@pytest.fixture(params=SITUATIONS)
def situation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


ANYWHERE = dict.fromkeys(SITUATIONS[1:], None)
IN_ARM = {"ARMED": None, "STREAMING": None}


def limits_of(*rows: int) -> wire.Limits:
    return wire.Limits(*((value,) * AXES for value in rows))


def pose_of(arm: LaggingArm) -> wire.Arm:
    return wire.Arm(tuple(round(value / MICRO) for value in arm.device.inputs.measured[:AXES]))


def chunk_of(arm: LaggingArm) -> wire.Chunk:
    return wire.Chunk(9, 0, 1, tuple(round(value / MICRO) for value in arm.commanded) + (0,) * AXES)


def commit_of(arm: LaggingArm) -> wire.Commit:
    """One that repeats the last: where chunks are taken, it is acknowledged."""
    arm.device.has_commit, arm.device.last_commit = True, 5
    return wire.Commit(5, 2, 1, 0, 50_000, 0)


MESSAGES: dict[str, tuple[Callable[[LaggingArm], wire.Message], dict[str, Refusal | None], dict[str, DeviceState]]] = {
    # message: how it is made, refusals (None: carried out; states not named: WRONG_STATE), and the states that change
    "HELLO again": (lambda arm: wire.Hello(MAGIC, wire.SCHEMA_HASH), ANYWHERE, {}),
    "LIMITS": (lambda arm: limits_of(*TIGHT), {"IDLE": None, "HOLD": None}, {}),
    "ARM": (pose_of, {"IDLE": None, "HOLD": None, "ARMED": None}, {"IDLE": S.ARMED, "HOLD": S.ARMED}),
    "DISARM": (
        lambda arm: wire.Disarm(),
        {"IDLE": None, "ARMED": None, "HOLD": None},
        {"ARMED": S.IDLE, "HOLD": S.IDLE},
    ),
    "CHUNK": (chunk_of, IN_ARM, {}),
    "COMMIT": (commit_of, IN_ARM, {}),
    "HEARTBEAT": (lambda arm: wire.Heartbeat(77), ANYWHERE, {}),
    "TIME_REQUEST": (lambda arm: wire.TimeRequest(1), ANYWHERE, {}),
    "STOP": (lambda arm: wire.Stop(), ANYWHERE, {"ARMED": S.DECEL, "STREAMING": S.DECEL}),
    "ESTOP": (lambda arm: wire.Estop(), dict.fromkeys(SITUATIONS, None), dict.fromkeys(SITUATIONS, S.ESTOP)),
    "CLEAR": (
        lambda arm: wire.Clear(),
        dict.fromkeys(("FAULT moving", "FAULT", "ESTOP moving", "ESTOP"), R.SAME_SESSION),
        {},
    ),
}
ACKNOWLEDGED = ("LIMITS", "ARM", "DISARM", "COMMIT", "STOP", "ESTOP", "CLEAR")


# What the session says, and what it does not -------------------------------------------------------------------------


@pytest.mark.parametrize("situation", ["IDLE", "HOLD"])
@pytest.mark.parametrize("axis", range(AXES))
def test_every_limit_of_every_axis_is_taken_over(situation: str, axis: int) -> None:
    arm = LaggingArm().bring_to(situation)
    compiled = (-POSITION, POSITION, VELOCITY, ACCELERATION, JERK)
    rows = [[round(value / unit)] * AXES for value, unit in zip(compiled, (MICRO, MICRO, MICRO, 1e-3, 1e-3))]
    for row, value in enumerate(TIGHT):
        rows[row][axis] = value
    assert arm.refusal(wire.Limits(*map(tuple, rows))) is None
    taken = arm.device.limits
    names = ("position_min", "position_max", "velocity", "acceleration", "jerk")
    for name, value, outer, unit in zip(names, TIGHT, compiled, (MICRO, MICRO, MICRO, 1e-3, 1e-3)):
        found = list(getattr(taken, name))[:AXES]
        wanted = [outer] * AXES
        wanted[axis] = value * unit
        assert found == pytest.approx(wanted), name


@pytest.mark.parametrize("axis", range(AXES))
@pytest.mark.parametrize("side", [1.0, -1.0])
@pytest.mark.parametrize("situation", ["ARMED", "STREAMING"])
def test_every_axis_of_a_chunk_is_judged(situation: str, axis: int, side: float) -> None:
    """Each reason a chunk is refused for, on each axis alone, where the commanded pose is not the measured one."""
    arm = LaggingArm().bring_to(situation)

    def knots(*rows: tuple[float, float]) -> tuple[list[list[float]], list[list[float]]]:
        """From the plan where it will be, at rest or as fast as the plan is: offsets and velocities of the one axis."""
        q0, dq0 = ahead(arm, 30_000)
        q, dq = [list(q0) for _ in rows], [list(dq0) for _ in rows]
        for index, (offset, velocity) in enumerate(rows):
            for other in range(AXES):
                q[index][other] = q0[other] + 0.05 * index * dq0[other]
            q[index][axis] += side * offset
            dq[index][axis] += side * velocity
        return q, dq

    cases = {
        R.SPLICE_POSITION: knots((0.0012, 0.0), (0.0012, 0.0)),
        R.SPLICE_VELOCITY: knots((0.0, 0.06), (0.003, 0.06)),
        R.POSITION: knots((0.0, 0.0), (4.0, 0.0)),
        R.VELOCITY: knots((0.0, 0.0), (0.2, 0.0)),
        R.ACCELERATION: knots((0.0, 0.0), (0.01, 0.0)),
    }
    for number, (reason, (q, dq)) in enumerate(cases.items()):
        assert arm.refusal(arm.stage(20 + number, q, dq, 30_000)) == (reason, axis), reason
    assert arm.refusal(arm.stage(30, *knots((0.0, 0.0), (0.0, 0.0)), 30_000)) is None, "the plan itself is taken"


def ahead(arm: LaggingArm, lead_us: int) -> tuple[list[float], list[float]]:
    """Position and velocity of the plan in force at that time from now."""
    point = PlanPoint()
    plan = ctypes.addressof(arm.device.plan)
    if not arm.library.ve_plan_at(plan, arm.now_us + lead_us, ctypes.byref(point)):
        return arm.commanded, [0.0] * AXES
    return list(point.q[:AXES]), list(point.dq[:AXES])


@pytest.mark.parametrize("axis", range(AXES))
def test_a_plan_joins_where_the_arm_is_told_to_be_and_not_where_it_is(axis: int) -> None:
    arm = LaggingArm().bring_to("HOLD").arm()
    measured = list(arm.device.inputs.measured[:AXES])
    assert abs(measured[axis] - arm.commanded[axis]) > 0.01
    there = list(arm.commanded)
    there[axis] = measured[axis]
    still = [[0.0] * AXES] * 2
    assert arm.refusal(arm.stage(40, [there] * 2, still)) == (R.SPLICE_POSITION, axis)
    assert arm.refusal(arm.stage(41, [arm.commanded] * 2, still)) is None


@pytest.mark.parametrize("situation", ["IDLE", "HOLD"])
def test_arming_anew_keeps_the_window_unless_the_drive_was_off(situation: str) -> None:
    """In HOLD the drive is on: what it was told in the last 110 ms still counts."""
    arm = LaggingArm().bring_to("HOLD" if situation == "HOLD" else "IDLE")
    held = bytes(arm.device.window)
    arm.arm()

    assert (arm.device.window.count == 0) is (situation == "IDLE")
    assert situation == "IDLE" or bytes(arm.device.window) == held


def test_the_window_knows_the_compiled_limits_alone() -> None:
    """A session that begins slowly right after a fast one: what was legal then is no fault now."""
    arm = LaggingArm().bring_to("STREAMING")
    arm.send(wire.Stop())
    while arm.state != S.HOLD:
        arm.tick()
    slow = limits_of(-3_000_000, 3_000_000, 1000, 10_000, 5_000_000)
    assert arm.refusal(slow) is None
    arm.heartbeat()
    arm.arm()
    arm.run(150)
    assert arm.state == S.ARMED


@pytest.mark.parametrize("situation", ["IDLE", "HOLD"])
def test_set_points_go_on_from_themselves_unless_the_drive_was_off(situation: str) -> None:
    arm = LaggingArm().bring_to(situation)
    commanded, measured = arm.commanded, list(arm.device.inputs.measured[:AXES])
    arm.arm()
    reported = pytest.approx([MICRO * round(q / MICRO) for q in measured], abs=1e-12)
    assert arm.commanded == (reported if situation == "IDLE" else commanded)


# Every message, the many cases after the few: a guard that was dropped is found out sooner ----------------------------


@pytest.mark.parametrize("name", MESSAGES)
def test_every_message_in_every_state(situation: str, name: str) -> None:
    make, refusals, changes = MESSAGES[name]
    arm = LaggingArm().bring_to(situation)
    message = make(arm)
    before, state = arm.untouched(), arm.state
    answers = arm.send(message)
    if situation == "SILENT" and name == "HELLO again":
        return  # opens the session: below
    heard = name == "ESTOP" or situation != "SILENT"
    refusal = refusals.get(situation, R.WRONG_STATE) if heard else None
    assert [nak.refusal for nak in one_of(wire.Nak, answers)] == ([] if refusal is None else [refusal])
    acknowledged = heard and refusal is None and name in ACKNOWLEDGED
    assert len(one_of(wire.Ack, answers)) == int(acknowledged)
    assert arm.state == changes.get(situation, state)
    if refusal is not None or not heard or (situation not in changes and name not in ("LIMITS", "CHUNK")):
        assert arm.untouched() == before, "nothing has changed"
    arm.tick()
    assert arm.state in (changes.get(situation, state), S.HOLD), "nor by the next tick"


def test_a_new_session_in_every_state(situation: str) -> None:
    """Refused where the arm is held up by a session or still moves for it; else it begins from nothing."""
    arm = LaggingArm()
    arm.bring_to(situation)
    if situation in ("IDLE", "HOLD"):
        assert arm.refusal(limits_of(*TIGHT)) is None
    before = arm.untouched()
    arm.session += 1
    answers = arm.send(wire.Hello(MAGIC, wire.SCHEMA_HASH))
    if situation in ("ARMED", "STREAMING", "DECEL"):
        assert [nak.refusal for nak in one_of(wire.Nak, answers)] == [R.WRONG_STATE]
        assert arm.untouched() == before
        return
    assert len(one_of(wire.Caps, answers)) == 1
    assert arm.device.session == arm.session
    assert arm.state.name == ("IDLE" if situation == "SILENT" else situation.split()[0])
    assert bytes(arm.device.limits) == bytes(arm.profile.limits), "the compiled ones"
    assert arm.device.plan.chained == 0 and arm.device.plan.staged == 0
    assert not arm.device.has_heartbeat and not arm.device.has_commit


def test_an_emergency_stop_is_heard_from_any_session_in_every_state(situation: str) -> None:
    arm = LaggingArm().bring_to(situation)
    arm.session += 1
    assert len(one_of(wire.Ack, arm.send(wire.Estop()))) == 1
    assert arm.state == S.ESTOP
    driven = arm.device.drive_enable
    ticks = 0
    while arm.device.drive_enable:
        arm.tick()
        ticks += 1
        assert ticks < 250
    assert arm.at_rest and not arm.outputs.drive_enable
    assert driven or ticks == 0
    assert arm.device.reason == StopReason.HOST_ESTOP


# Watchdogs -----------------------------------------------------------------------------------------------------------


def late(arm: LaggingArm) -> None:
    arm.tick(step_us=3001)


def no_feedback(arm: LaggingArm) -> None:
    arm.feedback_ok = False
    arm.tick()


def axis_is_nan(axis: int) -> Callable[[LaggingArm], None]:
    def strike(arm: LaggingArm) -> None:
        arm.measured = [at - behind for at, behind in zip(arm.commanded, LAG)]
        arm.measured[axis] = math.nan
        arm.tick()

    return strike


def axis_left_behind(axis: int, side: float) -> Callable[[LaggingArm], None]:
    def strike(arm: LaggingArm) -> None:
        arm.measured = [at - behind for at, behind in zip(arm.commanded, LAG)]
        arm.measured[axis] = arm.commanded[axis] + side * 0.151
        arm.tick()

    return strike


WATCHDOGS = {
    "tick late": (late, StopReason.TICK_LATE),
    "feedback lost": (no_feedback, StopReason.FEEDBACK_LOST),
    **{f"axis {axis + 1} is NaN": (axis_is_nan(axis), StopReason.FEEDBACK_LOST) for axis in range(AXES)},
    **{
        f"axis {axis + 1} left behind, {side:+.0f}": (axis_left_behind(axis, side), StopReason.FOLLOWING_ERROR)
        for axis in range(AXES)
        for side in (1.0, -1.0)
    },
}


@pytest.mark.parametrize("name", WATCHDOGS)
def test_every_watchdog_in_every_state(situation: str, name: str) -> None:
    """Where the drive is on, a fault latches, stops the arm within its bound and takes the drive away."""
    strike, reason = WATCHDOGS[name]
    arm = LaggingArm().bring_to(situation)
    before, was = arm.state, arm.device.reason
    strike(arm)
    if situation not in DRIVEN:
        assert (arm.state, arm.device.reason) == (before, was)
        return
    assert (arm.state, arm.device.reason) == (S.FAULT, reason)
    arm.run(300)
    assert (arm.state, arm.device.reason) == (S.FAULT, reason)
    assert arm.at_rest and not arm.outputs.drive_enable


def test_silence_of_the_host_in_every_state(situation: str) -> None:
    arm = LaggingArm().bring_to(situation)
    before, was = arm.state, arm.device.reason
    arm.tick(100)
    expected = {S.ARMED: (S.HOLD, StopReason.HEARTBEAT_LOST), S.STREAMING: (S.DECEL, StopReason.HEARTBEAT_LOST)}
    after = expected.get(before, (S.HOLD if before == S.DECEL else before, was))
    arm.tick(2)
    assert (arm.state, arm.device.reason) == after


@pytest.mark.parametrize("situation", ["STREAMING", "DECEL", "FAULT moving", "ESTOP moving"])
def test_a_clock_that_stands_still_in_every_state_of_motion(situation: str) -> None:
    """Set-points are taken back, and the drive is cut at once; an emergency stop stays one."""
    arm = LaggingArm().bring_to(situation)
    for _ in range(40):
        before = arm.commanded
        arm.tick(step_us=0)
        if not arm.outputs.drive_enable:
            break
    if situation == "ESTOP moving":
        assert (arm.state, arm.device.reason) == (S.ESTOP, StopReason.HOST_ESTOP)
    else:
        assert (arm.state, arm.device.reason) == (S.FAULT, StopReason.RATE_WINDOW)
    assert not arm.outputs.drive_enable and arm.commanded == before


# How a stop ends a motion --------------------------------------------------------------------------------------------


STOPS = {
    "STOP": lambda arm: arm.send(wire.Stop()),
    "ESTOP": lambda arm: arm.send(wire.Estop()),
    "silence": lambda arm: arm.tick(102),
    "tick late": late,
    "feedback lost": no_feedback,
}


@pytest.mark.parametrize("name", STOPS)
def test_limits_that_a_session_has_tightened_do_not_take_the_stop_away(name: str) -> None:
    """As fast and as short as with the compiled ones, whatever ends the motion."""
    stops = []
    for rows in ((-3_000_000, 3_000_000, 2_000_000, 10_000, 5_000_000), (-3_000_000, 3_000_000, 500_000, 200, 100_000)):
        arm = LaggingArm().idle()
        assert arm.refusal(limits_of(*rows)) is None
        arm.arm()
        arm.tick()
        times = [0.05 * knot for knot in range(40)]
        q = [[at + 0.05 * (1 - math.cos(t)) for at in arm.commanded] for t in times]
        dq = [[0.05 * math.sin(t)] * AXES for t in times]
        assert arm.refusal(arm.stage(1, q, dq)) is None
        arm.run(1500)
        assert arm.state == S.STREAMING
        STOPS[name](arm)
        ticks, begun = 0, arm.commanded[0]
        while not arm.at_rest:
            arm.tick()
            ticks += 1
            assert ticks < 1000
        stops.append((ticks, arm.commanded[0] - begun))
    (ticks, distance), (tight_ticks, tight_distance) = stops
    assert abs(tight_ticks - ticks) <= 3
    assert abs(tight_distance - distance) <= 1e-3
