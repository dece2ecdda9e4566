"""What a Piper says and understands on CAN, as bytes of classic frames.

The arm's controller speaks for all its motors: it reports by itself, 200 times a second, and takes targets for whole
pairs of joints. All numbers are big-endian. Angles are thousandths of a degree, the gripper's width is in micrometres.

Sources: AgileX's tables of the protocol, as they stand in piper_sdk 0.6.2 (`piper_msgs/msg_v2`), and its list of
questions: "the normal frame rate is around 3040", which is 200 Hz of 14 frames and 40 Hz of 6.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag

JOINTS = 6
FAST_HZ, SLOW_HZ = 200, 40
"""Of reports: state, pose of the tool, joints, gripper and each motor's speed; each motor's health."""
STOP, MODE = 0x150, 0x151
TARGETS = (0x155, 0x156, 0x157)
"""Of joints 1 and 2, 3 and 4, 5 and 6; likewise `POSITIONS`."""
GRIPPER = 0x159
COMMANDS = range(0x150, 0x160)
ENABLE, ASK_LIMITS, LIMITS, CONFIGURE, ANSWER, MOST_ACCELERATION = 0x471, 0x472, 0x473, 0x475, 0x476, 0x47C
FIRMWARE = 0x4AF
STATUS, POSES, POSITIONS, WIDTH = 0x2A1, (0x2A2, 0x2A3, 0x2A4), (0x2A5, 0x2A6, 0x2A7), 0x2A8
SPEEDS, HEALTHS = tuple(range(0x251, 0x257)), tuple(range(0x261, 0x267))
LEADER_STATUS = (0x2B1, 0x2C1)
"""An arm that was set up to lead another one reports by these, and takes no commands."""
COUNTS_PER_RAD = 180_000 / math.pi
COUNTS_PER_M = 1_000_000
YES = 0xAE
ALL_JOINTS = 7
ASK_FIRMWARE = b"\x01" + bytes(7)
RESUME = b"\x02" + bytes(7)
CLEAR_ERRORS = struct.pack(">BBBHBH", ALL_JOINTS, 0, 0, 0x7FFF, YES, 0)
"""The acceleration of 0x7FFF means: as it is."""
MOST_EFFORT_NM = 5.0
NEWER_SPEEDS = (1, 5, 8)
"""From this firmware on a motor's most speed is in hundredths of rad/s, before in thousandths."""
LARGEST_ACCELERATION = 5.0
"""The most that can be set. The maker's tables say hundredths where it is set and thousandths where it is reported."""


class Control(IntEnum):
    """Who commands the arm."""

    STANDBY = 0
    CAN = 1
    TEACHING = 2
    ETHERNET = 3
    WIFI = 4
    REMOTE = 5
    LEADING = 6
    OFFLINE = 7


class ArmState(IntEnum):
    """What the arm's controller says of the whole arm."""

    NORMAL = 0
    EMERGENCY_STOP = 1
    NO_SOLUTION = 2
    SINGULARITY = 3
    TARGET_BEYOND_LIMIT = 4
    JOINT_COMMUNICATION = 5
    BRAKE_NOT_RELEASED = 6
    COLLISION = 7
    TOO_FAST_WHEN_DRAGGED = 8
    JOINT_STATUS = 9
    OTHER = 10
    TEACHING_RECORD = 11
    TEACHING_EXECUTION = 12
    TEACHING_PAUSE = 13
    CONTROLLER_TOO_HOT = 14
    RESISTOR_TOO_HOT = 15


class Health(IntFlag):
    """A motor's or the gripper's flags; bits 4 and 7 of the gripper mean `SENSOR` and `HAS_ZERO` instead."""

    VOLTAGE_TOO_LOW = 1
    MOTOR_TOO_HOT = 2
    OVERCURRENT = 4
    DRIVER_TOO_HOT = 8
    COLLISION = 16
    DRIVER_ERROR = 32
    ENABLED = 64
    STALL = 128


SENSOR, HAS_ZERO = Health.COLLISION, Health.STALL
GRIPPER_FAULTS = Health(0xFF) & ~(Health.ENABLED | HAS_ZERO)
MOTOR_FAULTS = Health(0xFF) & ~Health.ENABLED


def words(flags: Health, gripper: bool = False) -> str:
    """The faults among flags, in words."""
    names = [one.name or "" for one in Health if one & flags & (GRIPPER_FAULTS if gripper else MOTOR_FAULTS)]
    told = ", ".join(name.lower().replace("_", " ") for name in names)
    return told.replace("collision", "sensor") if gripper else told


