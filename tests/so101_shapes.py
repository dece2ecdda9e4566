"""Eleven jaws as people calibrate them, made from the kinds that public calibrations show.

Travel of 119 to 140 degrees, closed at the low or at the high end of the counts, anywhere in the turn, with homing
offsets of either sign. One is a file that somebody has published (matrix97317/UniRobot, `so_arm101_calib.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from firmware_bridge.adapters.feetech.calibration import Calibration
from firmware_bridge.adapters.feetech.registers import COUNTS
from tests.servo_bench import calibration

GRIPPER = 6


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
        """The usual calibration with this jaw."""
        *others, jaw = calibration().servos
        low, high = sorted((self.closed, self.opened))
        direction = 1 if self.closed < self.opened else -1
        jaw = replace(jaw, direction=direction, homing_offset=self.offset, range_min=low, range_max=high)
        return Calibration("so101", (*others, jaw))

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
