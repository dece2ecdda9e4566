"""A YAM's drive on simulated motors, on a stepped clock: what it reads first, what it bridges, and when it lets go."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge.log.trace import read_trace
from firmware_bridge.adapters import DriveError
from firmware_bridge.adapters.bus_drive import OLDEST_S
from firmware_bridge.adapters.damiao import frames
from firmware_bridge.adapters.damiao.drive import DamiaoDrive
from firmware_bridge.adapters.damiao.frames import MotorState, Register
from firmware_bridge.adapters.damiao.motors import TIMEOUT_S, exchange
from firmware_bridge.adapters.damiao.simulated import SimulatedBus, SimulatedMotor
from firmware_bridge.adapters.simulated_can import BusFaults
from firmware_bridge.codes import DeviceState, StopReason
from firmware_bridge.errors import PortError
from tests.damiao_bench import MOTORS, SWING, YAM, DamiaoBench, DamiaoRig
from tests.support import broken_limits

FOLLOWS_RAD = 0.08
"""Half a kilogram that the drive does not know of, a cycle and the current loop; [following] is at 0.2."""


def moved(bench: DamiaoBench, seconds: float) -> DamiaoRig:
    """A rig that has streamed a motion for so long and stands."""
    rig = DamiaoRig(bench).armed()
    rig.swing(SWING, seconds)
    return rig


def check_followed(bench: DamiaoBench, rig: DamiaoRig, trace: Path, share: float) -> None:
    assert rig.state().state == DeviceState.STREAMING
    told = bench.drive.statistics()
    assert bench.said == []
    assert abs(told["success_rate_least"] - share) < 0.02 and told["positions_implausible"] == 0
    bench.core.flush()
    rows = read_trace(trace)
    assert broken_limits(rows, YAM) == []
    streaming = np.flatnonzero(rows.state == "STREAMING")
    at_us = rows.tick_us[streaming[-1]] - rows.tick_us[streaming[0]]
    commanded = rows.q[streaming]
    seen = np.array([q for _, q in bench.seen])[-at_us // 4000 :]
    wanted = commanded[-len(seen) * 4 :: 4][: len(seen)]
    away = np.abs(seen[: len(wanted)] - wanted).max(axis=0)
    print(
        "furthest from the set-points, by joint, rad:",
        np.round(away, 4),
        f"{bench.bus.lost} of {bench.bus.frames} lost",
    )
    assert np.all(away < FOLLOWS_RAD) and np.all(away > 1e-3), away  # it follows, and is no mirror


def test_it_follows_with_one_frame_in_a_hundred_lost(tmp_path: Path) -> None:
    bench = DamiaoBench(BusFaults(lost=0.01, seed=2), core=True, trace=tmp_path / "trace.csv")
    rig = moved(bench, 4.0)
    check_followed(bench, rig, tmp_path / "trace.csv", 0.98)
    assert bench.bus.lost > 50
    rig.close()


@pytest.mark.slow(reason="a minute of a simulated arm: 20 s of computing; make can-arms")
def test_it_follows_for_a_minute(tmp_path: Path) -> None:
    bench = DamiaoBench(BusFaults(lost=0.01, seed=3), core=True, trace=tmp_path / "trace.csv")
    rig = moved(bench, 60.0)
    check_followed(bench, rig, tmp_path / "trace.csv", 0.98)
    rig.close()


@pytest.mark.parametrize("other", [(12.5, 8.0, 20.0), (6.0, 45.0, 54.0), (4.0, 10.0, 28.0)])
def test_the_motors_own_scales_are_read_and_not_assumed(other: tuple[float, float, float]) -> None:
    """Public drivers disagree on them; whoever assumes the wrong ones drives at another speed and torque."""

    def rescale(motors: list[SimulatedMotor]) -> None:
        for motor in motors[1:3]:
            motor.registers.update(zip((Register.PMAX, Register.VMAX, Register.TMAX), other))

    usual, scaled = DamiaoBench(core=True), DamiaoBench(core=True, change=rescale)
    seen = []
    for bench in (usual, scaled):
        rig = moved(bench, 1.2)
        seen.append(np.array(bench.bus.joints_rad))
        rig.close()
    assert np.abs(seen[0] - seen[1]).max() < 0.01


def silence(motors: list[SimulatedMotor]) -> None:
    motors[3].silent = True


def state(state: MotorState) -> Callable[[list[SimulatedMotor]], None]:
    def change(motors: list[SimulatedMotor]) -> None:
        motors[1].state = state

    return change


def register(which: Register, value: float) -> Callable[[list[SimulatedMotor]], None]:
    def change(motors: list[SimulatedMotor]) -> None:
        motors[0].registers[which] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (silence, r"motor 4 \(joint4\) does not answer at id 0x04 with 0x14; check its power"),
        (state(MotorState.ENABLED), r"motor 2 \(joint2\) is on: another program drives this arm; end it first"),
        (state(MotorState.OVERLOAD), r"motor 2 \(joint2\) has let go: overload; find the cause"),
        (register(Register.PMAX, 0.0), r"motor 1 \(joint1\) says that its scales are .*which no motor has"),
        (register(Register.VMAX, math.nan), "which no motor has"),
        (register(Register.TMAX, 1e30), "which no motor has"),
        (register(Register.PMAX, 3.0), r"counts to 3 rad \(PMAX\), which does not cover the joint's range"),
        (register(Register.ESC_ID, 9), "does not answer at id 0x01"),
    ],
)
def test_an_arm_that_cannot_be_driven_is_refused(change: Callable[[list[SimulatedMotor]], None], message: str) -> None:
    with pytest.raises(DriveError, match=message):
        DamiaoBench(change=change)


def test_what_an_earlier_run_left_is_put_right() -> None:
    def left(motors: list[SimulatedMotor]) -> None:
        motors[0].state = MotorState.COMMUNICATION_LOST
        motors[1].registers[Register.CTRL_MODE] = 2
        motors[2].registers[Register.TIMEOUT] = 0

    bench = DamiaoBench(change=left)
    assert [motor.state for motor in bench.motors] == [MotorState.DISABLED] * 6
    assert [motor.registers[Register.CTRL_MODE] for motor in bench.motors] == [frames.MIT_MODE] * 6
    assert {motor.registers[Register.TIMEOUT] * frames.TIMEOUT_UNIT_S for motor in bench.motors} == {TIMEOUT_S}


@pytest.mark.parametrize("turns", [-1, 1])
def test_a_motor_that_counts_from_another_turn(turns: int) -> None:
    def turned(motors: list[SimulatedMotor]) -> None:
        motors[1].position_rad += 2 * math.pi * turns

    assert np.allclose(DamiaoBench(change=turned).drive.position_rad, YAM.home_rad, atol=5e-3)


@pytest.mark.parametrize("pose", [(0.0,) * 6, YAM.home_rad, (1.0, 2.0, 0.5, 1.0, -1.0, 0.3)])
def test_an_arm_that_sank_onto_its_stops_can_start_there(pose: tuple[float, ...]) -> None:
    """It has no brakes: wherever its motors went off, that is where the next run finds it."""

    def sunk(motors: list[SimulatedMotor]) -> None:
        for motor, q in zip(motors, pose):
            motor.position_rad = q
        bus = SimulatedBus(MOTORS, motors, BusFaults(), 0, MOTORS.tool_kg)
        for now_ms in range(0, 3000, 10):
            bus.advance(1_000_000 * now_ms)

    bench = DamiaoBench(core=True, change=sunk)
    ends = [abs(q - end) < 0.02 for spec, q in zip(MOTORS.motors, bench.bus.joints_rad) for end in spec.range_rad]
    assert any(ends)
    rig = DamiaoRig(bench).armed()
    assert rig.state().state == DeviceState.ARMED
    rig.close()


def on(bench: DamiaoBench, cycles: int = 20) -> DamiaoDrive:
    """The drive, on and standing."""
    here = bench.drive.measure().position_rad
    for _ in range(cycles):
        bench.drive.command(here, [0.0] * 6, True)
        told = bench.drive.measure()
    assert told.ok and told.drive_is_on
    return bench.drive


def test_it_holds_a_weight_and_bends_by_what_it_does_not_know() -> None:
    bench = DamiaoBench()
    before = np.array(bench.bus.joints_rad)
    on(bench, 200)
    sagged = np.abs(np.array(bench.bus.joints_rad) - before).max()
    assert 1e-3 < sagged < 0.06


def test_motors_let_go_by_themselves_when_nobody_speaks() -> None:
    bench = DamiaoBench()
    on(bench)
    bench.clock.ns += round(1e9 * 0.9 * TIMEOUT_S)
    bench.bus.advance(bench.clock.ns)
    assert all(motor.state == MotorState.ENABLED for motor in bench.motors)
    bench.clock.ns += round(1e9 * 0.2 * TIMEOUT_S)
    for _ in range(20):
        bench.clock.ns += 10_000_000
        bench.bus.advance(bench.clock.ns)
    assert all(motor.state == MotorState.COMMUNICATION_LOST for motor in bench.motors)


def test_a_joint_that_is_silent_is_told_as_long_as_it_lasts() -> None:
    bench = DamiaoBench()
    drive = on(bench)
    here = drive.position_rad
    bench.motors[4].silent = True
    ok = []
    for _ in range(20):
        drive.command(here, [0.0] * 6, True)
        ok.append(drive.measure().ok)
    assert ok.index(False) == pytest.approx(OLDEST_S / 0.004, abs=2) and not ok[-1]
    assert bench.said == [f"motor 5 (joint5) has been silent for {said(bench)} ms; check the cables"]
    bench.motors[4].silent = False
    drive.command(here, [0.0] * 6, True)
    drive.measure()
    drive.command(here, [0.0] * 6, True)
    assert drive.measure().ok


def said(bench: DamiaoBench) -> str:
    return bench.said[0].split(" for ")[1].split(" ms")[0]


def test_an_adapter_that_is_pulled_out_is_looked_for_again() -> None:
    bench = DamiaoBench()
    drive = on(bench)
    here = drive.position_rad
    bench.can.broken = True
    for _ in range(10):
        drive.command(here, [0.0] * 6, True)
        told = drive.measure()
    assert not told.ok and "pulled out; the motors let go by themselves after 100 ms" in bench.said[0]
    bench.can.broken = False
    for _ in range(500):
        drive.command(here, [0.0] * 6, False)
        told = drive.measure()
    assert told.ok and not told.drive_is_on and bench.said[-1] == "the motors answer again"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda motors: setattr(motors[2], "motor_c", 80), "is at 80 degrees"),
        (lambda motors: setattr(motors[2], "fault", MotorState.UNDERVOLTAGE), "has let go: undervoltage"),
    ],
)
def test_a_motor_in_trouble_stops_the_arm(spoil: Callable[[list[SimulatedMotor]], None], message: str) -> None:
    bench = DamiaoBench(core=True)
    rig = moved(bench, 0.8)
    spoil(bench.motors)
    report = rig.state()
    assert (report.state, report.reason) == (DeviceState.FAULT, StopReason.FEEDBACK_LOST)
    assert message in bench.said[0]
    rig.close()


def test_a_set_point_that_is_no_number_is_never_sent() -> None:
    bench = DamiaoBench()
    drive = on(bench)
    here = drive.position_rad
    drive.command([math.nan, *here[1:]], [0.0] * 6, True)
    assert bench.can.sent[-1].data == frames.DISABLE
    assert not drive.measure().ok and "not finite" in bench.said[0]


@pytest.mark.parametrize(
    ("motors", "bitrate", "fits"),
    [(6, 1_000_000, True), (7, 1_000_000, True), (6, 500_000, False), (14, 1_000_000, False)],
)
def test_the_load_of_the_bus_is_worked_out_and_refused(motors: int, bitrate: int, fits: bool) -> None:
    load = exchange(motors, bitrate)
    assert load.share == pytest.approx(2 * motors * 135 / bitrate / 0.004)
    if fits:
        load.check()
    else:
        with pytest.raises(
            PortError, match=r"the bus would be \d+ % busy \(limit 80 %\): \d+ motors x 2 frames of 135"
        ):
            load.check()