@dataclass(frozen=True)
class Status:
    """The report about the whole arm. `beyond` and `silent` have a bit for each joint, the first lowest."""

    control: int
    state: int
    move: int = 1
    teaching: int = 0
    motion: int = 0
    beyond: int = 0
    silent: int = 0

    def pack(self) -> bytes:
        return bytes((self.control, self.state, self.move, self.teaching, self.motion, 0, self.beyond, self.silent))

    @staticmethod
    def unpack(data: bytes) -> Status:
        return Status(data[0], data[1], data[2], data[3], data[4], data[6], data[7])


@dataclass(frozen=True)
class Gripper:
    """The report about the gripper."""

    width_m: float
    effort_nm: float
    flags: Health

    def pack(self) -> bytes:
        return struct.pack(">ihBx", round(self.width_m * COUNTS_PER_M), round(self.effort_nm * 1000), self.flags)

    @staticmethod
    def unpack(data: bytes) -> Gripper:
        width, effort, flags = struct.unpack(">ihBx", data)
        return Gripper(width / COUNTS_PER_M, effort / 1000, Health(flags))


@dataclass(frozen=True)
class MotorHealth:
    """The report about one motor's driver."""

    voltage_v: float
    driver_c: int
    motor_c: int
    flags: Health
    current_a: float = 0.0

    def pack(self) -> bytes:
        volts, amps = round(10 * self.voltage_v), round(1000 * self.current_a)
        return struct.pack(">HhbBH", volts, self.driver_c, self.motor_c, self.flags, amps)

    @staticmethod
    def unpack(data: bytes) -> MotorHealth:
        volts, driver_c, motor_c, flags, amps = struct.unpack(">HhbBH", data)
        return MotorHealth(volts / 10, driver_c, motor_c, Health(flags), amps / 1000)


@dataclass(frozen=True)
class MotorLimits:
    """What one joint's motor is set to keep. Speeds are in the unit of the arm's firmware."""

    motor: int
    high_rad: float
    low_rad: float
    speed: int

    def pack(self) -> bytes:
        high, low = (round(math.degrees(end) * 10) for end in (self.high_rad, self.low_rad))
        return struct.pack(">BhhHx", self.motor, high, low, self.speed)

    @staticmethod
    def unpack(data: bytes) -> MotorLimits:
        motor, high, low, speed = struct.unpack(">BhhHx", data)
        return MotorLimits(motor, math.radians(high / 10), math.radians(low / 10), speed)

    def speed_rad_s(self, firmware: tuple[int, int, int]) -> float:
        """The most that the joint does."""
        return self.speed / (100 if firmware >= NEWER_SPEEDS else 1000)


def pack_pair(first_rad: float, second_rad: float) -> bytes:
    """Targets or positions of two joints. Raises `ValueError` or `OverflowError` for what is no number."""
    return struct.pack(">ii", round(first_rad * COUNTS_PER_RAD), round(second_rad * COUNTS_PER_RAD))


def unpack_pair(data: bytes) -> tuple[float, float]:
    first, second = struct.unpack(">ii", data)
    return first / COUNTS_PER_RAD, second / COUNTS_PER_RAD


def pack_speed(speed_rad_s: float, current_a: float, position_rad: float) -> bytes:
    """A motor's report about its speed."""
    return struct.pack(">hhi", round(1000 * speed_rad_s), round(1000 * current_a), round(position_rad * 1000))


def joint_mode(speed_percent: int) -> bytes:
    """CAN commands joint targets, which the motors go to by position and speed. The arm takes none without it."""
    return bytes((Control.CAN, 1, speed_percent, 0, 0, 0, 0, 0))


def gripper_command(width_m: float, effort_nm: float, enable: bool, clear: bool = False) -> bytes:
    """A width, the most torque, and whether the gripper's motor is on; `clear` clears its error."""
    return struct.pack(">iHBB", round(width_m * COUNTS_PER_M), round(effort_nm * 1000), int(enable) + 2 * clear, 0)


def enable_motor(motor: int, on: bool) -> bytes:
    """One joint's motor on or off."""
    return bytes((motor, 2 if on else 1)) + bytes(6)


def ask_limits(motor: int, acceleration: bool = False) -> bytes:
    """The question for `LIMITS`, or for `MOST_ACCELERATION`."""
    return bytes((motor, 2 if acceleration else 1)) + bytes(6)


def acceleration_rad_s2(data: bytes) -> tuple[int, float]:
    """Motor and most acceleration of a `MOST_ACCELERATION`."""
    motor, value = struct.unpack_from(">BH", data)
    return motor, value / 100 if value <= 100 * LARGEST_ACCELERATION else value / 1000


def firmware_version(text: bytes) -> tuple[int, int, int] | None:
    """1.8-2 of what the arm tells as "S-V1.8-2"; None where it tells none."""
    at = text.find(b"S-V")
    parts = text[at + 3 : at + 8].replace(b"-", b".").split(b".")
    if at < 0 or len(parts) != 3 or not all(part.isdigit() for part in parts):
        return None
    return int(parts[0]), int(parts[1]), int(parts[2])
