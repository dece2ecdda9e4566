"""An AgileX Piper by its URL, `piper:socketcan:can0`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

from edge.arms.drives import CanArmUrl, Notify
from edge.arms.profile import ArmProfile
from edge.errors import InputError
from firmware_bridge.adapters import ArmDrive
from firmware_bridge.adapters.piper.drive import PiperArm, PiperDrive, bus_share
from firmware_bridge.adapters.piper.frames import JOINTS, MOST_EFFORT_NM
from firmware_bridge.bus_load import CanShare
from firmware_bridge.url import option

DEFAULT_GRIP_NM = 1.0
"""That of the maker's examples."""


@dataclass(frozen=True)
class PiperUrl(CanArmUrl):
    """The arm on a bus. `grip` is the most torque of its gripper, N m; `let_go` takes the torque away at connect from
    an arm that holds a pose."""

    FORM: ClassVar[str] = "piper:INTERFACE:CHANNEL?bitrate=N&grip=NM&let_go=1"
    cycle_periods: ClassVar[int] = PiperDrive.CYCLE_PERIODS
    grip: float = option(DEFAULT_GRIP_NM, least=0.1, most=MOST_EFFORT_NM)
    let_go: bool = False

    def load(self, arm: ArmProfile) -> CanShare:
        return bus_share(self.bitrate)

    def check(self, arm: ArmProfile) -> None:
        if arm.dof != JOINTS + 1:
            raise InputError(
                f"'piper:{self.target}' is an arm of 7 axes, the gripper last, and '{arm.name}' has {arm.dof}; use "
                "--arm piper, or a profile of your own with as many"
            )
        super().check(arm)

    def open(self, arm: ArmProfile, notify: Notify) -> ArmDrive:
        self.check(arm)
        return PiperDrive(
            self.open_bus,
            piper_arm(arm),
            self.grip,
            self.let_go,
            self.load(arm),
            notify,
            time.monotonic_ns,
            time.sleep,
        )


def piper_arm(arm: ArmProfile) -> PiperArm:
    """What a profile asks of the arm."""
    within = arm.operating
    return PiperArm(
        arm.joints,
        within.position_min_rad,
        within.position_max_rad,
        within.velocity_rad_s,
        within.acceleration_rad_s2,
    )
