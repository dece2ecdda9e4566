"""Calibrations: what is read, what is refused, and what counts mean."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge.arms.feetech import joint_spans
from firmware_bridge.adapters import DriveError
from firmware_bridge.adapters.feetech.calibration import (
    Calibration,
    ServoCalibration,
    operating_range,
    read_calibration,
    scales,
)
from firmware_bridge.adapters.feetech.registers import RAD_PER_COUNT
from tests.servo_bench import SCALES, SO101, calibration
from tests.so101_shapes import SHAPES, JawShape

# As LeRobot writes them (`motors/motors_bus.py`, `MotorCalibration`).
LEROBOT = {
    joint: {"id": number, "drive_mode": 0, "homing_offset": 100 * number, "range_min": 700, "range_max": 3400}
    for number, joint in enumerate(SO101.joints, start=1)
}


def saved(folder: Path, document: Any) -> Path:
    path = folder / "calibration.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def test_ours_comes_back_as_it_was_written(tmp_path: Path) -> None:
    calibration().write(tmp_path / "c.json")
    assert read_calibration(tmp_path / "c.json", "so101", SO101.joints) == calibration()
    assert json.loads((tmp_path / "c.json").read_text())["format"] == 1


def test_lerobots_is_read(tmp_path: Path) -> None:
    inverted = {"gripper": LEROBOT["gripper"] | {"drive_mode": 1}}
    read = read_calibration(saved(tmp_path, LEROBOT | inverted), "so101", SO101.joints)
    assert read.servos[1] == ServoCalibration("shoulder_lift", 2, 1, 200, 700, 3400)
    assert [one.direction for one in read.servos] == [1, 1, 1, 1, 1, -1]


def changed(**fields: Any) -> dict[str, Any]:
    return LEROBOT | {"elbow_flex": LEROBOT["elbow_flex"] | fields}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "is not JSON"),
        ([1], "is a list of 1, not a calibration"),
        ({"format": 2, "arm": "so101"}, r"is of format 2 for arm 'so101', not of 1 for 'so101'"),
        ({"format": 1, "arm": "so100", "joints": LEROBOT}, r"for arm 'so100'"),
        ({"format": 1, "arm": "so101", "joints": []}, "does not have the joints"),
        ({"shoulder_pan": {}}, "does not have the joints shoulder_pan, shoulder_lift"),
        (changed(id=2), "two joints have the same servo id"),
        (changed(id="3"), "elbow_flex.id must be a whole number from 0 to 252, not '3'"),
        (changed(id=True), "elbow_flex.id must be a whole number"),
        (changed(id=10**400), "a number of 401 digits"),
        ("[" * 60_000, "nested deeper"),
        (changed(note="\x1b[2J" * 9999), "is larger than"),
        (
            {joint: {k: v for k, v in one.items() if k != "drive_mode"} for joint, one in LEROBOT.items()},
            "direction is missing",
        ),
        (changed(homing_offset=None), "elbow_flex.homing_offset must be a whole number"),
        (changed(range_min=1.5), "elbow_flex.range_min must be a whole number"),
        (changed(range_min=3400), "elbow_flex: range_min 3400 must be below range_max 3400"),
        (changed(range_max=4096), "elbow_flex.range_max must be a whole number from 1 to 4095"),
        (changed(homing_offset=2048), "elbow_flex.homing_offset must be a whole number from -2047 to 2047"),
        (changed(drive_mode=2), "elbow_flex.drive_mode must be one of 0, 1, not 2"),
    ],
)
def test_a_broken_one_is_refused_in_one_line(tmp_path: Path, document: Any, message: str) -> None:
    with pytest.raises(DriveError, match=message) as caught:
        read_calibration(saved(tmp_path, document), "so101", SO101.joints)
    text = str(caught.value)
    assert "\n" not in text and text.endswith("edge-calibrate --arm so101 --drive feetech:PORT -o FILE")


def test_a_missing_one_names_its_cure(tmp_path: Path) -> None:
    with pytest.raises(DriveError, match="there is no calibration; make one with edge-calibrate"):
        read_calibration(tmp_path / "none.json", "so101", SO101.joints)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DriveError, match="cannot be written"):
        calibration().write(tmp_path / "no" / "c.json")


def test_the_middle_of_the_sweep_is_the_middle_of_the_limits() -> None:
    pan, lift, gripper = SCALES[0], SCALES[1], SCALES[5]
    assert pan.rad(2070) == 0.0 and pan.count(0.0) == 2070
    assert pan.rad(2071) == pytest.approx(RAD_PER_COUNT) and lift.rad(2041) == pytest.approx(-RAD_PER_COUNT)
    assert gripper.rad(2630) == pytest.approx((1.74533 - 0.17453) / 2)
    for scale in SCALES:
        assert scale.rad(scale.count(0.3)) == pytest.approx(0.3, abs=RAD_PER_COUNT / 2)


@pytest.mark.parametrize("q_rad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_has_no_count(q_rad: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        SCALES[0].count(q_rad)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_jaw_is_anchored_at_its_stops_whatever_it_opens_by(shape: JawShape) -> None:
    jaw = scales(shape.calibration(), joint_spans(SO101))[5]
    closed_rad, open_rad = SO101.stops_rad[5]
    assert jaw.rad(shape.closed) == pytest.approx(closed_rad) and jaw.rad(shape.opened) == pytest.approx(open_rad)
    assert jaw.count(closed_rad) == shape.closed and jaw.count(open_rad) == shape.opened
    half = jaw.rad((shape.closed + shape.opened) / 2)
    assert half == pytest.approx((closed_rad + open_rad) / 2), "half open is 50 percent on every arm"


def test_other_joints_keep_the_servos_own_angle() -> None:
    assert [scale.rad_per_count for scale in SCALES[:5]] == [RAD_PER_COUNT] * 5


def swept(joint: int, low: int, high: int) -> Calibration:
    servos = list(calibration().servos)
    servos[joint] = replace(servos[joint], range_min=low, range_max=high)
    return Calibration("so101", tuple(servos))


@pytest.mark.parametrize("joint", range(5))
def test_a_short_sweep_narrows_the_operating_range(joint: int) -> None:
    spans = joint_spans(SO101)
    middle, half = 2048, round(math.radians(169 / 2) / RAD_PER_COUNT)
    scale = scales(swept(joint, middle - half, middle + half), spans)[joint]
    low, high = operating_range(scale, spans[joint])
    assert (low, high) == pytest.approx((-math.radians(169 / 2), math.radians(169 / 2)), abs=2 * RAD_PER_COUNT)
    assert operating_range(SCALES[joint], spans[joint]) == pytest.approx(spans[joint].operating_rad), "and no other"


@pytest.mark.parametrize(
    ("joint", "low", "high", "message"),
    [
        (2, 1700, 2400, "elbow_flex was swept over 62 degrees, and its home is at 52, beyond the sweep; sweep it"),
        (5, 2000, 2600, "gripper was swept over 53 degrees, and a jaw opens by 60 at least; sweep it"),
    ],
)
def test_a_joint_that_was_hardly_swept_is_refused(joint: int, low: int, high: int, message: str) -> None:
    with pytest.raises(DriveError, match=message):
        scales(swept(joint, low, high), joint_spans(SO101))
