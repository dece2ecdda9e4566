"""In which unit a recording is: what fits the arm, what has to be given, what is no reading at all; and its cameras."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from edge.arms import load_arm
from edge.log.dataset import Camera, DatasetSpec, DatasetWriter, Vector
from export.families.action_prior.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from export.families.action_prior.policy import VlaPolicy
from export.training.data import Demonstrations, read_demonstrations
from export.training.instructions import word_tokenizer
from export.training.lerobot import DatasetError
from export.training.mixture import read_all
from firmware_bridge.adapters.feetech.calibration import Calibration, ServoCalibration
from firmware_bridge.adapters.feetech.registers import RAD_PER_COUNT
from tests.export.small import small
from tests.recordings import write_dataset

SO101 = load_arm("so101")
LOW, HIGH = (np.array(row) for row in zip(*SO101.stops_rad))
MIDDLE, HALF = (LOW + HIGH) / 2, (HIGH - LOW) / 2
ROBOTS = {"so101_follower": "{}.pos", "so_follower": "{}.pos", "so101": "main_{}"}
STEPS = 120


def swing(share: float) -> np.ndarray:
    """Positions of all joints, rad: each swings about its middle over so much of its range, four seconds in all."""
    phase = 2 * math.pi * np.arange(STEPS)[:, None] / STEPS + np.arange(6)
    return np.asarray(MIDDLE + share * HALF * np.sin(phase))


def in_units(q_rad: np.ndarray, units: str) -> np.ndarray:
    """The same as a dataset has it: LeRobot's own arithmetic."""
    percent = (q_rad[:, 5:] - LOW[5]) / (HIGH[5] - LOW[5]) * 100
    if units == "radians":
        return q_rad
    if units == "degrees":
        return np.hstack([np.degrees(q_rad[:, :5]), percent])
    travel = np.array([*HALF[:4], math.pi])
    return np.hstack([(q_rad[:, :5] - [*MIDDLE[:4], 0]) / travel * 100, percent])


def recorded(folder: Path, values: np.ndarray, robot: str = "so_follower", form: str | None = None) -> Path:
    names = tuple((form or ROBOTS[robot]).format(joint) for joint in SO101.joints)
    spec = {"observation.state": Vector(names), "action": Vector(names)}
    with DatasetWriter(folder, DatasetSpec(30, robot, spec)) as writer:
        writer.add_episode({"observation.state": values, "action": values}, "go")
    return folder


def refused(folder: Path, given: str | None = None) -> str:
    with pytest.raises(DatasetError) as caught:
        read_demonstrations(folder, units=given)
    text = str(caught.value)
    assert "\n" not in text and len(text) <= 400
    return text


def swept(folder: Path, degrees: list[float], form: str) -> Path:
    """A calibration of an arm with these sweeps, as LeRobot writes it or as we do."""
    servos = []
    for number, (joint, sweep) in enumerate(zip(SO101.joints, degrees), start=1):
        half = round(math.radians(sweep) / RAD_PER_COUNT / 2)
        servos.append(ServoCalibration(joint, number, 1, 0, 2047 - half, 2047 + half))
    path = folder / "arm.json"
    if form == "ours":
        Calibration("so101", tuple(servos)).write(path)
        return path
    rows = {
        one.joint: {
            "id": one.servo,
            "drive_mode": 0,
            "homing_offset": one.homing_offset,
            "range_min": one.range_min,
            "range_max": one.range_max,
        }
        for one in servos
    }
    path.write_text(json.dumps(rows))
    return path


@pytest.mark.parametrize("form", ["ours", "LeRobot's"])
def test_normalised_values_are_of_the_arm_s_own_sweep(tmp_path: Path, form: str) -> None:
    """An arm that sweeps 169 degrees instead of 200 has -100 to 100 over those: without its file 15 % too far."""
    sweeps = [200.0, 169.0, 180.0, 185.0, 359.0, 110.0]
    moved = swing(0.6)
    values = in_units(moved, "normalised")
    values[:, :5] = (moved[:, :5] - [*MIDDLE[:4], 0]) / (np.radians(sweeps[:5]) / 2) * 100
    folder = recorded(tmp_path / "d", values)
    own = swept(tmp_path, sweeps, form)
    data = read_demonstrations(folder, units="normalised", calibration=own)
    assert np.allclose(data.states, moved[::3], atol=2e-3) and "of arm.json's travel" in data.remark
    other = read_demonstrations(folder, units="normalised")
    assert np.abs(other.states - moved[::3])[:, 1].max() > 0.1 and "of the profile's travel" in other.remark
    degrees = recorded(tmp_path / "degrees", in_units(moved, "degrees"))
    told = read_demonstrations(degrees, units="degrees", calibration=own)
    assert np.allclose(told.states, moved[::3], atol=1e-4), "degrees are the servo's own"


