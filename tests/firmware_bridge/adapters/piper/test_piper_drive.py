"""A Piper's drive on a simulated arm, on a stepped clock: what it asks first, what it bridges, and when it stops."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge.log.trace import read_trace
from firmware_bridge.adapters import DriveError
from firmware_bridge.adapters.piper import frames
from firmware_bridge.adapters.piper.drive import OLDEST_HEALTH_S, PiperDrive, bus_share
from firmware_bridge.adapters.piper.frames import ArmState, Control, Health
from firmware_bridge.adapters.piper.simulated import RANGES_RAD, SimulatedPiper
from firmware_bridge.adapters.simulated_can import BusFaults
from firmware_bridge.codes import DeviceState, StopReason
from firmware_bridge.errors import PortError
from firmware_bridge.transports.can_stream import CanFrame
from tests.piper_bench import PIPER, SWING, PiperBench, PiperRig
from tests.support import broken_limits, chunk_from

FOLLOWS_RAD = 0.06
"""Half a kilogram, a cycle, a report and the motor's own lag; [following] is at 0.2."""
REST = [0.0] * 7


def moved(bench: PiperBench, seconds: float) -> PiperRig:
    """A rig that has streamed a motion for so long."""
    rig = PiperRig(bench).armed()
    rig.swing(SWING, seconds)
    return rig


def check_followed(bench: PiperBench, rig: PiperRig, trace: Path) -> None:
    assert rig.state().state == DeviceState.STREAMING
    assert bench.said == []
    told = bench.drive.statistics()
    assert 0.97 < told["success_rate_least"] < 1.0 and told["positions_implausible"] == 0
    bench.core.flush()
    rows = read_trace(trace)
    assert broken_limits(rows, PIPER) == []
    streaming = np.flatnonzero(rows.state == "STREAMING")
    at_us = rows.tick_us[streaming[-1]] - rows.tick_us[streaming[0]]
    seen = np.array([q for _, q in bench.seen])[-at_us // 5000 :]
    wanted = rows.q[streaming][-len(seen) * 5 :: 5][: len(seen)]
    away = np.abs(seen[: len(wanted)] - wanted).max(axis=0)
    print("furthest from the set-points, by axis:", np.round(away, 4))
    assert np.all(away[:6] < FOLLOWS_RAD) and np.all(away[:6] > 1e-3), away  # it follows, and is no mirror
    assert 1e-4 < away[6] < 0.01


def test_it_follows_with_one_frame_in_a_hundred_lost(tmp_path: Path) -> None:
    bench = PiperBench(BusFaults(lost=0.01, seed=2), core=True, trace=tmp_path / "trace.csv")
    rig = moved(bench, 3.6)
    check_followed(bench, rig, tmp_path / "trace.csv")
    assert bench.arm.lost > 100
    rig.close()


@pytest.mark.slow(reason="a minute of a simulated arm: a minute of computing; make can-arms")
def test_it_follows_for_a_minute(tmp_path: Path) -> None:
    bench = PiperBench(BusFaults(lost=0.01, seed=3), core=True, trace=tmp_path / "trace.csv")
    rig = moved(bench, 60.0)
    check_followed(bench, rig, tmp_path / "trace.csv")
    print(f"{bench.arm.lost} of {bench.arm.frames} frames lost, {bench.drive.statistics()}")
    rig.close()


def quiet(*ids: int) -> Callable[[SimulatedPiper], None]:
    return lambda arm: arm.silent.update(ids)


def leading(arm: SimulatedPiper) -> None:
    arm.leads = True


def holding(arm: SimulatedPiper) -> None:
    for joint in arm.joints:
        joint.switch(True)


def unset(arm: SimulatedPiper) -> None:
    arm.has_zero = False


def limits(**fields: float) -> Callable[[SimulatedPiper], None]:
    def change(arm: SimulatedPiper) -> None:
        arm.joints[1].limits = replace(arm.joints[1].limits, **fields)

    return change


def slowed(arm: SimulatedPiper) -> None:
    arm.joints[4].acceleration_rad_s2 = 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (quiet(*frames.POSITIONS, frames.STATUS, frames.WIDTH, *frames.HEALTHS), "controller is not heard on the bus"),
        (quiet(0x263), r"motor 3 \(joint3\) is not heard on the bus; check the arm's power"),
        (quiet(0x2A8), "the gripper is not heard"),
        (leading, "is set up as a leader and takes no commands"),
        (holding, "the arm holds a pose already: take the arm in hand, and let go of it by let_go=1"),
        (unset, "the gripper has no zero; close it"),
        (
            limits(high_rad=2.0),
            r"motor 2 \(joint2\) goes from 0.000 to 2.0\d+ rad, as it is set, and the profile operates",
        ),
        (limits(speed=100), r"motor 2 \(joint2\) does at most 1 rad/s, as it is set"),
        (slowed, r"motor 5 \(joint5\) does at most 1 rad/s\^2"),
    ],
)
def test_an_arm_that_cannot_be_driven_is_refused(change: Callable[[SimulatedPiper], None], message: str) -> None:
    with pytest.raises(DriveError, match=message):
        PiperBench(change=change)


