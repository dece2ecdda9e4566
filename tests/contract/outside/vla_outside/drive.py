"""`still:NAME`: an arm with a protocol of its own, which is wherever it is sent."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from edge.arms import ArmProfile
from edge.arms.drives import DriveUrl, Notify
from firmware_bridge.adapters import ArmDrive, Measurement


@dataclass(frozen=True)
class StillArm(DriveUrl):
    FORM: ClassVar[str] = "still:NAME"
    bridged_periods: ClassVar[int] = 20

    def open(self, arm: ArmProfile, notify: Notify) -> ArmDrive:
        return StillDrive(arm.home_rad)


class StillDrive:
    def __init__(self, position_rad: tuple[float, ...]) -> None:
        self.position_rad, self._on = position_rad, False

    def measure(self) -> Measurement:
        time.sleep(0.001)
        return Measurement(self.position_rad, True, self._on, 1)

    def command(self, set_point_rad: Sequence[float], velocity_rad_s: Sequence[float], enable: bool) -> None:
        self._on = enable
        if enable:
            self.position_rad = tuple(set_point_rad)

    def clear(self) -> None:
        pass

    def statistics(self) -> dict[str, float]:
        return {}

    def close(self) -> None:
        pass
