"""An arm of Feetech bus servos by its URL, `feetech:/dev/ttyACM0`, and the calibration that it needs."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from edge.arms.drives import DRIVES, BusUrl, Notify
from edge.arms.profile import ArmProfile
from edge.errors import InputError
from firmware_bridge.adapters import ArmDrive
from firmware_bridge.adapters.feetech.bus import open_bus
from firmware_bridge.adapters.feetech.calibration import JointSpan, operating_range, read_calibration, scales
from firmware_bridge.adapters.feetech.drive import FeetechDrive
from firmware_bridge.adapters.feetech.leader import Leader
from firmware_bridge.adapters.feetech.registers import RAD_PER_COUNT
from firmware_bridge.adapters.feetech.servos import Grip
from firmware_bridge.errors import BridgeError
from firmware_bridge.url import option

PSEUDO_TERMINALS = "/dev/pts/"


class CalibrationError(InputError):
    """A calibration that cannot be used; the message names the file and the fix."""


@dataclass(frozen=True)
class FeetechUrl(BusUrl):
    """The servo bus at the port `target`, and the calibration of the arm on it; by default, the arm's in this folder.
    `grip` is the most torque of the jaw, as a share of its servo's.

    A servo bus on a pseudo-terminal looks like any other, so no URL can only mean a simulated arm.
    """

    FORM: ClassVar[str] = "feetech:PATH?calibration=FILE&grip=SHARE"
    cycle_periods: ClassVar[int] = FeetechDrive.CYCLE_PERIODS
    calibration: Path | None = None
    grip: float = option(Grip.torque, least=0.05, most=1.0)

    @property
    def latch_name(self) -> str:
        """The number of a pseudo-terminal is another arm's tomorrow: a link to one has a name that stays."""
        return "" if self.target.startswith(PSEUDO_TERMINALS) else f"feetech-{self.target}"

    def calibration_of(self, arm: ArmProfile) -> Path:
        return self.calibration or Path(f"{arm.name}-calibration.json")

    def open(self, arm: ArmProfile, notify: Notify) -> ArmDrive:
        calibration = read_calibration(self.calibration_of(arm), arm.name, arm.joints)
        spans = joint_spans(arm)
        return FeetechDrive(
            lambda: open_bus(self.target),
            calibration,
            spans,
            notify,
            time.monotonic_ns,
            time.sleep,
            Grip(torque=self.grip),
        )

    def fitted(self, arm: ArmProfile) -> ArmProfile:
        calibration, spans = read_calibration(self.calibration_of(arm), arm.name, arm.joints), joint_spans(arm)
        ranges = [operating_range(*pair) for pair in zip(scales(calibration, spans), spans)]
        low, high = (tuple(ends) for ends in zip(*ranges))
        return replace(arm, operating=replace(arm.operating, position_min_rad=low, position_max_rad=high))


def feetech_url(url: str) -> FeetechUrl:
    """Reads the URL of a servo bus. Raises `InputError`."""
    found = DRIVES.read(url)
    if not isinstance(found, FeetechUrl):
        raise InputError(f"'{url}': a bus of servos is needed; write {FeetechUrl.FORM}")
    return found


def open_leader(url: str, arm: ArmProfile) -> Leader:
    """The leader for `arm` at a URL, which is written as a follower's; see `Leader`. It is read and never written.

    Its calibration is by default the file `NAME-leader-calibration.json` in this folder. Raises `VlaEdgeError` or
    `BridgeError`.
    """
    found = feetech_url(url)
    file = found.calibration or Path(f"{arm.name}-leader-calibration.json")
    calibration = read_calibration(file, arm.name, arm.joints)
    bus = open_bus(found.target)
    try:
        return Leader(bus, calibration, joint_spans(arm), time.monotonic_ns)
    except BaseException:
        bus.close()
        raise


def own_sweeps(arm: ArmProfile, calibration: Path) -> list[float]:
    """By how much each joint of a calibrated arm turns from one end of its sweep to the other, rad. Raises
    `CalibrationError`."""
    try:
        servos = read_calibration(calibration, arm.name, arm.joints).servos
    except BridgeError as error:
        raise CalibrationError(str(error)) from None
    return [RAD_PER_COUNT * (one.range_max - one.range_min) for one in servos]


def joint_spans(arm: ArmProfile) -> list[JointSpan]:
    """What a calibration is compared with."""
    operating = arm.operating
    rows = zip(
        arm.joints,
        arm.stops_rad,
        zip(operating.position_min_rad, operating.position_max_rad),
        arm.home_rad,
    )
    return [JointSpan(*row, jaw=index == arm.gripper) for index, row in enumerate(rows)]
