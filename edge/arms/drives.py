"""Arms that speak a protocol of their own, by the scheme of a bridge URL: what opens each, and how its loop runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from edge.arms import ArmProfile
from edge.arms.franka_url import FrankaUrl
from edge.errors import InputError
from firmware_bridge.adapters import ArmDrive
from firmware_bridge.adapters.feetech.bus import open_bus
from firmware_bridge.adapters.feetech.calibration import JointSpan, read_calibration
from firmware_bridge.adapters.feetech.drive import BRIDGED_PERIODS as FEETECH_BRIDGED
from firmware_bridge.adapters.feetech.drive import CYCLE_PERIODS as FEETECH_CYCLE
from firmware_bridge.adapters.feetech.drive import FeetechDrive
from firmware_bridge.adapters.franka_fci import BRIDGED_PERIODS as FCI_BRIDGED
from firmware_bridge.adapters.franka_hand import open_franka
from firmware_bridge.adapters.franka_options import FORM as FCI_FORM
from firmware_bridge.adapters.velocity import RateLimits
from firmware_bridge.codes import TICK_US

FEETECH_FORM = "feetech:PATH?calibration=FILE"
Say = Callable[[str], None]


@dataclass(frozen=True)
class FeetechUrl:
    """The port of a servo bus, and the calibration of the arm on it; by default, the arm's in this folder."""

    port: str
    calibration: Path | None

    @staticmethod
    def parse(url: str) -> FeetechUrl:
        """Raises `InputError`."""
        parts = urlsplit(url)
        options = parse_qs(parts.query, keep_blank_values=True)
        file = options.pop("calibration", [None])[-1]
        if parts.scheme != "feetech" or not parts.path or options or file == "":
            raise InputError(f"'{url}': write {FEETECH_FORM}")
        return FeetechUrl(parts.path, Path(file) if file else None)

    def calibration_of(self, arm: ArmProfile) -> Path:
        return self.calibration or Path(f"{arm.name}-calibration.json")


@dataclass(frozen=True)
class DriveScheme:
    """One kind of arm.

    form             how its URL is written
    check            raises `InputError` for a URL that is written otherwise, or for another arm; opens nothing
    is_simulator     whether the URL can only mean a simulated arm
    open             the drive, with the arm's profile and a way to say a line; raises `VlaEdgeError` or `BridgeError`
    bridged_periods  how many of the core's periods may be missing until the core is told
    cycle_periods    how many of them the arm's own cycle takes
    idle_us          see `Adapter`
    """

    form: str
    check: Callable[[str, ArmProfile], None]
    is_simulator: Callable[[str], bool]
    open: Callable[[str, ArmProfile, Say], ArmDrive]
    bridged_periods: int
    cycle_periods: int = 1
    idle_us: int = TICK_US - 1


def joint_spans(arm: ArmProfile) -> list[JointSpan]:
    """What a calibration is compared with."""
    limits, operating = arm.limits, arm.operating
    rows = zip(
        arm.joints,
        zip(limits.position_min_rad, limits.position_max_rad),
        zip(operating.position_min_rad, operating.position_max_rad),
    )
    return [JointSpan(*row) for row in rows]


def _check_fci(url: str, arm: ArmProfile) -> None:
    FrankaUrl.parse(url).check(arm)


def _open_fci(url: str, arm: ArmProfile, say: Say) -> ArmDrive:
    parsed = FrankaUrl.parse(url)
    parsed.check(arm)
    limits = RateLimits(arm.limits.acceleration_rad_s2, arm.limits.jerk_rad_s3)
    return open_franka(parsed.address, parsed.options, limits, say)


def _check_feetech(url: str, arm: ArmProfile) -> None:
    FeetechUrl.parse(url)


def _open_feetech(url: str, arm: ArmProfile, say: Say) -> ArmDrive:
    parsed = FeetechUrl.parse(url)
    calibration = read_calibration(parsed.calibration_of(arm), arm.name, arm.joints)
    spans = joint_spans(arm)
    return FeetechDrive(lambda: open_bus(parsed.port), calibration, spans, say, time.monotonic_ns, time.sleep)


DRIVES = {
    "fci": DriveScheme(
        FCI_FORM, _check_fci, lambda url: FrankaUrl.parse(url).is_simulator, _open_fci, bridged_periods=FCI_BRIDGED
    ),
    "feetech": DriveScheme(
        FEETECH_FORM,
        _check_feetech,
        lambda url: False,  # a servo bus on a pseudo-terminal looks like any other
        _open_feetech,
        bridged_periods=FEETECH_BRIDGED,
        cycle_periods=FEETECH_CYCLE,
        idle_us=FEETECH_BRIDGED * TICK_US,
    ),
}


def drive_scheme(url: str) -> DriveScheme | None:
    """The kind of arm behind a bridge URL; None for one that speaks the wire of PROTOCOL.md."""
    return DRIVES.get(url.partition(":")[0])


def drive_forms() -> str:
    """How the URLs are written."""
    return ", ".join(scheme.form for scheme in DRIVES.values())
