"""Profiles: the shipped ones are whole, and a broken one is refused with its line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tomllib

from edge.arms import ProfileError, available_arms, load_arm
from edge.arms.reading import PROFILE_FOLDER

GOOD = (PROFILE_FOLDER / "franka.toml").read_text()
WIDE = "[" + 16 * '"a", ' + '"fr3'
"""Of joints, sixteen before those that are there."""


def test_what_ships() -> None:
    assert available_arms() == [
        "aloha",
        "bi_so101",
        "franka",
        "franka_hand",
        "panda",
        "piper",
        "so101",
        "vx300s",
        "yam",
    ]
    assert load_arm("franka").model.endswith("(FR3)")
    assert load_arm("panda").limits.acceleration_rad_s2 == (15.0, 7.5, 10.0, 12.5, 15.0, 20.0, 20.0)


def test_fr3_limits_are_frankas() -> None:
    limits = load_arm("franka").limits
    assert limits.velocity_rad_s == (2.62, 2.62, 2.62, 2.62, 5.26, 4.18, 5.26)
    assert limits.position_max_rad == (2.7437, 1.7837, 2.9007, -0.1518, 2.8065, 4.5169, 3.0159)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("velocity_rad_s = [2.62, 2.62", "velocity_rad_s = [2.62, 2.61"),
        ("limit_rad = [0.15", "limit_rad = [0.14"),
        ("slope_rad_s2 = [12.0", "slope_rad_s2 = [12.1"),
        ("low_rad = [-2.7501", "low_rad = [-2.7502"),
    ],
)
def test_whatever_is_compiled_changes_the_hash(tmp_path: Path, old: str, new: str) -> None:
    assert GOOD.count(old) == 1
    (tmp_path / "arm.toml").write_text(GOOD.replace(old, new))
    assert load_arm(str(tmp_path / "arm.toml")).hash32 != load_arm("franka").hash32


def test_the_fr3s_velocity_limits_fall_towards_the_ends_as_frankas_do() -> None:
    """libfranka's formula, spelled out for joint 4: -0.30 + sqrt(8.0 (-0.1458 - q)) upwards."""
    edges = load_arm("franka").edges
    assert edges is not None
    q = np.full(7, -1.0)
    assert edges.up_rad_s(q)[3] == pytest.approx(-0.30 + np.sqrt(8.0 * (-0.145800 + 1.0)))
    assert edges.down_rad_s(q)[3] == pytest.approx(-0.30 + np.sqrt(8.0 * (3.048100 - 1.0)))
    assert edges.up_rad_s(np.full(7, 4.52))[5] == 0.0
    assert load_arm("panda").edges is None


