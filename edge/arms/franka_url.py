"""The URL of a Franka: `fci:172.16.0.2`, with its options."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from edge.arms import ArmProfile
from edge.errors import InputError
from firmware_bridge.adapters.franka_options import FORM, JOINTS, FrankaOptions
from firmware_bridge.adapters.velocity import CORRECTION_RAD_S


@dataclass(frozen=True)
class FrankaUrl:
    """Where a Franka is, and how it is to be driven."""

    url: str
    address: str
    options: FrankaOptions

    @property
    def is_simulator(self) -> bool:
        """An arm on this machine's loopback can only be a simulated one."""
        return _is_here(self.address)

    @staticmethod
    def parse(url: str) -> FrankaUrl:
        """Raises `InputError`. An address of this machine is a simulator's, and needs no real-time kernel."""
        parts = urlsplit(url)
        if parts.scheme != "fci" or not parts.path:
            raise InputError(f"'{url}': write {FORM}")
        try:
            options = FrankaOptions.read(dict(parse_qsl(parts.query, keep_blank_values=True)), _is_here(parts.path))
        except ValueError as error:
            raise InputError(f"'{url}': {error}") from None
        return FrankaUrl(url, parts.path, options)

    def check(self, arm: ArmProfile) -> None:
        """What arm and options have to do with one another. Raises `InputError`."""
        axes = JOINTS + self.options.gripper
        if arm.dof != axes:
            raise InputError(
                f"'{self.url}' is an arm of {axes} axes and '{arm.name}' has {arm.dof}; gripper=1 is for a profile "
                "whose eighth axis is the width of the hand"
            )
        if self.options.mode != "velocity":
            return
        for joint, (most, asked) in enumerate(zip(arm.limits.velocity_rad_s, arm.operating.velocity_rad_s), start=1):
            if most - asked < CORRECTION_RAD_S:
                raise InputError(
                    f"'{self.url}': mode=velocity adds up to {CORRECTION_RAD_S} rad/s, and [operating] of '{arm.name}' "
                    f"leaves less below [limits] for joint {joint}; use mode=position, or tighten [operating]"
                )


def _is_here(address: str) -> bool:
    return address.startswith("127.")
