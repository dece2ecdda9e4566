"""An SO-101 behind the core, on simulated servos and a stepped clock."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edge.arms.feetech import joint_spans
from edge.log.trace import Trace, read_trace, violations
from firmware_bridge.adapters import DriveError
from firmware_bridge.adapters.feetech import registers as reg
from firmware_bridge.adapters.feetech.bus import ServoBus
from firmware_bridge.adapters.feetech.drive import STOP_COUNTS_S2, FeetechDrive, stop_counts
from firmware_bridge.adapters.feetech.servos import ACCELERATION, SPEED
from firmware_bridge.adapters.feetech.simulated_bus import LineFaults, SimulatedBus, Supply
from firmware_bridge.adapters.feetech.simulated_servo import SimulatedServo
from firmware_bridge.codes import DeviceState, StopReason
from firmware_bridge.errors import HandshakeError
from tests.bus_bench import SteppedClock
from tests.servo_bench import (
    SCALES,
    SO101,
    ServoBench,
    ServoRig,
    SimulatedPort,
    calibration,
    servos_at,
)
from tests.so101_motion import Motion, errors_degrees, worst_degrees
from tests.support import states_in_order

REST = [0.0] * 6
CORRUPTED = LineFaults(corrupted=0.01, seed=7)


class Moving:
    """A rig whose arm follows a motion; `drive_for` goes on with it."""

    def __init__(self, bench: ServoBench, trace_file: Path) -> None:
        self.bench, self.trace_file = bench, trace_file
        self.rig = ServoRig(bench)
        self.rig.armed()
        commanded = np.array(self.rig.state().commanded_urad) / 1e6
        self.motion = Motion(commanded, self.rig.device_us + 100_000)
        self.chunk = 0

    def drive_for(self, chunks: int) -> Moving:
        for _ in range(chunks):
            assert self.rig.commit(self.motion.chunk(self.chunk)) is None
            self.rig.run(488)
            self.chunk += 1
        return self

    @property
    def trace(self) -> Trace:
        self.bench.core.flush()
        return read_trace(self.trace_file)


@pytest.fixture
def moving(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Moving]]:
    made: list[Moving] = []

    def make(*arguments: object, **options: object) -> Moving:
        bench = ServoBench(*arguments, core=True, trace=tmp_path / "trace.csv", **options)
        made.append(Moving(bench, tmp_path / "trace.csv"))
        return made[-1]

    yield make
    for one in made:
        trace = one.trace
        latched = np.flatnonzero(trace.state == "FAULT")
        again = np.flatnonzero(trace.state[latched[0] :] == "IDLE") if latched.size else latched
        until = latched[0] + again[0] if again.size else None  # armed anew, set-points begin where the arm is
        assert violations(trace.part(slice(0, until)), SO101.limits) == []
        one.bench.close()


# The motion ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("faults", [LineFaults(), CORRUPTED, LineFaults(dropped=0.01, echo=True, seed=3)], ids=str)
def test_the_servos_move_along_the_trajectory_within_a_degree(
    moving: Callable[..., Moving], faults: LineFaults
) -> None:
    arm = moving(faults).drive_for(8)
    bench, trace = arm.bench, arm.trace
    assert bench.state == DeviceState.STREAMING and bench.said == [] and not trace.limited.any()
    began_us = (bench.drive._reported_ns - 1000 * bench.core.now_us) / 1000
    seen_us = np.array([at_ns for at_ns, _ in bench.seen]) / 1000 - began_us
    shafts = np.array([shaft for _, shaft in bench.seen])
    worst, lag_ms = worst_degrees(trace, seen_us, shafts)
    at_once = errors_degrees(trace, seen_us, shafts, 0).max()
    print(f"{worst:.2f} degrees at most, {lag_ms} ms later; {at_once:.2f} at the same time")  # for docs/howto/so101.md
    assert worst < 0.3 and 5 < lag_ms < 25, "behind by a cycle of the bus and the servo's own response, and no more"
    assert np.degrees(np.ptp(shafts, axis=0))[:5].min() > 30, "five joints have moved; the gripper less"
    assert bench.adapter.lost_periods == 0, "the bus keeps its 200 Hz"
    told = bench.drive.statistics()
    assert (told["success_rate_least"] == 1.0) is (faults == LineFaults())
    assert told["cycles"] == pytest.approx(len(trace.state) / 5, abs=2)


def test_a_run_repeats_itself(tmp_path: Path) -> None:
    shafts = []
    for turn in range(2):
        bench = ServoBench(CORRUPTED, core=True, trace=tmp_path / f"{turn}.csv")
        Moving(bench, tmp_path / f"{turn}.csv").drive_for(2)
        shafts.append(bench.shafts_rad)
        bench.close()
    assert (shafts[0] == shafts[1]).all() and (tmp_path / "0.csv").read_text() == (tmp_path / "1.csv").read_text()


def test_the_goal_is_where_a_stop_would_end() -> None:
    assert stop_counts(0) == 0 and stop_counts(1000) == -stop_counts(-1000) == 1000**2 / (2 * STOP_COUNTS_S2)
    servo_rad_s2 = reg.RAD_PER_COUNT * STOP_COUNTS_S2
    assert max(SO101.limits.acceleration_rad_s2) < servo_rad_s2 / 2, "nearer than the end of any stop of the core"
    assert max(SO101.limits.velocity_rad_s) < reg.RAD_PER_COUNT * SPEED, "the servo's own limit lies behind the core's"


# Torque --------------------------------------------------------------------------------------------------------------


def test_nothing_holds_before_the_arm_is_armed() -> None:
    bench = ServoBench()
    for _ in range(20):
        told = bench.drive.measure()
        bench.drive.command(SO101.home_rad, REST, False)
    assert (told.ok, told.drive_is_on, told.periods) == (True, False, 5)
    assert not any(servo.is_on for servo in bench.servos.values())
    assert np.abs(told.position_rad - bench.shafts_rad).max() <= reg.RAD_PER_COUNT / 2


def test_no_torque_before_the_goals_have_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    def far(servos: dict[int, SimulatedServo]) -> None:
        for servo in servos.values():
            servo[reg.GOAL_POSITION] = 0  # as a servo holds it after its supply came on

    bench = ServoBench(change=far)
    write, deaf = SimulatedServo.write, [True]

    def heard(servo: SimulatedServo, address: int, data: bytes) -> None:
        if address != reg.GOAL_POSITION.address or not (deaf[0] and servo[reg.ID] == 4):
            write(servo, address, data)

    monkeypatch.setattr(SimulatedServo, "write", heard)
    before, here = bench.shafts_rad, bench.drive.measure().position_rad
    bench.drive.command(here, REST, False)
    for cycle in range(20):
        told = bench.drive.measure()
        bench.drive.command(here, REST, True)
        assert not any(servo.is_on for servo in bench.servos.values()) or cycle > 10, "servo 4 would jump"
        deaf[0] = cycle < 10
    assert told.drive_is_on and all(servo.is_on for servo in bench.servos.values())
    assert np.degrees(np.abs(bench.shafts_rad - before)).max() < 0.1


def test_coming_on_over_a_bad_line() -> None:
    bench = ServoBench()
    bench.bus.faults = LineFaults(dropped=0.3)
    before, here = bench.shafts_rad, bench.drive.measure().position_rad
    bench.drive.command(here, REST, False)
    for _ in range(40):
        told = bench.drive.measure()
        bench.drive.command(here, REST, True)
    assert told.drive_is_on and all(servo.is_on for servo in bench.servos.values())
    assert np.degrees(np.abs(bench.shafts_rad - before)).max() < 0.1


def test_off_is_measured(moving: Callable[..., Moving]) -> None:
    arm = moving()
    arm.bench.bus.faults = LineFaults(dropped=0.2)
    arm.rig.client.disarm()
    arm.rig.run(200)
    assert arm.bench.state == DeviceState.IDLE and not any(servo.is_on for servo in arm.bench.servos.values())
    assert not arm.bench.drive.measure().drive_is_on
    arm.bench.servos[4][reg.TORQUE_ENABLE] = 1  # another program
    for _ in range(8):
        told = arm.bench.drive.measure()
        arm.bench.drive.command(told.position_rad, REST, False)
    assert not arm.bench.servos[4].is_on, "and it is taken away again"


def test_closing_lets_go(moving: Callable[..., Moving]) -> None:
    arm = moving()
    assert all(servo.is_on for servo in arm.bench.servos.values())
    arm.bench.drive.close()
    assert not any(servo.is_on for servo in arm.bench.servos.values())


# Faults --------------------------------------------------------------------------------------------------------------


def stopped(arm: Moving, reason: StopReason, ms: int = 700) -> None:
    state = arm.rig.run(ms).state
    assert state is not None
    assert (arm.bench.state, state.reason) == (DeviceState.FAULT, reason)


def test_a_servo_that_is_silent_for_40_ms_is_bridged(moving: Callable[..., Moving]) -> None:
    arm = moving().drive_for(1)
    arm.bench.servos[3].silent = True
    arm.rig.run(40)
    arm.bench.servos[3].silent = False
    arm.drive_for(2)
    assert arm.bench.state == DeviceState.STREAMING and arm.bench.said == []


def test_a_servo_that_stays_silent_is_named(moving: Callable[..., Moving]) -> None:
    arm = moving().drive_for(1)
    arm.bench.servos[3].silent = True
    stopped(arm, StopReason.FEEDBACK_LOST)
    assert "servo 3 (elbow_flex) has been silent for" in arm.bench.said[0]
    others = [servo.is_on for number, servo in arm.bench.servos.items() if number != 3]
    assert not any(others), "it does not hear either; the others let go"
    assert arm.bench.drive.measure().drive_is_on, "of servo 3 nobody knows"


def test_a_hot_servo_stops_the_arm_before_it_lets_go(moving: Callable[..., Moving]) -> None:
    arm = moving().drive_for(1)
    arm.bench.servos[2][reg.PRESENT_TEMPERATURE] = 66
    arm.rig.run(100)
    assert arm.bench.servos[2].is_on or arm.bench.state == DeviceState.FAULT
    stopped(arm, StopReason.FEEDBACK_LOST)
    assert arm.bench.said == ["servo 2 (shoulder_lift) is at 66 degrees (limit 65); let it cool down"]
    assert states_in_order(arm.trace)[-2:] == ["STREAMING", "FAULT"]


def test_a_low_supply_stops_the_arm(moving: Callable[..., Moving]) -> None:
    arm = moving().drive_for(1)
    arm.bench.servos[6][reg.PRESENT_VOLTAGE] = 95
    stopped(arm, StopReason.FEEDBACK_LOST)
    assert arm.bench.said[0].startswith("servo 6 (gripper) gets 9.5 V and needs more than 10.0 V")


def test_a_servo_that_started_anew_stops_the_arm(moving: Callable[..., Moving]) -> None:
    arm = moving().drive_for(1)
    arm.bench.bus.servos[5] = arm.bench.servos[5] = arm.bench.servos[5].started_anew()
    stopped(arm, StopReason.FEEDBACK_LOST)
    assert "servo 5 (wrist_roll) has let go by itself" in arm.bench.said[0]


def test_a_blocked_joint_stops_the_arm(moving: Callable[..., Moving]) -> None:
    arm = moving().drive_for(1)
    arm.bench.servos[1].stalled = True
    arm.drive_for(1)
    state = arm.rig.run(400).state
    assert state is not None and state.state == DeviceState.FAULT
    assert state.reason == StopReason.FOLLOWING_ERROR


def test_a_fault_is_cleared_only_when_its_cause_is_gone(moving: Callable[..., Moving]) -> None:
    arm = moving().drive_for(1)
    arm.bench.servos[2][reg.PRESENT_TEMPERATURE] = 66
    stopped(arm, StopReason.FEEDBACK_LOST)
    rig = arm.rig
    rig.client = rig.new_client(8)
    rig.client.connect("so101", SO101.hash32, 6)
    rig.client.clear()
    rig.run(300)
    assert arm.bench.state == DeviceState.FAULT and not any(servo.is_on for servo in arm.bench.servos.values())
    arm.bench.servos[2][reg.PRESENT_TEMPERATURE] = 40
    rig.client = rig.new_client(9)
    rig.client.connect("so101", SO101.hash32, 6)
    rig.client.clear()
    rig.run(300)
    rig.client.synchronise_clock()
    rig.loop_tick += 1
    rig.client.arm(rig.client.wait_for_state().measured_urad, rig.loop_tick)
    rig.run(300)
    assert arm.bench.state == DeviceState.ARMED and all(servo.is_on for servo in arm.bench.servos.values())


def test_a_port_that_is_pulled_out_is_found_again(moving: Callable[..., Moving]) -> None:
    arm = moving().drive_for(1)
    arm.bench.port.broken = True
    stopped(arm, StopReason.FEEDBACK_LOST)
    assert arm.bench.said == ["the port was pulled out; the servos hold their last goals"]
    assert arm.bench.drive.measure().drive_is_on
    rig = arm.rig
    rig.client = rig.new_client(8)
    rig.client.connect("so101", SO101.hash32, 6)
    with pytest.raises(HandshakeError, match="cause remains"):
        rig.client.clear()
    arm.bench.port.broken = False
    rig.run(1500)
    assert arm.bench.said[-1] == "the servos answer again" and not arm.bench.drive.measure().drive_is_on
    rig.client.clear()
    assert arm.bench.state == DeviceState.IDLE


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_set_point_that_is_no_number_writes_nothing(value: float) -> None:
    bench = ServoBench()
    bench.drive.measure()
    bench.drive.command(SO101.home_rad, REST, True)
    for target in ((value, *SO101.home_rad[1:]), SO101.home_rad):  # nor the next one: the core has not heard of it
        written = len(bench.port.written)
        bench.drive.command(target, REST if target == SO101.home_rad else [value] * 6, True)
        assert not any(b"\x83\x2a" in packet for packet in bench.port.written[written:])
    assert not bench.drive.measure().ok and "not finite" in bench.said[0]


def test_a_goal_outside_the_calibrated_range_is_never_written() -> None:
    bench = ServoBench()
    here = bench.drive.measure().position_rad
    for _ in range(20):
        bench.drive.command(here, REST, True)
        bench.drive.measure()
    bench.drive.command((3.0, *here[1:]), REST, True)
    assert bench.servos[1][reg.GOAL_POSITION] == SCALES[0].count_max
    assert not bench.drive.measure().ok and "servo 1 (shoulder_pan) was to leave its calibrated range" in bench.said[0]


def test_a_position_that_no_servo_could_have_reached_is_left_out() -> None:
    bench = ServoBench()
    here = bench.drive.measure().position_rad
    bench.drive.command(here, REST, False)
    bench.servos[1].hand(bench.servos[1].encoder + 900)
    told = bench.drive.measure()
    assert told.position_rad == here and told.ok and bench.drive.statistics()["positions_implausible"] == 1
    for _ in range(60):
        bench.drive.command(here, REST, False)
        told = bench.drive.measure()
    assert told.position_rad[0] == pytest.approx(here[0] + 900 * reg.RAD_PER_COUNT), "a hand may have moved it"


def test_a_fault_that_a_servo_tells_once_is_none() -> None:
    bench = ServoBench()
    bench.servos[4].registers[reg.PRESENT_TEMPERATURE.address] = 90
    here = bench.drive.measure().position_rad
    bench.drive.command(here, REST, False)
    assert bench.said == []
    bench.drive.measure()
    assert bench.said == ["servo 4 (wrist_flex) reports a fault of its own: temperature"]


# Answers that come late ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_answers_that_are_late_at_the_start_are_no_false_diagnoses(seed: int) -> None:
    began_ns = SteppedClock().ns
    bench = ServoBench(LineFaults(late=0.12, seed=seed))
    assert (bench.clock.ns - began_ns) / 1e9 < 3.0, "and it starts in 3 s"
    bench.bus.faults = LineFaults()
    for _ in range(20):
        told = bench.drive.measure()
        bench.drive.command(SO101.home_rad, REST, False)
    assert told.ok and told.position_rad == pytest.approx(SO101.home_rad, abs=2 * reg.RAD_PER_COUNT)


@pytest.mark.parametrize("seed", range(8))
def test_what_a_register_holds_is_never_another_ones_value(seed: int) -> None:
    clock, servos = SteppedClock(), servos_at(SO101.home_rad)
    bus = ServoBus(
        SimulatedPort(SimulatedBus(servos, LineFaults(late=0.3, seed=seed), clock.ns), clock), clock.now_ns, clock.wait
    )
    for register in (reg.VOLTAGE_MAX, reg.VOLTAGE_MIN, reg.PRESENT_VOLTAGE, reg.PRESENT_TEMPERATURE, reg.MODE) * 4:
        assert bus.read(3, register) in (servos[3][register], None)


def test_late_answers_in_motion_are_bridged(moving: Callable[..., Moving]) -> None:
    arm = moving(LineFaults(late=0.001, seed=5)).drive_for(3)
    assert arm.bench.state == DeviceState.STREAMING and arm.bench.said == []
    assert arm.bench.drive.statistics()["answers_missing"] > 5


# The jaw's own limits -----------------------------------------------------------------------------------------------


def test_the_jaws_limits_are_written_kept_and_read_back() -> None:
    bench = ServoBench()
    jaw, other = bench.servos[6], bench.servos[3]
    wanted = {reg.MAX_TORQUE: 500, reg.TORQUE_LIMIT: 500, reg.PROTECTION_CURRENT: 250, reg.OVERLOAD_TORQUE: 25}
    assert {register: jaw[register] for register in wanted} == wanted
    assert other[reg.MAX_TORQUE] == other[reg.TORQUE_LIMIT] == 1000
    after = jaw.started_anew()
    assert {register: after[register] for register in wanted} == wanted, "kept without supply"
    for servo in bench.servos.values():
        assert (servo[reg.P_GAIN], servo[reg.I_GAIN], servo[reg.D_GAIN], servo[reg.LOCK]) == (16, 0, 32, 1)


def test_a_jaw_whose_torque_limit_is_raised_stops_the_arm(moving: Callable[..., Moving]) -> None:
    arm = moving().drive_for(1)
    arm.bench.servos[6][reg.TORQUE_LIMIT] = 1000
    stopped(arm, StopReason.FEEDBACK_LOST)
    assert "servo 6 (gripper) may use 100% of its torque, and was set to 50%" in arm.bench.said[0]


def test_a_supply_that_breaks_down_stops_the_arm(moving: Callable[..., Moving]) -> None:
    arm = moving().drive_for(1)
    arm.bench.bus.supply = Supply(12.0, ohms=1.0)
    arm.bench.servos[1].stalled = True
    arm.rig.run(300)
    assert arm.bench.state == DeviceState.FAULT, "by its voltage, before anything lets go"
    assert "needs more than 10.0 V; check the supply" in " ".join(arm.bench.said)


# Connecting ----------------------------------------------------------------------------------------------------------


def test_what_the_loop_relies_on_is_set() -> None:
    bench = ServoBench()
    for servo in bench.servos.values():
        assert (servo[reg.RETURN_DELAY], servo[reg.ACCELERATION], servo[reg.GOAL_VELOCITY]) == (0, ACCELERATION, SPEED)


@pytest.mark.parametrize(
    ("register", "value", "message"),
    [
        (reg.MODEL, 2825, r"servo 2 \(shoulder_lift\) is model 2825, not an STS3215 \(777\)"),
        (reg.HOMING_OFFSET, 5, "has homing offset 5 and the calibration -120, which is another arm's"),
        (reg.MODE, 1, "is not in position mode; calibrate again"),
        (reg.UNLOADING, 0, "has its own protection switched off"),
        (reg.PRESENT_VOLTAGE, 50, "gets 5.0 V and needs more than 10.0 V; check the supply"),
        (reg.PRESENT_VOLTAGE, 150, "gets 15.0 V and bears less than 14.0 V"),
        (reg.TORQUE_ENABLE, 1, "holds a pose already; take the arm in hand, then edge-calibrate .* --let-go"),
    ],
)
def test_what_is_wrong_at_connect_is_refused(register: reg.Register, value: int, message: str) -> None:
    def change(servos: dict[int, SimulatedServo]) -> None:
        servos[2][register] = value

    with pytest.raises(DriveError, match=message) as caught:
        ServoBench(change=change)
    assert "\n" not in str(caught.value)


def test_a_servo_made_for_7_volts_may_have_5() -> None:
    def change(servos: dict[int, SimulatedServo]) -> None:
        for servo in servos.values():
            servo[reg.VOLTAGE_MAX], servo[reg.PRESENT_VOLTAGE] = 80, 50

    assert ServoBench(change=change).drive.measure().ok


def test_a_servo_that_is_missing_is_named() -> None:
    def change(servos: dict[int, SimulatedServo]) -> None:
        del servos[6]

    with pytest.raises(DriveError, match=r"servo 6 \(gripper\) does not answer; check the arm's power"):
        ServoBench(change=change)


@pytest.mark.parametrize("silent", range(1, 7))
def test_words_that_nobody_reads_do_not_keep_the_torque_on(silent: int) -> None:
    def unread(text: str) -> None:
        raise BrokenPipeError(text)

    bench = ServoBench()
    drive = FeetechDrive(
        lambda: ServoBus(bench.port, bench.clock.now_ns, bench.clock.wait),
        calibration(),
        joint_spans(SO101),
        unread,
        bench.clock.now_ns,
        bench.clock.sleep,
    )
    for servo in bench.servos.values():
        servo[reg.TORQUE_ENABLE] = 1
    bench.servos[silent].silent = True
    drive.close()
    assert [number for number, servo in bench.servos.items() if servo[reg.TORQUE_ENABLE]] == [silent]
