"""The options of a Franka's URL: read, defaulted, and refused in one line."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge.arms import load_arm
from edge.arms.drives import DRIVES
from edge.errors import InputError
from firmware_bridge.adapters.franka_options import FORCE_N, IMPEDANCE_NM_RAD, TORQUE_NM


def test_defaults() -> None:
    here, robot = DRIVES.read("fci:127.0.0.1"), DRIVES.read("fci:172.16.0.2")
    assert here.is_simulator and not here.enforce_realtime
    assert not robot.is_simulator and robot.enforce_realtime and (robot.mode, robot.gripper) == ("position", False)
    rows = (robot.collision_torque_nm, robot.collision_force_n, robot.impedance_nm_rad)
    assert rows == (TORQUE_NM, FORCE_N, IMPEDANCE_NM_RAD)
    assert not DRIVES.read("fci:172.16.0.2?realtime=ignore").enforce_realtime
    assert DRIVES.read("fci:127.0.0.1?realtime=enforce").enforce_realtime


def test_a_row_of_thresholds_is_one_number_or_all() -> None:
    options = DRIVES.read("fci:172.16.0.2?collision_torque=30,29,28,27,26,25,24&collision_force=12")
    assert options.collision_torque_nm == (30.0, 29.0, 28.0, 27.0, 26.0, 25.0, 24.0)
    assert options.collision_force_n == (12.0,) * 6


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("collision_torque=20,20", "=20,20: write 7 numbers, or one for all, above 0 and at most 100 N m"),
        ("collision_torque=0", "above 0 and at most 100 N m"),
        ("collision_torque=-5", "above 0 and at most 100 N m"),
        ("collision_torque=100.5", "above 0 and at most 100 N m"),
        ("collision_torque=nan", "collision_torque=nan: write 7 numbers"),
        ("collision_torque=inf", "collision_torque=inf: write 7 numbers"),
        ("collision_torque=", "collision_torque=: write 7 numbers"),
        ("collision_force=1,2,3,4,5,6,7", "write 6 numbers, or one for all, above 0 and at most 100 N"),
        ("contact_force=30", r"contact_force 30 is above collision_force 20 \(number 1\)"),
        ("contact_torque=13", r"contact_torque 13 is above collision_torque 12 \(number 7\)"),
        ("impedance=15000", "above 0 and at most 14250 N m/rad"),
        ("load=4", "load must be a number from 0 to 3"),
        ("load=1&load_center=0,0", "load_center=0,0: write 3 numbers from -0.5 to 0.5 m"),
        ("load=1&load_inertia=1", "write 9 numbers from -1 to 1 kg m"),
        ("load_center=0,0,0.1", "are of a load; give its mass as well, load=KG"),
        ("mode=torque", "mode must be position or velocity, not 'torque'"),
        ("gripper=yes", "gripper must be 0 or 1, not 'yes'"),
        ("realtime=perhaps", "realtime must be enforce or ignore, not 'perhaps'"),
        ("speed=3", "unknown option speed; write fci:ADDRESS"),
    ],
)
def test_what_cannot_be_is_one_line_with_the_cure(options: str, line: str) -> None:
    with pytest.raises(InputError, match=line) as caught:
        DRIVES.read(f"fci:172.16.0.2?{options}")
    assert "\n" not in str(caught.value)


def test_a_hand_is_an_eighth_axis() -> None:
    with pytest.raises(InputError, match=r"is an arm of 8 axes and 'franka' has 7; gripper=1 is for a profile"):
        DRIVES.read("fci:172.16.0.2?gripper=1").check(load_arm("franka"))


def test_velocities_need_room_below_the_limits() -> None:
    url = DRIVES.read("fci:172.16.0.2?mode=velocity")
    url.check(load_arm("franka"))
    with pytest.raises(InputError, match=r"leaves less below \[limits\] for joint 1; use mode=position"):
        url.check(replace(load_arm("panda"), operating=load_arm("panda").limits))
