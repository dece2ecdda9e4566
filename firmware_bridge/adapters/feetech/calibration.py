"""Where a servo's counts are in radians: the calibration file, LeRobot's as well, and the scale it gives."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from firmware_bridge.adapters.base import DriveError
from firmware_bridge.adapters.feetech.registers import COUNTS, HOMING_OFFSET, RAD_PER_COUNT
from firmware_bridge.reading import Between, Reader, shown

FORMAT = 1
MADE_WITH = "edge-calibrate --arm so101 --drive feetech:PORT -o FILE"
MOST_OFFSET = (1 << (HOMING_OFFSET.sign_bit or 0)) - 1
MOST_FILE = 64 << 10
LEAST_JAW_RAD = math.radians(60)
"""Ours: half of the 119 to 140 degrees that jaws of real arms travel, and of the 110 of a leader's handle."""
CALIBRATION = Reader(DriveError, f"make one with {MADE_WITH}")
FIELDS = ("id", "direction", "homing_offset", "range_min", "range_max")


@dataclass(frozen=True)
class ServoCalibration:
    """One joint. The servo tells `position = encoder - homing_offset`; all in counts.

    `direction` is -1 where counts grow against the joint's positive sense. The range is what was swept by hand.
    """

    joint: str
    servo: int
    direction: int
    homing_offset: int
    range_min: int
    range_max: int


@dataclass(frozen=True)
class Calibration:
    """All joints of an arm, in the profile's order."""

    arm: str
    servos: tuple[ServoCalibration, ...]

    def write(self, path: Path) -> None:
        """As JSON, whole or not at all. Raises `DriveError`."""
        joints = {
            one.joint: dict(zip(FIELDS, (one.servo, one.direction, one.homing_offset, one.range_min, one.range_max)))
            for one in self.servos
        }
        scratch = path.with_name(path.name + ".new")
        try:
            scratch.write_text(json.dumps({"format": FORMAT, "arm": self.arm, "joints": joints}, indent=1) + "\n")
            scratch.replace(path)
        except OSError as error:
            raise DriveError(f"{path}: cannot be written ({error.strerror}); name another file") from None


def read_calibration(path: Path, arm: str, joints: Sequence[str]) -> Calibration:
    """Reads our file, or LeRobot's: `{joint: {id, drive_mode, homing_offset, range_min, range_max}}`.

    Raises `DriveError`.
    """
    if not path.exists():
        raise CALIBRATION.refuse(path, "there is no calibration")
    document = CALIBRATION.json(path, MOST_FILE)
    if not isinstance(document, dict):
        raise CALIBRATION.refuse(path, f"is {shown(document)}, not a calibration")
    if "format" in document:
        if document["format"] != FORMAT or document.get("arm") != arm:
            told = f"format {shown(document['format'])} for arm {shown(document.get('arm'))}"
            raise CALIBRATION.refuse(path, f"is of {told}, not of {FORMAT} for '{arm}'")
        document = document.get("joints")
    if not isinstance(document, dict) or sorted(document) != sorted(joints):
        raise CALIBRATION.refuse(path, f"does not have the joints {', '.join(joints)}")
    servos = tuple(_servo(path, joint, document[joint]) for joint in joints)
    if len({one.servo for one in servos}) != len(servos):
        raise CALIBRATION.refuse(path, "two joints have the same servo id")
    return Calibration(arm, servos)


@dataclass(frozen=True)
class _Entry:
    """A joint in a file; the direction is ours, the drive's mode is LeRobot's name for it."""

    id: Annotated[int, Between(0, 0xFC)]
    homing_offset: Annotated[int, Between(-MOST_OFFSET, MOST_OFFSET)]
    range_min: Annotated[int, Between(0, COUNTS - 2)]
    range_max: Annotated[int, Between(1, COUNTS - 1)]
    direction: Literal[1, -1] | None = None
    drive_mode: Literal[0, 1] | None = None

    def __post_init__(self) -> None:
        if not self.range_min < self.range_max:
            raise ValueError(f"range_min {self.range_min} must be below range_max {self.range_max}")
        if self.direction is None and self.drive_mode is None:
            raise ValueError("direction is missing")


