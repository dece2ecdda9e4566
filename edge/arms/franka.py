"""A Franka by its URL, `fci:172.16.0.2`, with its options."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import ClassVar

from edge.arms.drives import DriveUrl, Notify
from edge.arms.profile import ArmProfile
from edge.errors import InputError
from firmware_bridge.adapters import ArmDrive
from firmware_bridge.adapters.franka_fci import BRIDGED_PERIODS
from firmware_bridge.adapters.franka_hand import open_franka
from firmware_bridge.adapters.franka_identity import UnknownRobot, ask
from firmware_bridge.adapters.franka_options import JOINTS, FrankaOptions
from firmware_bridge.adapters.rate_guard import ArmLimits
from firmware_bridge.adapters.velocity import CORRECTION_RAD_S

REACHED_S = 3.0
PORTS = (443, 1337)
"""Of the page that configures the arm, and of the interface that libfranka speaks."""


def check_reachable(address: str) -> None:
    """Whether any computer is there: libfranka alone would wait for a minute. Raises `InputError`."""
    failure: OSError | None = None
    for port in PORTS:
        try:
            with socket.create_connection((address, port), REACHED_S):
                return
        except ConnectionRefusedError:
            return  # somebody is there, and said no
        except OSError as error:
            failure = error
    why = (failure.strerror if failure is not None else None) or "no answer"
    raise InputError(
        f"'fci:{address}': no computer answers there ({why}); check the address, the cable and `ping {address}`"
    )


def arm_limits(arm: ArmProfile) -> ArmLimits:
    """The outermost limits of a profile, as an adapter takes them."""
    rows, edges = vars(arm.limits), arm.edges.rows() if arm.edges is not None else ()
    return ArmLimits(**rows, edges=edges)


@dataclass(frozen=True)
class FrankaUrl(FrankaOptions, DriveUrl):
    """The robot at the address `target`, and how it is to be driven."""

    FORM: ClassVar[str] = (
        "fci:ADDRESS?mode=position|velocity&collision_torque=7xNM&collision_force=6xN&contact_torque=7xNM&"
        "contact_force=6xN&impedance=7xNM_RAD&load=KG&load_center=3xM&load_inertia=9xKGM2&gripper=1&"
        "realtime=enforce|ignore"
    )
    bridged_periods: ClassVar[int] = BRIDGED_PERIODS

    @property
    def is_simulator(self) -> bool:
        """An arm on this machine's loopback can only be a simulated one."""
        return self.target.startswith("127.")

    @property
    def latch_name(self) -> str:
        return f"fci-{self.target}"

    def check(self, arm: ArmProfile) -> None:
        axes = JOINTS + self.gripper
        if arm.dof != axes:
            raise InputError(
                f"'fci:{self.target}' is an arm of {axes} axes and '{arm.name}' has {arm.dof}; gripper=1 is for a "
                "profile whose eighth axis is the width of the hand"
            )
        if self.mode != "velocity":
            return
        for joint, (most, asked) in enumerate(zip(arm.limits.velocity_rad_s, arm.operating.velocity_rad_s), start=1):
            if most - asked < CORRECTION_RAD_S:
                raise InputError(
                    f"'fci:{self.target}': mode=velocity adds up to {CORRECTION_RAD_S} rad/s, and [operating] of "
                    f"'{arm.name}' leaves less below [limits] for joint {joint}; use mode=position, or tighten "
                    "[operating]"
                )

    def _identify(self, arm: ArmProfile, notify: Notify) -> None:
        """Says which robot it is. Raises `InputError` where it is not one for this profile."""
        try:
            robot = ask(self.target)
        except UnknownRobot as unknown:
            if str(unknown):
                notify(f"the robot does not tell which one it is ({unknown}): '{arm.name}' is believed")
            return
        notify(f"robot: {robot}")
        excess = robot.excess(arm_limits(arm))
        if excess:
            raise InputError(f"'fci:{self.target}' is no '{arm.name}': {excess}; choose the profile of this robot")

    def open(self, arm: ArmProfile, notify: Notify) -> ArmDrive:
        self.check(arm)
        check_reachable(self.target)
        self._identify(arm, notify)
        return open_franka(self.target, self, arm_limits(arm), notify)
