"""What can be asked of a Franka in its URL, checked before the robot is asked for anything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

JOINTS, AXES = 7, 6
TORQUE_NM = (20.0, 20.0, 18.0, 18.0, 16.0, 14.0, 12.0)
"""Contact and collision thresholds per joint: those of libfranka's own examples (`setDefaultBehavior`)."""
FORCE_N = (20.0, 20.0, 20.0, 25.0, 25.0, 25.0)
IMPEDANCE_NM_RAD = (3000.0, 3000.0, 3000.0, 2500.0, 2500.0, 2000.0, 2000.0)
MOST_THRESHOLD = 100.0
"""Of either kind: the widest in libfranka's examples. Beyond it a collision is hardly noticed."""
MOST_IMPEDANCE_NM_RAD = 14250.0
"""libfranka `robot.h`, `setJointImpedance`: 0 to 14250."""
MODES = ("position", "velocity")
FORM = (
    "fci:ADDRESS?mode=position|velocity&collision_torque=7xNM&collision_force=6xN&contact_torque=7xNM&"
    "contact_force=6xN&impedance=7xNM_RAD&gripper=1&realtime=enforce|ignore"
)


@dataclass(frozen=True)
class FrankaOptions:
    """How a Franka is to be driven.

    enforce_realtime         libfranka insists on a kernel with PREEMPT_RT
    mode                     what the robot is sent: joint positions, or velocities (`VelocityFollower`)
    contact_*, collision_*   per joint in N m, and per axis in N (rotations in N m): above the first the robot reports
                             a contact, above the second it stops
    impedance_nm_rad         stiffness of the robot's own joint controller
    gripper                  a Franka Hand is driven too, as an eighth axis: its width in metres
    """

    enforce_realtime: bool = True
    mode: str = "position"
    contact_torque_nm: tuple[float, ...] = TORQUE_NM
    collision_torque_nm: tuple[float, ...] = TORQUE_NM
    contact_force_n: tuple[float, ...] = FORCE_N
    collision_force_n: tuple[float, ...] = FORCE_N
    impedance_nm_rad: tuple[float, ...] = IMPEDANCE_NM_RAD
    gripper: bool = False

    @staticmethod
    def read(options: Mapping[str, str], simulator: bool) -> FrankaOptions:
        """From the options of a URL. Raises `ValueError` with a line that names the cure.

        A simulator needs no real-time kernel. A contact threshold that is not given is the collision's.
        """
        left = dict(options)
        realtime = _choice(left, "realtime", ("ignore", "enforce") if simulator else ("enforce", "ignore"))
        torque = _numbers(left, "collision_torque", JOINTS, TORQUE_NM, MOST_THRESHOLD, "N m")
        force = _numbers(left, "collision_force", AXES, FORCE_N, MOST_THRESHOLD, "N")
        read = FrankaOptions(
            enforce_realtime=realtime == "enforce",
            mode=_choice(left, "mode", MODES),
            contact_torque_nm=_numbers(left, "contact_torque", JOINTS, torque, MOST_THRESHOLD, "N m"),
            collision_torque_nm=torque,
            contact_force_n=_numbers(left, "contact_force", AXES, force, MOST_THRESHOLD, "N"),
            collision_force_n=force,
            impedance_nm_rad=_numbers(left, "impedance", JOINTS, IMPEDANCE_NM_RAD, MOST_IMPEDANCE_NM_RAD, "N m/rad"),
            gripper=_choice(left, "gripper", ("0", "1")) == "1",
        )
        if left:
            raise ValueError(f"unknown option {', '.join(sorted(left))}; write {FORM}")
        _ordered("torque", read.contact_torque_nm, read.collision_torque_nm)
        _ordered("force", read.contact_force_n, read.collision_force_n)
        return read


def _choice(options: dict[str, str], name: str, choices: tuple[str, ...]) -> str:
    """The first choice where nothing is given."""
    value = options.pop(name, choices[0])
    if value not in choices:
        raise ValueError(f"{name}={value} is not one of {', '.join(sorted(choices))}")
    return value


def _numbers(
    options: dict[str, str], name: str, count: int, default: tuple[float, ...], most: float, unit: str
) -> tuple[float, ...]:
    """`count` numbers with commas between, or one for all of them; above 0 and at most `most`."""
    text = options.pop(name, None)
    if text is None:
        return default
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = (math.nan,)
    if len(values) not in (1, count) or not all(0.0 < value <= most for value in values):
        raise ValueError(f"{name}={text}: write {count} numbers, or one for all, above 0 and at most {most:g} {unit}")
    return values if len(values) == count else values * count


def _ordered(what: str, contact: tuple[float, ...], collision: tuple[float, ...]) -> None:
    for number, (lower, upper) in enumerate(zip(contact, collision), start=1):
        if lower > upper:
            raise ValueError(
                f"contact_{what} {lower:g} is above collision_{what} {upper:g} (number {number}): "
                "the robot would stop before it reports a contact"
            )