def test_an_unknown_arm_lists_the_known_ones() -> None:
    with pytest.raises(ProfileError, match=r"unknown arm 'frank'; choose one of aloha, bi_so101, franka, franka_hand"):
        load_arm("frank")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("format = 1", "format = 2", r":2: format is 2"),
        (
            "velocity_rad_s = [2.62, ",
            "velocity_rad_s = [",
            r":\d+: \[limits\] velocity_rad_s must be a list of 7, .* 6",
        ),
        ("jerk_rad_s3 = [5000.0, 5", "jerk_rad_s3 = [0.0, 5", r"jerk_rad_s3 is not positive for joint 1"),
        ("position_min_rad = [-2.7437", "position_min_rad = [2.8", r"position_min_rad is not below .* joint 1"),
        ("velocity_rad_s = [2.0,", "velocity_rad_s = [2.63,", r"\[operating\] velocity_rad_s is wider than"),
        (
            "acceleration_rad_s2 = [10.0,",
            "acceleration_rad_s2 = [nan,",
            r"acceleration_rad_s2\[0\] must be a number from .*, not nan",
        ),
        ("acceleration_rad_s2", "acceleration", r"\[limits\] acceleration is unknown; it may have source, "),
        ("[operating]", "[operatng]", r"operatng is unknown; it may have .* operating"),
        ("velocity_rad_s = [2.62, 2.62", 'velocity_rad_s = [2.62, "2"', r"velocity_rad_s\[1\] must be a number"),
        ("velocity_rad_s = [2.62, 2.62", "velocity_rad_s = [2.62, true", r"velocity_rad_s\[1\] must be a number"),
        ("velocity_rad_s = [2.62, 2.62", f"velocity_rad_s = [2.62, {10**400}", r"velocity_rad_s\[1\] must be a number"),
        ('name = "franka"', 'name = "\\u001b[2J"', r":\d+: name must be text of 1 to 64 printable"),
        ('"fr3_joint2"', '"fr3_joint1"', r":\d+: joints names one joint twice"),
        ('"fr3_joint2"', "2", r":\d+: joints\[1\] must be text"),
        ('joints = ["fr3', f"joints = {WIDE}", r":\d+: joints must be a list of 1 to 16, not a list of 23"),
        ("[home]\n", "[home]\nposition_deg = [0]\n", r":\d+: \[home\] position_deg is unknown"),
        ("position_rad = [0.0,", "position_rad = [9.0,", r"\[home\] position_rad puts joint 1 outside"),
        ("limit_rad = [0.15,", "limit_rad = [0.0,", r"\[following\] limit_rad is not positive for joint 1"),
        ("limit_rad = [0.15,", "limit_rad = [", r"\[following\] limit_rad must be a list of 7, .* 6"),
        (
            "slope_rad_s2 = [12.0,",
            "slope_rad_s2 = [-1.0,",
            r"\[velocity_edges\] slope_rad_s2 is not positive for joint 1",
        ),
        (
            "offset_rad_s = [0.30,",
            "offset_rad_s = [0.35,",
            r"\[operating\] velocity_rad_s of joint 1 is above the 1\.9",
        ),
        ("high_rad = [2.7501,", "high_rad = [", r"\[velocity_edges\] high_rad must be a list of 7"),
        ('[limits]\nsource = "', '[limits]\n# "', r"\[limits\] source is missing"),
        ("joints = [", "joints = {", r"is not TOML"),
    ],
)
def test_a_broken_profile_names_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    path = tmp_path / "arm.toml"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(ProfileError, match=message) as caught:
        load_arm(str(path))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("table", "key", "old", "new"),
    [
        ("limits", "velocity_rad_s", "velocity_rad_s = [2.62, ", "velocity_rad_s = ["),  # a wrong joint count
        ("operating", "velocity_rad_s", "velocity_rad_s = [2.0, ", "velocity_rad_s = ["),
        ("home", "position_rad", "position_rad = [0.0, ", "position_rad = ["),
        ("limits", "position_min_rad", "position_min_rad = [-2.7437,", "position_min_rad = [2.7437,"),  # inverted
        ("operating", "position_min_rad", "position_min_rad = [-2.3093,", "position_min_rad = [2.3093,"),
        ("limits", "", "velocity_rad_s = [2.62,", "# [2.62,"),  # a missing limit: the line of its table
        ("operating", "", "velocity_rad_s = [2.0,", "# [2.0,"),
    ],
)
def test_the_line_is_the_right_one(tmp_path: Path, table: str, key: str, old: str, new: str) -> None:
    assert old in GOOD
    path = tmp_path / "arm.toml"
    path.write_text(GOOD.replace(old, new, 1))
    lines = path.read_text().splitlines()
    header = lines.index(f"[{table}]") + 1
    line = next(n for n, text in enumerate(lines[header:], header + 1) if text.startswith(key)) if key else header
    with pytest.raises(ProfileError, match=rf"arm\.toml:{line}: "):
        load_arm(str(path))


HAND = (PROFILE_FOLDER / "franka_hand.toml").read_text()


def test_the_hand_is_an_axis_in_metres() -> None:
    arm = load_arm("franka_hand")
    assert arm.grippers == (7,) and arm.joints[7] == "fr3_finger_width"
    assert arm.units == ("rad",) * 7 + ("m",)
    assert (arm.limits.position_min_rad[7], arm.limits.position_max_rad[7]) == (0.0, 0.08)
    assert arm.following_rad[7] > 0.08, "an object between the fingers is no collision"
    joints, fr3 = arm.limits.rows(), load_arm("franka").limits.rows()
    assert [row[:7] for row in joints] == list(fr3)


