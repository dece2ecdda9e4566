"""Two arms of one run, each on its own bus: they move together, and whatever stops one of them stops both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge.arms.bridge import check_bridge
from edge.arms.feetech import feetech_url, open_leader
from edge.arms.stopping import stop_bounds
from edge.errors import InputError
from edge.log.trace import Trace, read_trace, violations
from firmware_bridge.adapters.feetech import registers as reg
from firmware_bridge.adapters.feetech.bus import ServoBus
from firmware_bridge.adapters.feetech.registers import Fault
from firmware_bridge.adapters.feetech.simulated_bus import LineFaults
from firmware_bridge.codes import DeviceState
from tests.servo_bench import SO101, SOUND, calibration
from tests.so101_motion import AMPLITUDE, Motion, worst_degrees
from tests.two_arm_bench import AXES, BOTH, SIDES, OneSide, TwoArmBench, TwoArmRig

REST = [0.0] * 12
TICK_US = 1000
MOVES_RAD_S = 0.05


class Moving:
    """Both arms under way, the right one the mirror image of the left."""

    def __init__(self, folder: Path, faults: LineFaults = SOUND, chunks: int = 1) -> None:
        self._trace = folder / "trace.csv"
        self.bench = TwoArmBench(faults, core=True, trace=self._trace)
        self.rig = TwoArmRig(self.bench)
        self.rig.armed()
        commanded = np.array(self.rig.state().commanded_urad) / 1e6
        amplitude = np.concatenate([AMPLITUDE, AMPLITUDE * [-1, 1, 1, 1, -1, 1]])
        motion = Motion(commanded, self.rig.device_us + 100_000, amplitude)
        for number in range(chunks):
            assert self.rig.commit(motion.chunk(number)) is None
            self.rig.run(488)

    @property
    def trace(self) -> Trace:
        self.bench.core.flush()
        return read_trace(self._trace)


@pytest.mark.parametrize("faults", [SOUND, LineFaults(corrupted=0.01, seed=7)], ids=str)
def test_both_move_along_the_trajectory_at_200_hz(tmp_path: Path, faults: LineFaults) -> None:
    moving = Moving(tmp_path, faults, chunks=4)
    bench, trace = moving.bench, moving.trace
    began_us = (bench.drive._arms[0]._reported_ns - 1000 * bench.core.now_us) / 1000
    seen_us = np.array([at_ns for at_ns, _ in bench.seen]) / 1000 - began_us
    worst, lag_ms = worst_degrees(trace, seen_us, np.array([shafts for _, shafts in bench.seen]))
    print(f"{worst:.2f} degrees at most, {lag_ms} ms later")  # for docs/howto/so101.md
    assert worst < 0.3 and lag_ms < 25 and bench.said == [] and bench.adapter.lost_periods == 0
    assert violations(trace, BOTH.limits) == [] and np.ptp(trace.q, axis=0)[[0, 6]].min() > 0.5


def pulled_out(side: OneSide) -> None:
    side.port.broken = True


def silent(side: OneSide) -> None:
    side.servos[3].silent = True


def hot(side: OneSide) -> None:
    side.servos[2][reg.PRESENT_TEMPERATURE] = 66


def overloaded(side: OneSide) -> None:
    side.servos[2]._latched |= Fault.OVERLOAD


def blocked(side: OneSide) -> None:
    side.servos[1].stalled = True


def let_go(side: OneSide) -> None:
    side.bus.servos[5] = side.servos[5] = side.servos[5].started_anew()


def dark(side: OneSide) -> None:
    for servo in side.servos.values():
        servo.silent = True


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("fault", [pulled_out, silent, hot, overloaded, blocked, let_go, dark])
def test_a_fault_of_one_arm_stops_the_other_within_two_ticks(
    tmp_path: Path, side: str, fault: Callable[[OneSide], None]
) -> None:
    moving = Moving(tmp_path)
    bench, (other,) = moving.bench, [name for name in SIDES if name != side]
    fault(bench.sides[side])
    moving.rig.run(700)
    trace = moving.trace
    assert bench.state == DeviceState.FAULT and violations(trace, BOTH.limits) == []
    if fault is not blocked:  # that the core sees itself
        assert bench.said and all(f"({side}_" in line or "pulled out" in line for line in bench.said)
    at = int(np.argmax(trace.state == "FAULT"))
    assert trace.state[at - 1] == "STREAMING"
    if bench.drive.first_bad_us is not None and fault is not blocked:
        assert trace.tick_us[at] - bench.drive.first_bad_us <= 2 * TICK_US, "told, and stopping"
    before, after = trace.dq[at - 1, AXES[other]], np.diff(trace.dq[at - 2 : at + 2, AXES[other]], axis=0)
    moves = np.abs(before) > MOVES_RAD_S
    assert moves.sum() >= 3, "the other one is in motion"
    braking = -np.sign(before[moves]) * np.diff(after, axis=0)[:, moves]
    assert (braking[0] > 0).all() or (braking[1] > 0).all(), "it brakes in the tick of the fault, or the next one"
    longest_ms = 1000 * max(bound.time_s for bound in stop_bounds(BOTH))
    assert (trace.dq[at + round(longest_ms) :] == 0).all(), "and has come to rest as fast as any stop"
    assert not bench.sides[other].holds
    rest = np.array([shafts for at_ns, shafts in bench.seen])[-40:, AXES[other]]
    assert np.ptp(rest, axis=0).max() < 1e-3


@pytest.mark.parametrize("side", SIDES)
def test_no_arm_comes_on_while_the_other_has_a_fault(side: str) -> None:
    bench = TwoArmBench()
    here = bench.drive.measure().position_rad
    bench.drive.command(here, REST, False)
    bench.sides[side].servos[4].registers[reg.PRESENT_TEMPERATURE.address] = 90
    for _ in range(30):
        bench.drive.measure()
        bench.drive.command(here, REST, False)
    assert side in bench.said[0]
    asked = []
    for _ in range(20):
        bench.drive.command(here, REST, True)
        asked.append(bench.drive.measure().ok)
    assert not any(asked) and not any(one.holds for one in bench.sides.values())


def test_closing_lets_both_go(tmp_path: Path) -> None:
    moving = Moving(tmp_path, chunks=0)
    assert all(servo.is_on for one in moving.bench.sides.values() for servo in one.servos.values())
    moving.bench.drive.close()
    assert not any(one.holds for one in moving.bench.sides.values())
    assert len(moving.bench.drive.position_rad) == 2 * SO101.dof


# The URL -------------------------------------------------------------------------------------------------------------


def test_each_arm_has_a_port_and_a_calibration_of_its_own() -> None:
    left, right = feetech_url("feetech:/dev/l,/dev/r").buses(BOTH)
    assert (left.side, left.port, str(left.file)) == ("left", "/dev/l", "bi_so101-left-calibration.json")
    assert (right.port, right.arm, right.axes) == ("/dev/r", SO101, slice(6, 12))
    named = feetech_url("feetech:/dev/l,/dev/r?calibration=a.json,b.json").buses(BOTH)
    assert [str(one.file) for one in named] == ["a.json", "b.json"]
    (alone,) = feetech_url("feetech:/dev/a,b?calibration=c,d.json").buses(SO101)
    assert (alone.port, str(alone.file)) == ("/dev/a,b", "c,d.json"), "a path of a single arm is a path"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("feetech:/dev/l", r"is 2 arms, left and right, and each needs a port; write feetech:LEFT_PORT,RIGHT_PORT"),
        ("feetech:/dev/l,/dev/r,/dev/s", r"each needs a port"),
        ("feetech:/dev/l,/dev/r?calibration=a.json", r"each needs a calibration; write .*=LEFT_FILE,RIGHT_FILE"),
        ("feetech:/dev/l,/dev/l", r"names one port twice; each arm has a bus of its own"),
    ],
)
def test_a_url_that_does_not_suit_two_arms_is_refused_before_anything_is_opened(url: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_bridge(url, BOTH)


def test_two_leaders_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = TwoArmBench()
    calibration().write(tmp_path / "c.json")
    ports = {name: ServoBus(one.port, bench.clock.now_ns, bench.clock.wait) for name, one in bench.sides.items()}
    monkeypatch.setattr("edge.arms.feetech.open_bus", ports.get)
    leader = open_leader(f"feetech:left,right?calibration={tmp_path}/c.json,{tmp_path}/c.json", BOTH)
    bench.sides["right"].servos[1].hand(bench.sides["right"].servos[1].encoder + 100)
    told = leader.read().position_rad
    assert len(told) == 12 and abs(told[6] - told[0]) == pytest.approx(100 * reg.RAD_PER_COUNT, abs=1e-3)
