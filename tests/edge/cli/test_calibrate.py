"""`edge-calibrate` on simulated servos: guided step by step from a script, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.arms import load_arm
from edge.arms.feetech import joint_spans
from edge.cli import calibrate
from firmware_bridge.adapters import DriveError
from firmware_bridge.adapters.feetech import registers as reg
from firmware_bridge.adapters.feetech.bus import ServoBus
from firmware_bridge.adapters.feetech.calibration import read_calibration
from firmware_bridge.adapters.feetech.guide import MIDDLE, Calibrator
from firmware_bridge.adapters.feetech.registers import Fault
from firmware_bridge.adapters.feetech.servos import check_calibrated, find
from firmware_bridge.adapters.feetech.simulated_bus import LineFaults, SimulatedBus
from firmware_bridge.adapters.feetech.simulated_servo import SimulatedServo
from tests.bus_bench import SteppedClock
from tests.servo_bench import SimulatedPort
from tests.servo_process import ServoProcess

SO101 = load_arm("so101")
MIDDLES = (100, 900, 2048, 3000, 4000, 2000)
STOPS = ((-1240, 1240), (-1190, 1230), (-1110, 1105), (-1150, 1160), (-1900, 1900), (-700, 720))


class Hands:
    """A calibrator whose servos can be moved by hand."""

    def __init__(self, corrupted: float = 0.0) -> None:
        clock = SteppedClock()
        self.servos = {number: SimulatedServo(number, middle) for number, middle in enumerate(MIDDLES, start=1)}
        self.servos[2][reg.UNLOADING] = 0
        self.servos[3][reg.MODE] = 3
        self.servos[4][reg.GOAL_POSITION] = MIDDLES[3]
        self.servos[4][reg.TORQUE_ENABLE] = 1
        bus = SimulatedBus(self.servos, LineFaults(corrupted=corrupted, seed=1), clock.ns)
        self.bus = ServoBus(SimulatedPort(bus, clock), clock.now_ns, clock.wait)
        self.calibrator = Calibrator(self.bus, "so101", joint_spans(SO101), ["wrist_flex"])

    def sweep(self, servo: int) -> None:
        for stop in STOPS[servo - 1]:
            self.servos[servo].hand((MIDDLES[servo - 1] + stop) % reg.COUNTS)
            for _ in range(3):
                self.calibrator.look()


@pytest.mark.parametrize("corrupted", [0.0, 0.02])
def test_middle_and_range_of_every_joint(corrupted: float) -> None:
    hands = Hands(corrupted)
    assert hands.calibrator.holding == ["wrist_flex"]
    hands.calibrator.let_go()
    assert hands.calibrator.holding == []
    hands.calibrator.take_middle()
    assert len(hands.calibrator.missing) == 6
    for servo in hands.servos:
        hands.sweep(servo)
    assert hands.calibrator.missing == {}
    made = hands.calibrator.finish()
    for one, middle, (low, high) in zip(made.servos, MIDDLES, STOPS):
        assert one.homing_offset == middle - MIDDLE
        assert (one.range_min, one.range_max) == (MIDDLE + low, MIDDLE + high)
        assert one.direction == (-1 if one.joint == "wrist_flex" else 1)
        servo = hands.servos[one.servo]
        assert (servo[reg.POSITION_MIN], servo[reg.POSITION_MAX]) == (one.range_min, one.range_max)
        assert (servo[reg.MODE], servo[reg.LOCK], servo[reg.RETURN_DELAY]) == (0, 1, 0)
        assert Fault.TEMPERATURE | Fault.OVERLOAD in Fault(servo[reg.UNLOADING])
        check_calibrated(find(hands.bus, one.joint, one.servo), one)


def test_a_joint_that_was_not_moved() -> None:
    hands = Hands()
    hands.calibrator.let_go()
    hands.calibrator.take_middle()
    for servo in (1, 2, 3, 4, 5):
        hands.sweep(servo)
    assert list(hands.calibrator.missing) == ["gripper"]
    with pytest.raises(DriveError, match="gripper was not moved"):
        hands.calibrator.finish()


# The command ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def servos(tmp_path: Path) -> Iterator[ServoProcess]:
    process = ServoProcess(tmp_path, "--start", ",".join(map(str, MIDDLES)), "--offset", "0,0,0,0,0,0")
    yield process
    process.close()


class Command:
    """`edge-calibrate` with somebody in front of it."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edge.cli.calibrate", "--arm", "so101", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def expect(self, text: str) -> None:
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            if text in line:
                return
        raise AssertionError(self.process.communicate())

    def enter(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


def test_guided_from_a_script(servos: ServoProcess, tmp_path: Path) -> None:
    output = tmp_path / "made.json"
    command = Command("--drive", f"feetech:{servos.port}", "-o", str(output))
    command.expect("Move every joint to the middle")
    command.enter()
    command.expect("Sweep every joint")
    for servo in range(1, 7):
        for stop in STOPS[servo - 1][: 1 if servo == 6 else 2]:
            servos.command(f"hand {servo} {(MIDDLES[servo - 1] + stop) % reg.COUNTS}")
            time.sleep(0.15)
    command.enter()
    command.expect("gripper: swept 62 of 100 degrees")
    servos.command(f"hand 6 {MIDDLES[5] + STOPS[5][1]}")
    time.sleep(0.15)
    command.enter()
    command.expect("Close the jaw")
    servos.command(f"hand 6 {MIDDLES[5]}")
    time.sleep(0.15)
    command.enter()
    command.expect("the jaw is at 49% of its sweep, at neither end; close it all the way")
    servos.command(f"hand 6 {MIDDLES[5] + STOPS[5][1]}")
    time.sleep(0.15)
    command.enter()
    command.expect("wrote")
    assert command.process.wait(timeout=20) == 0
    made = read_calibration(output, "so101", SO101.joints)
    assert [one.homing_offset for one in made.servos] == [middle - MIDDLE for middle in MIDDLES]
    assert [(one.range_min, one.range_max) for one in made.servos] == [(MIDDLE + a, MIDDLE + b) for a, b in STOPS]
    assert json.loads(output.read_text())["arm"] == "so101"
    assert [one.direction for one in made.servos] == [1, 1, 1, 1, 1, -1], "this jaw is closed at the high end"


def test_an_input_that_ends_writes_nothing(servos: ServoProcess, tmp_path: Path) -> None:
    output = tmp_path / "made.json"
    command = Command("--drive", f"feetech:{servos.port}", "-o", str(output))
    command.expect("Move every joint")
    _, err = command.process.communicate()
    assert command.process.returncode == 2 and not output.exists()
    assert err.strip() == "edge-calibrate: the input has ended before the calibration was done; no file was written"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--drive", "fci:127.0.0.1"],
            "'fci:127.0.0.1': a bus of servos is needed; write feetech:PATH?calibration=FILE",
        ),
        (["--drive", "feetech:/dev/ttyNOPE"], "/dev/ttyNOPE: there is no such port"),
        (["--drive", "feetech:/dev/null", "--invert", "elbow"], "--invert elbow: the joints are shoulder_pan"),
        (["--drive", "feetech:/dev/null", "--invert", "gripper"], "where the jaw is closed says which way it opens"),
        (["--drive", "feetech:/dev/null", "-o", "/nowhere/c.json"], "there is no folder /nowhere"),
    ],
)
def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert calibrate.main(["--arm", "so101", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err and len(err.strip().splitlines()) == 1
