"""An arm of Feetech bus servos by its URL, `feetech:/dev/ttyACM0`, and the calibration that it needs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edge.arms.drives import DRIVES, DriveUrl, Notify
from edge.arms.profile import ArmProfile
from edge.errors import InputError
from firmware_bridge.adapters import ArmDrive
from firmware_bridge.adapters.feetech.bus import open_bus
from firmware_bridge.adapters.feetech.calibration import JointSpan, read_calibration
from firmware_bridge.adapters.feetech.drive import BRIDGED_PERIODS, CYCLE_PERIODS, FeetechDrive
from firmware_bridge.codes import TICK_US


@dataclass(frozen=True)
class FeetechUrl(DriveUrl):
    """The servo bus at the port `target`, and the calibration of the arm on it; by default, the arm's in this folder.

    A servo bus on a pseudo-terminal looks like any other, so no URL can only mean a simulated arm.
    """

    FORM: ClassVar[str] = "feetech:PATH?calibration=FILE"
    bridged_periods: ClassVar[int] = BRIDGED_PERIODS
    cycle_periods: ClassVar[int] = CYCLE_PERIODS
    idle_us: ClassVar[int] = BRIDGED_PERIODS * TICK_US
    calibration: Path | None = None

    def calibration_of(self, arm: ArmProfile) -> Path:
        return self.calibration or Path(f"{arm.name}-calibration.json")

    def open(self, arm: ArmProfile, notify: Notify) -> ArmDrive:
        calibration = read_calibration(self.calibration_of(arm), arm.name, arm.joints)
        spans = joint_spans(arm)
        return FeetechDrive(lambda: open_bus(self.target), calibration, spans, notify, time.monotonic_ns, time.sleep)


def feetech_url(url: str) -> FeetechUrl:
    """Reads the URL of a servo bus. Raises `InputError`."""
    found = DRIVES.read(url)
    if not isinstance(found, FeetechUrl):
        raise InputError(f"'{url}': a bus of servos is needed; write {FeetechUrl.FORM}")
    return found


def joint_spans(arm: ArmProfile) -> list[JointSpan]:
    """What a calibration is compared with."""
    limits, operating = arm.limits, arm.operating
    rows = zip(
        arm.joints,
        zip(limits.position_min_rad, limits.position_max_rad),
        zip(operating.position_min_rad, operating.position_max_rad),
    )
    return [JointSpan(*row) for row in rows]
