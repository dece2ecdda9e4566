"""What an arm has to offer to be driven by the core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from firmware_bridge.errors import BridgeError


class DriveError(BridgeError):
    """The arm cannot be reached, or refuses what it was asked before any motion."""


@dataclass(frozen=True)
class Measurement:
    """What the arm told in one of its periods.

    position_rad  measured joint positions
    ok            whether they can be relied on, and the arm has no fault of its own
    drive_is_on   measured, not what was commanded: whether the arm follows set-points now
    periods       how many periods of 1 ms have passed since the last measurement: 1, more where some were lost
    idle          how many of them passed while there was nothing to answer, as while a motion begins
    age_us        how long ago the last of them ended, where the arm's line takes a part of a period to ask
    """

    position_rad: tuple[float, ...]
    ok: bool
    drive_is_on: bool
    periods: int
    age_us: int = 0
    idle: int = 0


class ArmDrive(Protocol):
    """The arm's own protocol. None of this decides anything: limits, stops and states are the core's."""

    @property
    def position_rad(self) -> tuple[float, ...]:
        """As last measured; at first, where the arm was found."""

    def measure(self) -> Measurement:
        """Waits for the arm's next period. A fault of the arm is told by `ok`, never raised."""

    def command(self, set_point_rad: Sequence[float], velocity_rad_s: Sequence[float], enable: bool) -> None:
        """Answers that period. The drive comes on with the first `enable`, and goes off with the first without."""

    def clear(self) -> None:
        """The host has cleared the fault that the core was in: the arm may recover from its own."""

    def statistics(self) -> dict[str, float]:
        """What a report should say of the arm's line, by name with its unit."""

    def close(self) -> None:
        """Ends any motion, and lets go of the arm."""


@runtime_checkable
class SelfStopping(Protocol):
    """An arm that stops by itself, and stays so until `clear`."""

    @property
    def fault(self) -> str:
        """Why it does not move, in words; empty where nothing keeps it."""


def fault_of(drive: ArmDrive) -> str:
    """In the arm's own words why it does not move; empty where nothing keeps it, or it has no words."""
    return drive.fault if isinstance(drive, SelfStopping) else ""
