"""Arm, rate and unit: what dataset and options say, and what the training data fit."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from export.engines.robot import find_robot
from export.families.base import CheckpointError, Given
from export.families.lerobot.folder import Folder, read_folder
from tests.export.families.lerobot_engines import FOLDERS
from tests.export.test_readings import swept

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
SO101 = Given(arm="so101", rate_hz=30)


def folder_between(low: list[float], high: list[float]) -> Folder:
    """An ACT folder whose states and actions were between these in training."""
    folder = read_folder(FOLDERS / "act")
    rows = {"min": torch.tensor(low), "max": torch.tensor(high)}
    statistics = {"observation.state": rows, "action": rows}
    inputs, outputs = (replace(step, statistics=statistics) for step in (folder.inputs, folder.outputs))
    return replace(folder, inputs=inputs, outputs=outputs)


def dataset(path: Path, **changes: Any) -> Path:
    names = changes.pop("names", [f"{joint}.pos" for joint in JOINTS])
    rows = {"dtype": "float32", "shape": [6], "names": names}
    index = {name: {"dtype": "int64", "shape": [1]} for name in ("frame_index", "episode_index", "index", "task_index")}
    features = {"observation.state": rows, "action": rows, "timestamp": {"dtype": "float32", "shape": [1]}, **index}
    document = {
        "codebase_version": "v3.0", "fps": 30, "robot_type": "so101_follower", "total_episodes": 3, "total_frames": 90,
        "features": features, "data_path": "data/{file_index}.parquet", "video_path": None, **changes,
    }  # fmt: skip
    (path / "meta").mkdir(parents=True)
    (path / "meta" / "info.json").write_text(json.dumps(document))
    return path


IN_DEGREES = ([-100.0, -100, -90, -90, -150, 0], [100.0, 60, 95, 90, 150, 100])
IN_RADIANS = ([-1.9, -1.7, -1.6, -1.6, -2.7, -0.17], [1.9, 1.0, 1.6, 1.6, 2.7, 1.7])
IN_EITHER = ([-60.0, -90, -80, -70, -90, 0], [60.0, 50, 80, 70, 95, 100])


def test_the_training_data_tell_the_unit() -> None:
    assert find_robot(folder_between(*IN_DEGREES), SO101).units == "degrees"
    assert find_robot(folder_between(*IN_RADIANS), SO101).units == "radians"
    arm = find_robot(folder_between(*IN_DEGREES), SO101)
    assert [axis.unit for axis in arm.axes] == ["deg"] * 5 + ["percent"] and arm.axes[5].travel == pytest.approx(
        (-0.17453, 1.74533)
    )


def test_two_readings_are_asked_about_and_both_are_shown(tmp_path: Path) -> None:
    folder = folder_between(*IN_EITHER)
    given = Given(dataset=dataset(tmp_path / "data"))
    with pytest.raises(CheckpointError) as refused:
        find_robot(folder, given)
    text = str(refused.value)
    assert "add --units degrees|normalised" in text and "so101_follower" in text
    assert "degrees: shoulder_pan is -110 to 110; normalised: shoulder_pan is -100 to 100" in text
    assert find_robot(folder, replace(given, units="degrees")).axes[0].unit == "deg"
    normalised = find_robot(folder, replace(given, units="normalised")).axes
    assert normalised[0].unit == "plus_minus_100" and normalised[0].travel == pytest.approx((-1.91986, 1.91986))
    assert normalised[4].travel == pytest.approx((-math.pi, math.pi)), "LeRobot calibrates the wrist over a whole turn"


def test_normalised_is_of_the_sweep_of_the_arm_that_recorded(tmp_path: Path) -> None:
    given = Given(dataset=dataset(tmp_path / "data"), units="normalised")
    own = replace(given, calibration=swept(tmp_path, [180.0, 169.0, 180.0, 185.0, 359.0, 110.0], "LeRobot's"))
    robot = find_robot(folder_between(*IN_EITHER), own)
    wide, short = robot.axes[1].travel, find_robot(folder_between(*IN_EITHER), given).axes[1].travel
    assert wide is not None and short is not None and "of the sweeps in arm.json" in robot.how["units"]
    assert wide[1] - wide[0] == pytest.approx(math.radians(169), abs=2e-3)
    assert sum(wide) == pytest.approx(sum(short)), "about the same middle"
    with pytest.raises(CheckpointError, match=r"--calibration: .*none\.json: there is no calibration"):
        find_robot(folder_between(*IN_EITHER), replace(given, calibration=tmp_path / "none.json"))


@pytest.mark.parametrize(
    ("rows", "units"), [(IN_DEGREES, "radians"), (([-200.0] * 6, [200.0] * 6), "degrees"), (IN_DEGREES, "normalised")]
)
def test_a_unit_that_does_not_fit_is_refused(rows: tuple[list[float], list[float]], units: str) -> None:
    with pytest.raises(CheckpointError, match=f"--units {units} does not fit: in training [a-z_]+ was"):
        find_robot(folder_between(*rows), replace(SO101, units=units))


def test_numbers_that_no_reading_fits_are_refused() -> None:
    with pytest.raises(CheckpointError, match="fits no reading of this arm"):
        find_robot(folder_between([-2000.0] * 6, [2000.0] * 6), SO101)


def test_a_dataset_says_rate_robot_and_order(tmp_path: Path) -> None:
    names = [f"main_{joint}" for joint in reversed(JOINTS)]
    rows = tuple(list(reversed(row)) for row in IN_DEGREES)
    robot = find_robot(folder_between(*rows), Given(dataset=dataset(tmp_path / "data", names=names, fps=25)))
    assert (robot.arm.name, robot.rate_hz, robot.units) == ("so101", 25, "degrees")
    assert [axis.column for axis in robot.axes] == [5, 4, 3, 2, 1, 0]
    assert [axis.source for axis in robot.axes] == list(reversed(names))


@pytest.mark.parametrize(
    ("given", "changes", "message"),
    [
        (Given(), None, "add --dataset DIR"),
        (Given(arm="so101"), None, "add --rate HZ"),
        (Given(rate_hz=30.0), None, "add --dataset DIR"),
        (Given(arm="so101", rate_hz=2000.0), None, "1 to 500 is possible"),
        (Given(arm="so100", rate_hz=30.0), None, "so100"),
        (Given(arm="panda", rate_hz=30.0), None, "panda has 7 axes"),
        (Given(), {"robot_type": "koch"}, "robot_type 'koch' is no arm known here; add --arm"),
        (Given(arm="panda"), {}, "leave one out"),
        (Given(rate_hz=20.0), {}, "leave out --rate"),
        (Given(), {"names": ["a", "b", "c", "d", "e", "f"]}, "the columns are a, b, c"),
        (Given(), {"codebase_version": "v2.1"}, "v2.1"),
        (Given(), {"features": {}}, "column"),
    ],
)
def test_what_is_missing_or_at_odds_is_refused(
    given: Given, changes: dict[str, Any] | None, message: str, tmp_path: Path
) -> None:
    if changes is not None:
        given = replace(given, dataset=dataset(tmp_path / "data", **changes))
    with pytest.raises(CheckpointError) as refused:
        find_robot(folder_between(*IN_DEGREES), given)
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_two_arms_go_by_lerobots_names_in_any_order(tmp_path: Path) -> None:
    """LeRobot's `bi_so_follower` puts the side before each joint; a whole turn of a wrist is one on both."""
    low, high = ([*side, *side] for side in IN_DEGREES)
    folder = folder_between(low, high)
    folder = replace(folder, state_width=12, action_width=12)
    names = [f"{side}_{joint}.pos" for side in ("right", "left") for joint in JOINTS]
    rows = {"dtype": "float32", "shape": [12], "names": names}
    path = dataset(tmp_path, robot_type="bi_so_follower")
    document = json.loads((path / "meta" / "info.json").read_text())
    document["features"] |= {"observation.state": rows, "action": rows}
    (path / "meta" / "info.json").write_text(json.dumps(document))
    found = find_robot(folder, Given(dataset=path))
    assert (found.arm.name, found.units, found.rate_hz) == ("bi_so101", "degrees", 30)
    assert [axis.column for axis in found.axes] == [*range(6, 12), *range(6)]
    assert [axis.unit for axis in found.axes] == 2 * (["deg"] * 5 + ["percent"])
