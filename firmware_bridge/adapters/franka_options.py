"""How a Franka is driven: the options of its URL, checked before anything is sent to the robot."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from firmware_bridge.url import option

JOINTS, AXES = 7, 6
TORQUE_NM = (20.0, 20.0, 18.0, 18.0, 16.0, 14.0, 12.0)
"""Contact and collision thresholds per joint: those of libfranka's own examples (`setDefaultBehavior`)."""
FORCE_N = (20.0, 20.0, 20.0, 25.0, 25.0, 25.0)
IMPEDANCE_NM_RAD = (3000.0, 3000.0, 3000.0, 2500.0, 2500.0, 2000.0, 2000.0)
MOST_THRESHOLD = 100.0
"""Of either kind: the widest in libfranka's examples. Beyond it a collision is hardly noticed."""
MOST_IMPEDANCE_NM_RAD = 14250.0
"""libfranka `robot.h`, `setJointImpedance`: 0 to 14250."""
MOST_LOAD_KG = 3.0
"""Data sheets of the Panda and the FR3: what they carry, hand included."""
MOST_CENTER_M, MOST_INERTIA_KG_M2 = 0.5, 1.0
"""Ours: beyond what 3 kg in a hand can have; a slip of the unit is refused."""
Row = tuple[float, ...]


def _row(count: int, most: float, unit: str) -> Callable[[str], Row]:
    """Reads `count` numbers with commas between, or one for all of them; above 0 and at most `most`."""

    def read(text: str) -> Row:
        try:
            values = tuple(float(part) for part in text.split(","))
        except ValueError:
            values = (math.nan,)
        if len(values) not in (1, count) or not all(0.0 < value <= most for value in values):
            raise ValueError(f"write {count} numbers, or one for all, above 0 and at most {most:g} {unit}")
        return values if len(values) == count else values * count

    return read


def _numbers(count: int, most: float, unit: str) -> Callable[[str], Row]:
    """Reads `count` numbers with commas between, each at most `most` on either side of 0."""

    def read(text: str) -> Row:
        try:
            values = tuple(float(part) for part in text.split(","))
        except ValueError:
            values = ()
        if len(values) != count or not all(-most <= value <= most for value in values):
            raise ValueError(f"write {count} numbers from {-most:g} to {most:g} {unit}")
        return values

    return read


TORQUES, FORCES = _row(JOINTS, MOST_THRESHOLD, "N m"), _row(AXES, MOST_THRESHOLD, "N")
CENTRE = _numbers(3, MOST_CENTER_M, "m")
INERTIA = _numbers(9, MOST_INERTIA_KG_M2, "kg m^2")
IMPEDANCES = _row(JOINTS, MOST_IMPEDANCE_NM_RAD, "N m/rad")


@dataclass(frozen=True)
class FrankaOptions:
    """How a Franka is to be driven.

    mode                     what the robot is sent: joint positions, or velocities (`VelocityFollower`)
    contact_*, collision_*   per joint in N m, and per axis in N (rotations in N m): above the first the robot reports
                             a contact, above the second it stops; a contact threshold of () is the collision's
    impedance_nm_rad         stiffness of the robot's own joint controller
    load_*                   what hangs at the flange beside the end effector: its mass, where its centre is in the
                             flange's frame, and its inertia about that, by columns; without a mass Desk's stays
    gripper                  a Franka Hand is driven too, as an eighth axis: its width in metres
    realtime                 whether libfranka insists on a kernel with PREEMPT_RT; by default, where the robot is real
    """

    mode: Literal["position", "velocity"] = "position"
    collision_torque_nm: Row = option(TORQUE_NM, name="collision_torque", read=TORQUES)
    collision_force_n: Row = option(FORCE_N, name="collision_force", read=FORCES)
    contact_torque_nm: Row = option((), name="contact_torque", read=TORQUES)
    contact_force_n: Row = option((), name="contact_force", read=FORCES)
    impedance_nm_rad: Row = option(IMPEDANCE_NM_RAD, name="impedance", read=IMPEDANCES)
    load_kg: float | None = option(None, name="load", most=MOST_LOAD_KG)
    load_center_m: Row = option((0.0, 0.0, 0.0), name="load_center", read=CENTRE)
    load_inertia_kg_m2: Row = option((0.0,) * 9, name="load_inertia", read=INERTIA)
    gripper: bool = False
    realtime: Literal["enforce", "ignore"] | None = None

    def __post_init__(self) -> None:
        if self.load_kg is None and (any(self.load_center_m) or any(self.load_inertia_kg_m2)):
            raise ValueError("load_center and load_inertia are of a load; give its mass as well, load=KG")
        for what in ("torque_nm", "force_n"):
            pairs = zip(getattr(self, f"contact_{what}"), getattr(self, f"collision_{what}"))
            for number, (contact, collision) in enumerate(pairs, start=1):
                if contact > collision:
                    name = what.partition("_")[0]
                    raise ValueError(
                        f"contact_{name} {contact:g} is above collision_{name} {collision:g} (number {number}): "
                        "the robot would stop before it reports a contact"
                    )

    @property
    def is_simulator(self) -> bool:
        """Whether the arm can only be a simulated one."""
        return False

    @property
    def enforce_realtime(self) -> bool:
        """A simulator needs no real-time kernel."""
        return self.realtime == "enforce" if self.realtime else not self.is_simulator
