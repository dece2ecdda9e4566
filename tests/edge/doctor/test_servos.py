"""What edge-doctor says of a servo bus: sound, and broken in each way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.cli import doctor
from edge.doctor import Check, Status
from edge.doctor.servos import check_servos
from firmware_bridge.adapters.feetech import registers as reg
from firmware_bridge.adapters.feetech.bus import ServoBus
from firmware_bridge.adapters.feetech.simulated_bus import LineFaults, SimulatedBus
from firmware_bridge.adapters.feetech.simulated_servo import SimulatedServo
from firmware_bridge.errors import PortError
from tests.bus_bench import SteppedClock
from tests.servo_bench import SCALES, SO101, SOUND, SimulatedPort, calibration, servos_at

Change = Callable[[dict[int, SimulatedServo]], None]


def checked(
    folder: Path, change: Change = lambda servos: None, faults: LineFaults = SOUND, file: str = "c.json"
) -> dict[str, Check]:
    calibration().write(folder / "c.json")
    servos, clock = servos_at(SO101.home_rad), SteppedClock()
    change(servos)
    port = SimulatedPort(SimulatedBus(servos, faults, clock.ns), clock)
    checks = check_servos(
        f"feetech:/dev/ttyACM0?calibration={folder / file}",
        SO101,
        lambda path: ServoBus(port, clock.now_ns, clock.wait),
    )
    assert not any(b"\x83" in packet[2:5] or packet[4] == 3 for packet in port.written), "it asks, and never tells"
    return {check.name: check for check in checks}


def test_a_sound_arm(tmp_path: Path) -> None:
    found = checked(tmp_path)
    assert [check.status for check in found.values()] == [Status.OK] * 7, found
    assert list(found) == ["servo bus", "calibration", "grip", "pose", "supply", "temperature", "answers"]
    assert found["pose"].found == (
        "degrees, the jaw in percent: shoulder_pan 0, shoulder_lift -52, elbow_flex 52, wrist_flex 46, wrist_roll 0, "
        "gripper 9%"
    )
    assert "1.47 N m at 12 V" in found["grip"].found and "register 16 from 1000 to 500" in found["grip"].found
    assert "6 STS3215 answer, none holding" in found["servo bus"].found
    assert found["supply"].found.startswith("12.0 to 12.0 V")


def broken(register: reg.Register, value: int) -> Change:
    def change(servos: dict[int, SimulatedServo]) -> None:
        servos[3][register] = value

    return change


def turned(servo: int, rad: float) -> Change:
    """A joint that a hand has turned to where the arm is told to be `rad`."""

    def change(servos: dict[int, SimulatedServo]) -> None:
        scale, one = SCALES[servo - 1], calibration().servos[servo - 1]
        servos[servo].hand(scale.count(rad) + one.homing_offset)

    return change


@pytest.mark.parametrize(
    ("servo", "rad", "status", "found"),
    [
        (2, -1.8, Status.OK, "outside the operating range, from where it only moves inward: shoulder_lift by 8"),
        (6, SO101.stops_rad[5][0], Status.OK, "gripper 0%"),
        (6, SO101.stops_rad[5][1], Status.OK, "gripper 100%"),
        (2, -2.05, Status.FAIL, "shoulder_lift -117"),
    ],
)
def test_it_says_where_each_joint_stands_and_whether_it_may_start_there(
    servo: int, rad: float, status: Status, found: str, tmp_path: Path
) -> None:
    check = checked(tmp_path, turned(servo, rad))["pose"]
    assert check.status is status and found in check.found
    if status is Status.FAIL:
        assert "arming will be refused: shoulder_lift is 2 degrees outside its limits" in check.fix


def test_an_arm_that_holds_a_pose_will_be_refused(tmp_path: Path) -> None:
    check = checked(tmp_path, broken(reg.TORQUE_ENABLE, 1))["servo bus"]
    assert (
        check.status is Status.FAIL and "holding: elbow_flex" in check.found and "arming will be refused" in check.fix
    )


@pytest.mark.parametrize(
    ("change", "name", "found", "fix"),
    [
        (broken(reg.MODEL, 1), "servo bus", "servo 3 (elbow_flex) is model 1", "use that servo"),
        (lambda servos: servos.pop(3), "servo bus", "servo 3 (elbow_flex) does not answer", "check the arm's power"),
        (broken(reg.HOMING_OFFSET, 9), "calibration", "which is another arm's or an old one", "calibrate again"),
        (broken(reg.PRESENT_VOLTAGE, 50), "supply", "gets 5.0 V and needs more than 10.0 V", "check the supply"),
        (broken(reg.PRESENT_VOLTAGE, 142), "supply", "bears less than 14.0 V", "use the supply that it is made for"),
    ],
)
def test_what_is_wrong_has_its_fix(tmp_path: Path, change: Change, name: str, found: str, fix: str) -> None:
    check = checked(tmp_path, change)[name]
    assert check.status is Status.FAIL and found in check.found and fix in check.fix


def test_a_missing_calibration_does_not_hide_the_rest(tmp_path: Path) -> None:
    found = checked(tmp_path, file="none.json")
    assert found["calibration"].status is Status.FAIL and "there is no calibration" in found["calibration"].found
    assert "make one with edge-calibrate --arm so101" in found["calibration"].fix
    assert found["supply"].status is Status.OK and found["servo bus"].status is Status.OK


def test_a_warm_servo_and_a_bad_line_are_warnings(tmp_path: Path) -> None:
    assert checked(tmp_path, broken(reg.PRESENT_TEMPERATURE, 56))["temperature"].status is Status.WARN
    noisy = checked(tmp_path, faults=LineFaults(corrupted=0.05, seed=2))["answers"]
    assert noisy.status is Status.WARN and "latency timer" in noisy.fix


def test_an_unreachable_bus(tmp_path: Path) -> None:
    def refuse(path: str) -> ServoBus:
        raise PortError(f"{path}: there is no such port; plug the device in, or name another (ls /dev/tty*)")

    (check,) = check_servos("feetech:/dev/ttyACM0", SO101, refuse)
    assert (check.status, check.found) == (Status.FAIL, "/dev/ttyACM0: there is no such port")
    assert check.fix.startswith("plug the device in")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "doctor.json"
    arguments = ["--arm", "so101", "--bridge", "feetech:/dev/ttyNOPE", "--json", str(report)]
    assert doctor.main(arguments) == 1
    assert "servo bus" in capsys.readouterr().out
    assert not json.loads(report.read_text())["passed"]
    assert doctor.main(["--arm", "so101", "--bridge", "feetech:"]) == 2
    assert "write feetech:PATH?calibration=FILE" in capsys.readouterr().err
