"""What Damiao motors say and understand on CAN, as bytes of classic frames.

A motor listens at its own id (ESC_ID) and at 0x7FF, and answers every frame for it with one of its feedback id
(MST_ID). In MIT mode its torque is kp (q - q_now) + kd (dq - dq_now) + torque. Positions, velocities and torques are
whole numbers across ranges that stand in each motor's registers and differ between motors, and between the drivers that
assume them.

Sources: Damiao's manuals of DM-J4310 and DM-J4340 (MIT mode, feedback frame, register table).
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from enum import IntEnum

REGISTERS = 0x7FF
"""The id at which all motors listen for questions about registers."""
READ, WRITE, REFRESH = 0x33, 0x55, 0xCC
ENABLE, DISABLE, ZERO, CLEAR_ERROR = (b"\xff" * 7 + bytes([last]) for last in (0xFC, 0xFD, 0xFE, 0xFB))
MOST_KP, MOST_KD = 500.0, 5.0
MIT_MODE = 1
TIMEOUT_UNIT_S = 50e-6


class Register(IntEnum):
    """Numbers of the registers that are used here; `WHOLE` hold whole numbers, the others floats."""

    MST_ID = 7
    ESC_ID = 8
    TIMEOUT = 9
    CTRL_MODE = 10
    SW_VER = 14
    PMAX = 21
    VMAX = 22
    TMAX = 23


WHOLE = frozenset({Register.MST_ID, Register.ESC_ID, Register.TIMEOUT, Register.CTRL_MODE, Register.SW_VER})


class MotorState(IntEnum):
    """What a motor tells of itself in every feedback frame; from 8 on, why it has let go."""

    DISABLED = 0
    ENABLED = 1
    OVERVOLTAGE = 8
    UNDERVOLTAGE = 9
    OVERCURRENT = 10
    DRIVER_TOO_HOT = 11
    MOTOR_TOO_HOT = 12
    COMMUNICATION_LOST = 13
    OVERLOAD = 14


@dataclass(frozen=True)
class Ranges:
    """The ends of a motor's scales: rad, rad/s, N m, each from minus to plus."""

    position_rad: float
    velocity_rad_s: float
    torque_nm: float

    @property
    def is_plausible(self) -> bool:
        """Whether any motor can have them: a register that was never written, or damaged, holds anything."""
        return all(math.isfinite(value) and 0.1 < value < 1000.0 for value in (*self.__dict__.values(),))


@dataclass(frozen=True)
class Feedback:
    """One feedback frame. `motor` is the low half of its first byte, the low four bits of the motor's id."""

    motor: int
    state: int
    position_rad: float
    velocity_rad_s: float
    torque_nm: float
    driver_c: int
    motor_c: int

    def pack(self, ranges: Ranges) -> bytes:
        q = to_whole(self.position_rad, ranges.position_rad, 16)
        dq = to_whole(self.velocity_rad_s, ranges.velocity_rad_s, 12)
        torque = to_whole(self.torque_nm, ranges.torque_nm, 12)
        word = q << 24 | dq << 12 | torque
        return bytes([self.state << 4 | self.motor]) + word.to_bytes(5, "big") + bytes([self.driver_c, self.motor_c])

    @staticmethod
    def unpack(data: bytes, ranges: Ranges) -> Feedback:
        word = int.from_bytes(data[1:6], "big")
        return Feedback(
            data[0] & 0xF,
            data[0] >> 4,
            from_whole(word >> 24, ranges.position_rad, 16),
            from_whole(word >> 12 & 0xFFF, ranges.velocity_rad_s, 12),
            from_whole(word & 0xFFF, ranges.torque_nm, 12),
            data[6],
            data[7],
        )


@dataclass(frozen=True)
class MitCommand:
    """What a motor in MIT mode is told."""

    position_rad: float
    velocity_rad_s: float
    kp: float
    kd: float
    torque_nm: float

    def pack(self, ranges: Ranges) -> bytes:
        word = to_whole(self.position_rad, ranges.position_rad, 16) << 48
        word |= to_whole(self.velocity_rad_s, ranges.velocity_rad_s, 12) << 36
        word |= to_whole(self.kp - MOST_KP / 2, MOST_KP / 2, 12) << 24
        word |= to_whole(self.kd - MOST_KD / 2, MOST_KD / 2, 12) << 12
        word |= to_whole(self.torque_nm, ranges.torque_nm, 12)
        return word.to_bytes(8, "big")

    @staticmethod
    def unpack(data: bytes, ranges: Ranges) -> MitCommand:
        word = int.from_bytes(data, "big")
        return MitCommand(
            from_whole(word >> 48, ranges.position_rad, 16),
            from_whole(word >> 36 & 0xFFF, ranges.velocity_rad_s, 12),
            from_whole(word >> 24 & 0xFFF, MOST_KP / 2, 12) + MOST_KP / 2,
            from_whole(word >> 12 & 0xFFF, MOST_KD / 2, 12) + MOST_KD / 2,
            from_whole(word & 0xFFF, ranges.torque_nm, 12),
        )


def to_whole(value: float, end: float, bits: int) -> int:
    """The whole number nearest to a value on a scale from -end to end, which is cut where it ends. Raises for NaN."""
    most = (1 << bits) - 1
    return min(max(round((value + end) * most / (2 * end)), 0), most)


def from_whole(whole: int, end: float, bits: int) -> float:
    """The value that a whole number stands for."""
    return whole * 2 * end / ((1 << bits) - 1) - end


def read_register(motor: int, register: int) -> bytes:
    """The question for a register, to be sent at `REGISTERS`."""
    return struct.pack("<HBB4x", motor, READ, register)


def write_register(motor: int, register: int, value: float) -> bytes:
    """Sets a register until the motor loses power; the answer repeats it."""
    form = "<HBBI" if register in WHOLE else "<HBBf"
    return struct.pack(form, motor, WRITE, register, int(value) if register in WHOLE else value)


def refresh(motor: int) -> bytes:
    """Asks for a feedback frame, and for nothing else, to be sent at `REGISTERS`."""
    return struct.pack("<HB5x", motor, REFRESH)


def register_answer(data: bytes) -> tuple[int, int, float] | None:
    """Motor, register and value of an answer about a register; None for any other frame."""
    if len(data) != 8 or data[1] > 0x07 or data[2] not in (READ, WRITE):
        return None
    motor, _, register = struct.unpack_from("<HBB", data)
    value = struct.unpack_from("<I" if register in WHOLE else "<f", data, 4)[0]
    return motor, register, value