def test_a_calibration_that_is_none_is_refused(tmp_path: Path) -> None:
    folder = recorded(tmp_path / "d", in_units(swing(0.6), "normalised"))
    for text in ("{}", "no json", '{"format": 1, "arm": "so100", "joints": {}}'):
        (tmp_path / "c.json").write_text(text)
        with pytest.raises(DatasetError, match=r"--calibration: .*c\.json"):
            read_demonstrations(folder, units="normalised", calibration=tmp_path / "c.json")


@pytest.mark.parametrize("robot", ROBOTS)
@pytest.mark.parametrize("units", ["degrees", "normalised", "radians"])
def test_told_units_give_the_arm_s_own_radians(tmp_path: Path, robot: str, units: str) -> None:
    moved = swing(0.6)
    data = read_demonstrations(recorded(tmp_path / "d", in_units(moved, units), robot), units=units)
    assert data.embodiment == "so101" and data.joints == SO101.joints
    assert np.allclose(data.states, moved[::3], atol=1e-4)
    assert np.allclose(data.actions[1:], moved[5::3] - moved[2:-3:3], atol=1e-4)


@pytest.mark.parametrize("robot", ROBOTS)
def test_two_readings_that_fit_are_asked_about_and_both_are_shown(tmp_path: Path, robot: str) -> None:
    text = refused(recorded(tmp_path / "d", in_units(swing(0.6), "degrees"), robot))
    assert "fits degrees and normalised (degrees " in text and ", normalised -100 to 100)" in text
    assert text.endswith("add --units degrees|normalised")


def test_the_only_reading_that_fits_is_taken_and_told(tmp_path: Path) -> None:
    radians = read_demonstrations(recorded(tmp_path / "r", swing(0.9)))
    assert radians.remark.endswith("read as radians") and np.allclose(radians.states, swing(0.9)[::3], atol=1e-4)
    wide = in_units(swing(1.0), "degrees")
    wide[:, 4] = 1.05 * wide[:, 4]  # the roll goes on to 165 degrees, which no normalised value does
    degrees = read_demonstrations(recorded(tmp_path / "d", wide))
    assert degrees.remark.endswith("read as degrees")


def test_what_touches_100_and_never_leaves_it_is_named(tmp_path: Path) -> None:
    values = np.clip(in_units(swing(0.6), "normalised") * 2, -100, 100)
    values[:, 5] = 50
    folder = recorded(tmp_path / "d", values)
    assert "touching +-100 and never beyond, which fits degrees and normalised" in refused(folder)
    assert "touch +-100 and never leave it, as LeRobot's normalised recordings do" in (
        read_demonstrations(folder, units="degrees").remark
    )


@pytest.mark.parametrize(("units", "given"), [("degrees", "radians"), ("normalised", "radians")])
def test_a_unit_that_does_not_fit_is_refused(tmp_path: Path, units: str, given: str) -> None:
    text = refused(recorded(tmp_path / "d", in_units(swing(0.9), units)), given)
    assert f"--units {given} does not fit: shoulder_pan goes from " in text


@pytest.mark.parametrize("axis", range(5))
def test_an_angle_that_wraps_is_named_with_its_frame(tmp_path: Path, axis: int) -> None:
    values = in_units(swing(0.3), "degrees")
    values[:, axis] = (np.linspace(170, 200, STEPS) + 180) % 360 - 180
    text = refused(recorded(tmp_path / "d", values), "degrees")
    if axis == 4:  # the roll's range holds both
        assert "wrist_roll jumps from 179" in text and "as an angle that wraps (row " in text
    else:
        assert f"{SO101.joints[axis]} goes from -1" in text


@pytest.mark.parametrize("scale", [1e-3, 300.0, 1e30])
def test_numbers_that_no_reading_fits_are_refused(tmp_path: Path, scale: float) -> None:
    assert "fits no unit" in refused(recorded(tmp_path / "d", scale * swing(0.9)))


