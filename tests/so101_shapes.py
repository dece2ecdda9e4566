"""Eleven jaws as people calibrate them, made from the kinds that public calibrations show.

Travel of 119 to 140 degrees, closed at the low or at the high end of the counts, anywhere in the turn, with homing
offsets of either sign. One is a file that somebody has published (matrix97317/UniRobot, `so_arm101_calib.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from firmware_bridge.adapters.feetech.calibration import Calibration, ServoCalibration
from firmware_bridge.adapters.feetech.registers import COUNTS
from tests.servo_bench import SO101

GRIPPER = 6
PUBLISHED = (
    (1, -1365, 746, 3477),
    (1, -1200, 822, 3211),
    (1, -986, 901, 3110),
    (1, -1696, 849, 3216),
    (1, -375, 135, 3984),
)
"""The other joints of that file: direction, homing offset, range."""


@dataclass(frozen=True)
class JawShape:
    """Where a jaw's servo tells that it is closed and open, in counts, and the offset that it holds."""

    closed: int
    opened: int
    offset: int

    @property
    def travel_degrees(self) -> float:
        return 360 * abs(self.opened - self.closed) / COUNTS

    def calibration(self) -> Calibration:
        """The published arm with this jaw."""
        low, high = sorted((self.closed, self.opened))
        jaw = (1 if self.closed < self.opened else -1, self.offset, low, high)
        rows = zip(SO101.joints, range(1, 7), (*PUBLISHED, jaw))
        return Calibration("so101", tuple(ServoCalibration(joint, servo, *row) for joint, servo, row in rows))

    def __str__(self) -> str:
        return f"{self.travel_degrees:.0f} degrees, closed at {self.closed}, offset {self.offset}"


def _counts(degrees: float) -> int:
    return math.ceil(degrees / 360 * COUNTS)


SHAPES = (
    JawShape(1975, 3565, 1871),  # the published one
    JawShape(2040, 2040 + _counts(119), 1181),
    JawShape(1650, 1650 + _counts(121), -1696),
    JawShape(3300, 3300 - _counts(123), -375),
    JawShape(10, 10 + _counts(125), 2047),
    JawShape(4085, 4085 - _counts(127), -2047),
    JawShape(2048, 2048 + _counts(129), 0),
    JawShape(900, 900 + _counts(132), -986),
    JawShape(2700, 2700 - _counts(134), 1989),
    JawShape(1300, 1300 + _counts(137), 640),
    JawShape(2400, 2400 - _counts(140), -1200),
)