def _servo(path: Path, joint: str, plain: Any) -> ServoCalibration:
    entry = CALIBRATION.into(_Entry, plain, path, joint, extra=True)
    direction = entry.direction or (-1 if entry.drive_mode else 1)
    return ServoCalibration(joint, entry.id, direction, entry.homing_offset, entry.range_min, entry.range_max)


@dataclass(frozen=True)
class Scale:
    """Counts and radians of one joint: the middle of the swept range is the middle of the profile's travel.

    A jaw is scaled as well: however far it opens, its two stops are those of the profile, so that closed is closed and
    half open is half open on every arm, as in LeRobot's percent. Other joints keep the servo's own angle.
    """

    servo: int
    direction: int
    count_min: int
    count_max: int
    middle_rad: float
    rad_per_count: float = RAD_PER_COUNT

    @property
    def middle_count(self) -> float:
        return (self.count_min + self.count_max) / 2

    @property
    def swept_rad(self) -> tuple[float, float]:
        """Where the two ends of the sweep are, the lower one first."""
        half = self.rad_per_count * (self.count_max - self.count_min) / 2
        return self.middle_rad - half, self.middle_rad + half

    def rad(self, count: float) -> float:
        """Where the joint is when the servo tells `count`."""
        return self.middle_rad + self.direction * self.rad_per_count * (count - self.middle_count)

    def unwrapped(self, told: int) -> int:
        """What a servo tells, counted on from the middle of the sweep: a joint that rests a little beyond an end which
        lies near 0 or 4095 is told as at the other end of the turn."""
        away = (told - self.middle_count + COUNTS / 2) % COUNTS - COUNTS / 2
        return round(self.middle_count + away)

    def count(self, q_rad: float) -> int:
        """The count of a position, not limited. Raises `ValueError` where it is not finite."""
        if not math.isfinite(q_rad):
            raise ValueError("a position is not finite")
        return round(self.middle_count + self.direction * (q_rad - self.middle_rad) / self.rad_per_count)


@dataclass(frozen=True)
class JointSpan:
    """What the arm's profile says of a joint: where its stops are, where it is to be operated, where its home is. Of a
    jaw, the lower stop is where it is closed."""

    name: str
    stops_rad: tuple[float, float]
    operating_rad: tuple[float, float]
    home_rad: float
    jaw: bool = False


def scales(calibration: Calibration, spans: Sequence[JointSpan]) -> tuple[Scale, ...]:
    """The scale of every joint. Raises `DriveError` where the swept range is too short to be one from stop to stop."""
    found = []
    for one, span in zip(calibration.servos, spans):
        low, high = span.stops_rad
        swept = one.range_max - one.range_min
        if span.jaw and swept * RAD_PER_COUNT < LEAST_JAW_RAD:
            raise _too_short(one, f"a jaw opens by {math.degrees(LEAST_JAW_RAD):.0f} at least")
        per_count = (high - low) / swept if span.jaw else RAD_PER_COUNT
        scale = Scale(one.servo, one.direction, one.range_min, one.range_max, (low + high) / 2, per_count)
        least, most = scale.swept_rad
        if not least <= span.home_rad <= most:
            raise _too_short(one, f"its home is at {math.degrees(span.home_rad):.0f}, beyond the sweep")
        found.append(scale)
    return tuple(found)


def operating_range(scale: Scale, span: JointSpan) -> tuple[float, float]:
    """Where a joint may be operated: the profile's range, and no further than it was swept; a jaw's is its sweep."""
    if span.jaw:
        return span.operating_rad
    least, most = scale.swept_rad
    return max(least, span.operating_rad[0]), min(most, span.operating_rad[1])


def _too_short(one: ServoCalibration, why: str) -> DriveError:
    swept = math.degrees(RAD_PER_COUNT * (one.range_max - one.range_min))
    found = f"{one.joint} was swept over {swept:.0f} degrees, and {why}"
    return DriveError(f"{found}; sweep it from stop to stop: {MADE_WITH}")