@pytest.mark.parametrize("form", ["{}", "joint_{}", "left_{}.pos"])
def test_joints_are_mapped_by_name(tmp_path: Path, form: str) -> None:
    assert "has no element" in refused(recorded(tmp_path / "d", in_units(swing(0.6), "degrees"), form=form), "degrees")


def test_the_order_of_the_names_is_the_dataset_s_own(tmp_path: Path) -> None:
    values, order = in_units(swing(0.6), "degrees"), [5, 2, 0, 1, 4, 3]
    names = tuple(f"{SO101.joints[joint]}.pos" for joint in order)
    spec = {"observation.state": Vector(names), "action": Vector(names)}
    with DatasetWriter(tmp_path / "d", DatasetSpec(30, "so_follower", spec)) as writer:
        writer.add_episode(dict.fromkeys(spec, values[:, order]), "go")
    assert np.allclose(read_demonstrations(tmp_path / "d", units="degrees").states, swing(0.6)[::3], atol=1e-4)


def test_every_arm_s_values_are_held_against_its_range_and_speed(tmp_path: Path) -> None:
    good = write_dataset(tmp_path / "fr3")
    assert read_demonstrations(good).remark == ""
    info = json.loads((good / "meta/info.json").read_text())
    (good / "meta/info.json").write_text(json.dumps({**info, "robot_type": "fr3_hand"}))
    with pytest.raises(DatasetError):
        read_demonstrations(good)
    spec = {"observation.state": Vector(tuple("abcdefg")), "action": Vector(tuple("abcdefg"))}
    home = np.tile(load_arm("franka").home_rad, (20, 1))
    for name, change, given in (("range", 30.0, "fr3_joint2 goes from"), ("speed", 1.2, "fr3_joint2 jumps from")):
        states = home.copy()
        states[10:, 1] += change
        with DatasetWriter(tmp_path / name, DatasetSpec(10, "fr3", spec)) as writer:
            writer.add_episode({"observation.state": states, "action": 0 * states}, "go")
        with pytest.raises(DatasetError, match=f"after fr3.toml {given}"):
            read_demonstrations(tmp_path / name)


def filmed(folder: Path, cameras: dict[str, int]) -> Path:
    """An FR3 at home; each camera's pictures are of one brightness."""
    spec: dict[str, Vector | Camera] = {name: Vector(tuple("abcdefg")) for name in ("observation.state", "action")}
    rows = np.tile(load_arm("franka").home_rad, (20, 1))
    columns: dict[str, np.ndarray] = {"observation.state": rows, "action": 0 * rows}
    for name, grey in cameras.items():
        spec[f"observation.images.{name}"] = Camera(64, 64, "image")
        columns[f"observation.images.{name}"] = np.full((20, 64, 64, 3), grey, np.uint8)
    with DatasetWriter(folder, DatasetSpec(10, "fr3", spec)) as writer:
        writer.add_episode(columns, "reach")
    return folder


def brightness(data: Demonstrations) -> list[int]:
    assert data.frames is not None
    return [int(value) for value in data.frames[0].mean(axis=(1, 2, 3))]


def test_cameras_are_told_apart_by_name_whatever_their_order(tmp_path: Path) -> None:
    one = filmed(tmp_path / "one", {"front": 10, "wrist": 200})
    other = filmed(tmp_path / "other", {"wrist": 200, "front": 10})
    config = small(cameras=2)
    datasets = read_all([one, other], (), config)
    assert [data.cameras for data in datasets] == [("front", "wrist")] * 2
    assert [brightness(data) for data in datasets] == [[10, 200]] * 2
    assert brightness(read_all([one], (), config, cameras=("wrist", "front"))[0]) == [200, 10]
    third = filmed(tmp_path / "third", {"top": 10, "wrist": 200})
    with pytest.raises(DatasetError, match=r"third.*has no camera 'front', which the policy sees; it has .*top"):
        read_all([one, third], (), config)


def test_a_checkpoint_keeps_the_names_of_its_cameras(tmp_path: Path) -> None:
    config = small(cameras=2)
    tokenizer = word_tokenizer(("reach",)).to_str()
    made = Checkpoint(config, VlaPolicy(config).state_dict(), (), tokenizer, ("front", "wrist"))
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, made)
    assert load_checkpoint(path).cameras == ("front", "wrist")
    for names in (("front",), ("front", "front"), ("front", "x\x1b"), ("a", "b", "c")):
        save_checkpoint(path, dataclasses.replace(made, cameras=names))
        with pytest.raises(CheckpointError, match="bad configuration: cameras"):
            load_checkpoint(path)