def test_an_arm_of_older_firmware_says_its_speeds_in_thousandths() -> None:
    with pytest.raises(DriveError, match=r"does at most 0\.3 rad/s"):
        PiperBench(firmware="S-V1.5-7")
    with pytest.raises(DriveError, match="does not tell its firmware's version"):
        PiperBench(firmware="S-Vnext!")


def test_one_that_somebody_else_commands_is_refused() -> None:
    class Shared(PiperBench):
        def open_drive(self, let_go: bool = False) -> PiperDrive:
            plain = self.can.receive
            self.can.receive = lambda: [*plain(), CanFrame(0x155, bytes(8))]  # type: ignore[method-assign]
            return super().open_drive(let_go)

    with pytest.raises(DriveError, match="another program, or a leader arm, commands this arm; end it first"):
        Shared()


def test_an_arm_that_was_left_holding_is_let_go_on_request() -> None:
    bench = PiperBench(change=holding, let_go=True)
    assert not any(joint.on_s for joint in bench.arm.joints)


def on(bench: PiperBench, cycles: int = 40) -> PiperDrive:
    """The drive, on and standing."""
    here = bench.drive.measure().position_rad
    for _ in range(cycles):
        bench.drive.command(here, REST, True)
        told = bench.drive.measure()
    assert told.ok and told.drive_is_on
    return bench.drive


def test_no_motor_comes_on_with_an_old_target() -> None:
    """Someone else's targets may still be with the arm: ours are there before the first motor comes on."""
    bench = PiperBench()
    for joint in bench.arm.joints:
        joint.way.target += 0.5
    before = bench.joints_rad
    on(bench, 100)
    assert np.abs(bench.joints_rad - before).max() < 0.02
    ids = [frame.id for frame in bench.can.sent]
    assert max(ids.index(one) for one in (frames.MODE, *frames.TARGETS)) < ids.index(frames.ENABLE)


def test_a_target_never_leaves_what_the_motors_are_set_to_keep() -> None:
    """The arm would refuse it, and stop."""
    bench = PiperBench()
    drive = on(bench)
    for sign in (-1, 1):
        drive.command([4.0 * sign] * 6 + [0.05], [3.0 * sign] * 7, True)
        last = [frame for frame in bench.can.sent if frame.id in frames.TARGETS][-3:]
        told = [q for frame in last for q in frames.unpack_pair(frame.data)]
        assert all(low <= q <= high for q, (low, high) in zip(told, RANGES_RAD))
    assert bench.arm.status.state == ArmState.NORMAL


def test_the_fingers_stop_at_what_they_hold(tmp_path: Path) -> None:
    bench = PiperBench(core=True, trace=tmp_path / "trace.csv", change=lambda arm: setattr(arm, "blocked_m", 0.03))
    rig = PiperRig(bench).armed()
    begin = np.array(rig.state().commanded_urad) * 1e-6
    phase, way = np.linspace(0.0, np.pi, 11), 0.005 - begin[6]
    q = np.tile(begin, (11, 1))
    q[:, 6] += way / 2 * (1 - np.cos(phase))
    dq = np.zeros_like(q)
    dq[:, 6] = way / 2 * np.sin(phase) * np.pi
    assert rig.commit(chunk_from(1, rig.device_us + 50_000, q, dq, 100_000)) is None
    rig.run(1300)
    assert rig.state().state == DeviceState.ARMED and bench.said == []  # and no following error
    assert bench.arm.width_m == pytest.approx(0.03, abs=1e-4)
    assert bench.drive.position_rad[6] == pytest.approx(0.03, abs=1e-4)
    rig.close()