def test_an_arm_without_a_gripper_has_joints_in_radians() -> None:
    arm = load_arm("franka")
    assert (arm.grippers, set(arm.units)) == ((), {"rad"})
    assert load_arm("so101").grippers == (5,)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"rad", "m"]', '"rad", "inch"]', r":\d+: units must name one of rad, m for each of the 8 joints"),
        ('units = ["rad", ', "units = [", r":\d+: units must name one of rad, m for each of the 8 joints"),
        (
            'gripper = "fr3_finger_width"',
            'gripper = "thumb"',
            r":\d+: gripper names 'thumb', which is none of the joints",
        ),
    ],
)
def test_a_broken_hand_names_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in HAND
    path = tmp_path / "arm.toml"
    path.write_text(HAND.replace(old, new, 1))
    with pytest.raises(ProfileError, match=message):
        load_arm(str(path))


def test_another_unit_is_another_arm(tmp_path: Path) -> None:
    path = tmp_path / "arm.toml"
    path.write_text(HAND.replace('"rad", "m"]', '"rad", "rad"]', 1))
    assert load_arm(str(path)).hash32 != load_arm("franka_hand").hash32


def test_an_arm_that_is_made_of_others_has_their_numbers_side_by_side() -> None:
    both, one = load_arm("bi_so101"), load_arm("so101")
    assert [side for side, _ in both.parts] == ["left", "right"] and all(part == one for _, part in both.parts)
    assert both.joints == tuple(f"{side}_{joint}" for side in ("left", "right") for joint in one.joints)
    assert both.grippers == (5, 11) and both.dof == 12 and both.edges is None
    mine = (*both.limits.rows(), *both.operating.rows(), both.home_rad, both.following_rad, both.units, both.stops_rad)
    theirs = (*one.limits.rows(), *one.operating.rows(), one.home_rad, one.following_rad, one.units, one.stops_rad)
    assert mine == tuple(row + row for row in theirs)
    assert both.goals is not None and one.goals is not None
    assert both.goals.beyond_rad == 2 * one.goals.beyond_rad


def test_the_followers_of_aloha_are_fourteen_axes() -> None:
    """In the order and by the names of ALOHA's recordings; the fingers of each are a width in metres."""
    arm = load_arm("aloha")
    one = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper")
    assert arm.joints == tuple(f"{side}_{joint}" for side in ("left", "right") for joint in one)
    assert arm.grippers == (6, 13) and [arm.units[axis] for axis in arm.grippers] == ["m", "m"]
    assert arm.operating.widest_excess(arm.limits) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('left = "so101"\n', r"arms must be a table of 2 to 16, not a table of 1"),
        ('left = "so101"\nright = "so102"\n', r"unknown arm 'so102'; choose one of"),
        ('left = "so101"\nright = "bi_so101"\n', r":8: \[arms\] right is 'bi_so101', which is itself made of others"),
        ('left = "so101"\nLeft_2 = "so101"\n', r":8: \[arms\] Left_2 must be a word of small letters, as left"),
        ('a = "franka"\nb = "franka"\nc = "so101"\n', r"arms have 20 axes together; at most 16 are possible"),
        ('left = "franka"\nright = "so101"\n', r"arms have \[velocity_edges\] in some of their profiles"),
        ('left = "so101"\nright = "so101"\n[limits]\nsource = "x"\n', r"limits stands in the profiles of the arms of"),
    ],
)
def test_arms_that_do_not_go_together(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "two.toml"
    path.write_text(f'format = 1\nname = "two"\nmodel = "two"\nembodiment = "two"\n\n[arms]\n{text}')
    with pytest.raises(ProfileError, match=message):
        load_arm(str(path))


@pytest.mark.parametrize("name", [name for name in available_arms() if not load_arm(name).parts])
def test_every_table_of_a_shipped_profile_names_its_source(name: str) -> None:
    document = tomllib.loads((PROFILE_FOLDER / f"{name}.toml").read_text())
    tables = {key: value for key, value in document.items() if isinstance(value, dict)}
    assert {"home", "limits", "following"} <= set(tables)
    assert all(len(table["source"]) > 10 for table in tables.values())
