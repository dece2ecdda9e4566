"""What every arm with a protocol of its own must offer; one joins by `BENCHES` (docs/extend.md)."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from edge.arms import available_arms, load_arm
from edge.arms.drives import DRIVES
from edge.arms.franka import arm_limits
from edge.log.trace import read_trace
from firmware_bridge.adapters import ArmDrive
from firmware_bridge.adapters.bus_drive import BRIDGED_PERIODS as BUS_BRIDGED
from firmware_bridge.adapters.damiao.frames import MotorState
from firmware_bridge.adapters.feetech import registers as reg
from firmware_bridge.adapters.franka_fci import BRIDGED_PERIODS, FrankaDrive
from firmware_bridge.adapters.franka_hand import open_franka
from firmware_bridge.adapters.franka_options import FrankaOptions
from firmware_bridge.adapters.piper.frames import Health
from firmware_bridge.codes import DeviceState
from tests.damiao_bench import YAM, DamiaoBench, DamiaoRig
from tests.firmware_bridge.adapters.contract import ArmBench, serve
from tests.firmware_bridge.adapters.scripted_franka import ControlException, ScriptedRobot, library
from tests.firmware_bridge.adapters.strict_bench import StrictBench
from tests.franky import franky
from tests.piper_bench import PIPER, PiperBench, PiperRig
from tests.servo_bench import SO101, ServoBench, ServoRig, resting
from tests.support import FRANKA, Rig, broken_limits, chunk_from, states_in_order
from tests.two_arm_bench import BOTH, TwoArmBench, TwoArmRig

ADDRESS = "127.0.0.52"
LIMITS = arm_limits(FRANKA)
SWING_RAD = 0.03
SETTLES = 20
"""Measurements until an arm knows that its drive is off; until then it may say that it is on, and never the reverse."""
HAND = "franka_hand" in available_arms()


class ScriptedFranka(ArmBench):
    """A robot that is where it was told to be; it breaks down by a reflex."""

    arm, near_rad, bridged = FRANKA, 1e-6, BRIDGED_PERIODS

    def __init__(self) -> None:
        self._robot = ScriptedRobot([], follows=True)
        self._robot.measured = self._robot.desired = FRANKA.home_rad
        self._before = sys.modules.get("pylibfranka")
        sys.modules["pylibfranka"] = library(self._robot)

    def open(self) -> ArmDrive:
        return FrankaDrive("172.16.0.2", FrankaOptions(), LIMITS, lambda text: None)

    def break_down(self) -> None:
        self._robot.raises = ControlException("motion aborted by reflex")
        self._robot.errors = "joint_reflex"

    def heal(self) -> None:
        self._robot.errors = ""

    def close(self) -> None:
        del sys.modules["pylibfranka"]
        if self._before is not None:
            sys.modules["pylibfranka"] = self._before


class SimulatedFranka(ArmBench):
    """franky-sim in lockstep; it breaks down by its end."""

    near_rad, bridged = 0.005, BRIDGED_PERIODS

    def __init__(self, arm: str, mode: str = "position", gripper: bool = False) -> None:
        pytest.importorskip("franky_sim", reason="pip install franky-sim pin")
        pytest.importorskip("pylibfranka", reason="pip install 'vla-edge[franka]'")
        self.arm = load_arm(arm)
        self._options = FrankaOptions(realtime="ignore", mode=mode, gripper=gripper)
        self._stack = ExitStack()
        self.heal()

    def open(self) -> ArmDrive:
        return open_franka(ADDRESS, self._options, LIMITS, lambda text: None)

    def break_down(self) -> None:
        self._stack.close()

    def heal(self) -> None:
        self._stack.enter_context(franky(ADDRESS, lockstep=True))

    def close(self) -> None:
        self._stack.close()


class SimulatedServos(ArmBench):
    """An SO-101 on its simulated bus, on a stepped clock; it breaks down by a servo that is too hot."""

    arm, near_rad, bridged = SO101, 0.03, BUS_BRIDGED  # a load of 0.15 holds a joint 0.014 away

    def __init__(self) -> None:
        self._bench = ServoBench(change=resting)

    def open(self) -> ArmDrive:
        return self._bench.open_drive()

    def break_down(self) -> None:
        self._bench.servos[3][reg.PRESENT_TEMPERATURE] = 90

    def heal(self) -> None:
        self._bench.servos[3][reg.PRESENT_TEMPERATURE] = 30

    def rig(self, trace: Path) -> ServoRig:
        return ServoRig(ServoBench(core=True, trace=trace, change=resting))

    def device_us(self, rig: Rig) -> int:
        assert isinstance(rig, ServoRig)
        return rig.device_us

    def close(self) -> None:
        pass


class TwoArms(ArmBench):
    """Two SO-101, each on its simulated bus; they break down by a servo of the right one that is too hot."""

    arm, near_rad, bridged = BOTH, 0.03, BUS_BRIDGED

    def __init__(self) -> None:
        self._bench = TwoArmBench(change=resting)

    def open(self) -> ArmDrive:
        return self._bench.open_drive()

    def break_down(self) -> None:
        self._bench.sides["right"].servos[3][reg.PRESENT_TEMPERATURE] = 90

    def heal(self) -> None:
        self._bench.sides["right"].servos[3][reg.PRESENT_TEMPERATURE] = 30

    def rig(self, trace: Path) -> TwoArmRig:
        return TwoArmRig(TwoArmBench(core=True, trace=trace, change=resting))

    def device_us(self, rig: Rig) -> int:
        assert isinstance(rig, TwoArmRig)
        return rig.device_us

    def close(self) -> None:
        pass


class SimulatedMotors(ArmBench):
    """A YAM on its simulated bus, on a stepped clock; it breaks down by a motor that is overloaded."""

    arm, near_rad, bridged = YAM, 0.05, BUS_BRIDGED

    def __init__(self) -> None:
        self._bench = DamiaoBench()

    def open(self) -> ArmDrive:
        return self._bench.open_drive()

    def break_down(self) -> None:
        self._bench.motors[2].fault = MotorState.OVERLOAD

    def heal(self) -> None:
        self._bench.motors[2].fault = MotorState.DISABLED

    def rig(self, trace: Path) -> DamiaoRig:
        return DamiaoRig(DamiaoBench(core=True, trace=trace))

    def device_us(self, rig: Rig) -> int:
        assert isinstance(rig, DamiaoRig)
        return rig.device_us

    def close(self) -> None:
        pass


class SimulatedPiper(ArmBench):
    """A Piper on its simulated bus, on a stepped clock; it breaks down by a motor that is too hot."""

    arm, near_rad, bridged = PIPER, 0.03, BUS_BRIDGED

    def __init__(self) -> None:
        self._bench = PiperBench()

    def open(self) -> ArmDrive:
        return self._bench.open_drive()

    def break_down(self) -> None:
        self._bench.arm.joints[2].faults = Health.MOTOR_TOO_HOT

    def heal(self) -> None:
        pass  # it has cooled down; its driver keeps the flag until it is cleared

    def rig(self, trace: Path) -> PiperRig:
        return PiperRig(PiperBench(core=True, trace=trace))

    def device_us(self, rig: Rig) -> int:
        assert isinstance(rig, PiperRig)
        return rig.device_us

    def close(self) -> None:
        pass


BENCHES = {
    "franka, scripted": ScriptedFranka,
    "franka, strict": StrictBench,
    "franka, strict, by velocity": lambda: StrictBench(FrankaOptions(mode="velocity")),
    "so101, simulated": SimulatedServos,
    "two so101, simulated": TwoArms,
    "yam, simulated": SimulatedMotors,
    "piper, simulated": SimulatedPiper,
    "franka, simulated": lambda: SimulatedFranka("franka"),
    "franka, simulated, by velocity": lambda: SimulatedFranka("franka", mode="velocity"),
    **({"franka with its hand, simulated": lambda: SimulatedFranka("franka_hand", gripper=True)} if HAND else {}),
}


@pytest.fixture(scope="module", params=BENCHES)
def bench(request: pytest.FixtureRequest) -> Iterator[ArmBench]:
    bench = BENCHES[request.param]()
    yield bench
    bench.close()


@pytest.fixture
def drive(bench: ArmBench) -> Iterator[ArmDrive]:
    drive = bench.open()
    yield drive
    drive.close()


def test_every_arm_is_held_to_it() -> None:
    arms = {
        "fci": "franka, scripted",
        "feetech": "so101, simulated",
        "damiao": "yam, simulated",
        "piper": "piper, simulated",
    }
    assert set(arms) == set(DRIVES.builtin) and set(arms.values()) <= set(BENCHES)


def test_it_has_limits_and_a_home_within_them(bench: ArmBench, drive: ArmDrive) -> None:
    low, high = bench.arm.operating.position_min_rad, bench.arm.operating.position_max_rad
    assert all(a < q < b for a, q, b in zip(low, bench.arm.home_rad, high))
    assert len(drive.position_rad) == bench.arm.dof
    assert all(a <= q <= b for a, q, b in zip(low, drive.position_rad, high))


def test_it_tells_where_it_is_and_stays_there_until_it_is_asked(bench: ArmBench, drive: ArmDrive) -> None:
    before = drive.position_rad
    serve(drive, before, False, lambda told: not told.drive_is_on, SETTLES)
    for _ in range(50):
        told = drive.measure()
        assert told.ok and not told.drive_is_on and told.periods >= 0
        assert len(told.position_rad) == bench.arm.dof and all(map(math.isfinite, told.position_rad))
        drive.command([q + SWING_RAD for q in before], [0.0] * bench.arm.dof, False)
    assert np.abs(np.subtract(drive.position_rad, before)).max() <= bench.near_rad


def test_the_drive_comes_on_and_goes_off_as_measured(bench: ArmBench, drive: ArmDrive) -> None:
    here = drive.measure().position_rad
    drive.command(here, [0.0] * bench.arm.dof, True)
    serve(drive, here, True, lambda told: told.ok and told.drive_is_on)
    serve(drive, here, False, lambda told: True)
    told = serve(drive, here, False, lambda told: not told.drive_is_on)
    assert told.ok
    for _ in range(20):
        assert not drive.measure().drive_is_on, "and it stays off"
        drive.command(here, [0.0] * bench.arm.dof, False)


def test_a_fault_is_told_and_cleared_only_by_a_word(bench: ArmBench, drive: ArmDrive) -> None:
    here = drive.measure().position_rad
    drive.command(here, [0.0] * bench.arm.dof, True)
    serve(drive, here, True, lambda told: told.drive_is_on)
    bench.break_down()
    told = serve(drive, here, True, lambda told: not told.ok)
    assert not told.drive_is_on or serve(drive, here, False, lambda told: not told.drive_is_on)
    bench.heal()
    serve(drive, here, False, lambda told: told.ok)
    here = drive.measure().position_rad
    drive.command(here, [0.0] * bench.arm.dof, True)
    serve(drive, here, True, lambda told: not told.ok, 20)  # the core wants it on, and is told again
    drive.measure()
    drive.command(here, [0.0] * bench.arm.dof, False)
    drive.clear()
    serve(drive, here, False, lambda told: told.ok)
    serve(drive, here, True, lambda told: told.ok and told.drive_is_on)


def test_what_it_tells_of_its_line_fits_a_report(drive: ArmDrive) -> None:
    drive.measure()
    told = drive.statistics()
    assert all(math.isfinite(value) for value in told.values())
    assert json.loads(json.dumps(told)) == told


def test_it_lets_go_in_motion_and_twice(bench: ArmBench) -> None:
    drive = bench.open()
    here = drive.measure().position_rad
    drive.command(here, [0.0] * bench.arm.dof, True)
    serve(drive, here, True, lambda told: told.drive_is_on)
    drive.close()
    drive.close()
    again = bench.open()
    serve(again, again.position_rad, False, lambda told: not told.drive_is_on, SETTLES)
    again.close()


def test_the_core_moves_it_within_the_limits(bench: ArmBench, tmp_path: Path) -> None:
    rig = bench.rig(tmp_path / "trace.csv")
    on_bench = rig.device
    try:
        rig.armed()
        begin = np.array(rig.state().commanded_urad) * 1e-6
        limits = bench.arm.operating
        way = SWING_RAD * np.sign(np.add(limits.position_min_rad, limits.position_max_rad) / 2 - begin)
        way[way == 0.0] = SWING_RAD
        phase = np.linspace(0.0, np.pi, 11)[:, None]
        q = begin + way * 0.5 * (1 - np.cos(phase))
        dq = way * 0.5 * np.sin(phase) * np.pi
        assert rig.commit(chunk_from(1, bench.device_us(rig) + 50_000, q, dq, 100_000)) is None
        rig.run(1100)
        rig.client.stop()
        rig.run(700)
        assert on_bench.state == DeviceState.HOLD
        assert np.abs(np.subtract(on_bench.drive.position_rad, begin + way)).max() <= bench.near_rad
        rig.client.disarm()
        rig.run(50)
        assert on_bench.state == DeviceState.IDLE and not on_bench.drive.measure().drive_is_on
        on_bench.core.flush()
        trace = read_trace(tmp_path / "trace.csv")
        armed = trace.part(slice(int(np.flatnonzero(trace.state == "ARMED")[0]), None))  # it begins where the arm is
        assert "STREAMING" in states_in_order(trace) and broken_limits(armed, bench.arm) == []
    finally:
        rig.close()