@pytest.mark.parametrize(("one", "after_s"), [(0x2A6, 0.05), (0x2A1, 0.05), (0x264, OLDEST_HEALTH_S)])
def test_what_is_silent_is_told_as_long_as_it_lasts(one: int, after_s: float) -> None:
    bench = PiperBench()
    drive = on(bench)
    here = drive.position_rad
    bench.arm.silent.add(one)
    ok = []
    for _ in range(80):
        drive.command(here, REST, True)
        ok.append(drive.measure().ok)
    assert ok.index(False) == pytest.approx(after_s / 0.005, abs=7) and not ok[-1]
    assert len(bench.said) == 1 and "has been silent for" in bench.said[0]
    bench.arm.silent.clear()
    for _ in range(10):
        drive.command(here, REST, True)
        told = drive.measure()
    assert told.ok


def collides(arm: SimulatedPiper) -> None:
    arm.joints[2].load_nm = 20.0


def taught(arm: SimulatedPiper) -> None:
    arm.status = replace(arm.status, control=Control.TEACHING)


def stopped(arm: SimulatedPiper) -> None:
    arm.receive(CanFrame(frames.STOP, b"\x01" + bytes(7)), arm._now_ns)


def hot(arm: SimulatedPiper) -> None:
    arm.joints[0].faults = Health.MOTOR_TOO_HOT


def pinched(arm: SimulatedPiper) -> None:
    arm.gripper_faults = Health.OVERCURRENT


TROUBLES = {
    "a collision": (collides, r"motor 3 \(joint3\) has let go: collision|stopped by itself: collision"),
    "taught by hand": (taught, r"under other control \(teaching\)"),
    "an emergency stop": (stopped, "stopped by itself: emergency stop; find out why it was stopped"),
    "too hot": (hot, r"motor 1 \(joint1\) has let go: motor too hot"),
    "the gripper": (pinched, "the gripper has let go: overcurrent"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_an_arm_in_trouble_is_a_fault_until_it_is_cleared(trouble: str) -> None:
    spoil, message = TROUBLES[trouble]
    bench = PiperBench(core=True)
    rig = moved(bench, 0.8)
    spoil(bench.arm)
    rig.run(200)
    report = rig.state()
    assert (report.state, report.reason) == (DeviceState.FAULT, StopReason.FEEDBACK_LOST)
    assert re.search(message, bench.said[0]), bench.said
    assert bench.drive.fault and not any(joint.on_s for joint in bench.arm.joints)
    for joint in bench.arm.joints:
        joint.load_nm = 0.0
    rig.close()
    bench.drive.while_waiting(lambda: None)
    bench.drive.clear()
    for _ in range(200):
        bench.drive.command(bench.drive.position_rad, REST, False)
        told = bench.drive.measure()
    assert told.ok and not bench.drive.fault and bench.arm.status.state == ArmState.NORMAL
    on(bench)


def test_an_arm_found_in_trouble_is_a_fault_before_anything_is_armed() -> None:
    bench = PiperBench(change=lambda arm: arm.collide(1))
    assert "motor 2 (joint2) has let go: collision" in bench.drive.fault
    assert not bench.drive.measure().ok


def test_an_adapter_that_is_pulled_out_leaves_the_arm_holding_and_is_looked_for_again() -> None:
    bench = PiperBench()
    drive = on(bench)
    here = drive.position_rad
    bench.can.broken = True
    for _ in range(10):
        drive.command(here, REST, True)
        told = drive.measure()
    assert not told.ok and bench.said == ["the adapter was pulled out; the arm holds its last target"]
    assert bench.arm.is_on, "it has no timeout of its own"
    bench.can.broken = False
    for _ in range(500):
        drive.command(here, REST, False)
        told = drive.measure()
    assert told.ok and not told.drive_is_on and bench.said[-1] == "the arm answers again"


def test_a_set_point_that_is_no_number_is_never_sent() -> None:
    bench = PiperBench()
    drive = on(bench)
    here = drive.position_rad
    sent = len(bench.can.sent)
    drive.command([math.nan, *here[1:]], REST, True)
    assert not any(frame.id in frames.TARGETS for frame in bench.can.sent[sent:])
    assert not drive.measure().ok and "not finite" in bench.said[0]


@pytest.mark.parametrize(("bitrate", "fits"), [(1_000_000, True), (800_000, True), (500_000, False)])
def test_the_load_of_the_bus_is_worked_out_and_refused(bitrate: int, fits: bool) -> None:
    load = bus_share(bitrate)
    assert load.share == pytest.approx((3040 + 1000) * 135 / bitrate)
    if fits:
        load.check()
    else:
        with pytest.raises(PortError, match=r"bus would be 109 % busy \(limit 80 %\): the arm's 3040 reports"):
            load.check()
