"""An arm's axes as LeRobot names and measures them: `JOINT.pos`, degrees, a gripper from 0 to 100 of its travel."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge.arms import ArmProfile
from edge.arms.drives import drive_url
from edge.arms.feetech import BETWEEN, FeetechUrl
from edge.bundle.manifest import ActionNumber, AxisSpec, StateNumber, Unit
from edge.plan.trajectory import FloatArray
from edge.policy.axes import Units
from firmware_bridge.reading import one_line

SUFFIX = ".pos"
UNITS: dict[str, Unit] = {"rad": "deg", "m": "m"}


class LeRobotAxes:
    """The axes of one arm. `names` are in the arm's order; a gripper's travel is that between the profile's stops.
    `units` convert positions (..., J)."""

    def __init__(self, arm: ArmProfile) -> None:
        self.names = tuple(joint + SUFFIX for joint in arm.joints)
        units = tuple("percent" if index in arm.grippers else UNITS[unit] for index, unit in enumerate(arm.units))
        axes = tuple(
            AxisSpec(joint, StateNumber(0), ActionNumber(0), travel=travel)
            for joint, travel in zip(arm.joints, arm.stops_rad)
        )
        self.units = Units.of(axes, units, arm)

    def shown(self, q: FloatArray) -> dict[str, float]:
        """Positions (J,), rad or m, by LeRobot's names and in its units."""
        return dict(zip(self.names, self.units.from_arm(q).tolist()))

    def read(self, action: Mapping[str, Any]) -> FloatArray:
        """Inverse of `shown`. Raises `ValueError` unless every axis has one finite number and nothing else is there."""
        if set(action) != set(self.names):
            odd = one_line(", ".join(sorted(map(str, set(action) ^ set(self.names)))), 160)
            raise ValueError(f"an action has {', '.join(self.names)}, each once; not so: {odd}")
        try:
            values = np.array([float(action[name]) for name in self.names])
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"an action is one number per joint: {one_line(str(error), 160)}") from None
        if not np.isfinite(values).all():
            raise ValueError(f"{self.names[int(np.argmin(np.isfinite(values)))]} is not finite")
        return self.units.to_arm(values)


ROBOTS = {"so101": "so_follower", "bi_so101": "bi_so_follower"}
"""LeRobot's own names of arms, by our profiles: in its datasets, and of the folders of its calibrations."""


def with_calibration(url: str, calibration: Path, arm: ArmProfile) -> str:
    """The URL of a servo bus with the calibration that LeRobot has made of that arm, unless it names one or there is
    none. Of an arm that is made of others it makes one of each, `ID_SIDE`, in the folder of those."""
    drive = drive_url(url)
    files = [calibration]
    if arm.parts:
        single = calibration.parent.parent / ROBOTS.get(arm.parts[0][1].name, "") / calibration.name
        files = [single.with_stem(f"{single.stem}_{side}") for side, _ in arm.parts]
    if not isinstance(drive, FeetechUrl) or drive.calibration is not None or not all(map(Path.is_file, files)):
        return url
    return f"{url}{'&' if '?' in url else '?'}calibration={BETWEEN.join(map(str, files))}"
