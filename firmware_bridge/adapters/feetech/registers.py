"""Registers of an STS3215, in counts and the servo's own units.

Addresses, sizes and sign bits: Feetech's STS/SMS memory table, as in LeRobot's `motors/feetech/tables.py`. Two bytes
are little endian; a negative number is its magnitude with the sign bit set.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntFlag

COUNTS = 4096
"""Per revolution of the shaft."""
RAD_PER_COUNT = 2 * math.pi / COUNTS
MODEL_NUMBER = 777
ACCELERATION_UNIT = 100
"""Register 41 counts in 100 counts/s^2 (8.79 degrees/s^2)."""
VOLTAGE_UNIT_V = 0.1
CURRENT_UNIT_A = 0.0065
LOAD_UNIT = 0.001
"""Share of the full duty."""
PROTECTION_TIME_UNIT_S = 0.01
STALL_NM = 2.94
"""30 kg cm at 12 V (Feetech)."""


@dataclass(frozen=True)
class Register:
    """Where a value stands. `sign_bit` is None for one that is never negative."""

    address: int
    size: int
    sign_bit: int | None = None

    def pack(self, value: int) -> bytes:
        """The value's bytes. Raises `ValueError` when it does not fit."""
        largest = (1 << (8 * self.size if self.sign_bit is None else self.sign_bit)) - 1
        if abs(value) > largest or (value < 0 and self.sign_bit is None):
            raise ValueError(f"register {self.address} does not take {value}")
        coded = value if value >= 0 or self.sign_bit is None else -value | (1 << self.sign_bit)
        return coded.to_bytes(self.size, "little")

    def unpack(self, data: bytes | bytearray) -> int:
        """The value in `size` bytes."""
        coded = int.from_bytes(data[: self.size], "little")
        if self.sign_bit is None or not coded >> self.sign_bit & 1:
            return coded
        return -(coded & ((1 << self.sign_bit) - 1))


MODEL = Register(3, 2)
ID = Register(5, 1)
RETURN_DELAY = Register(7, 1)
STATUS_LEVEL = Register(8, 1)
POSITION_MIN = Register(9, 2)
POSITION_MAX = Register(11, 2)
TEMPERATURE_MAX = Register(13, 1)
VOLTAGE_MAX = Register(14, 1)
VOLTAGE_MIN = Register(15, 1)
MAX_TORQUE = Register(16, 2)
"""In 0.1 % of the stall torque. Taken over into `TORQUE_LIMIT` when the supply comes on, and only then."""
PHASE = Register(18, 1)
UNLOADING = Register(19, 1)
"""Which of its own protections may take the torque away: bits of `Fault`."""
P_GAIN, D_GAIN, I_GAIN = Register(21, 1), Register(22, 1), Register(23, 1)
PROTECTION_CURRENT = Register(28, 2)
HOMING_OFFSET = Register(31, 2, sign_bit=11)
MODE = Register(33, 1)
PROTECTIVE_TORQUE = Register(34, 1)
PROTECTION_TIME = Register(35, 1)
OVERLOAD_TORQUE = Register(36, 1)
OVERCURRENT_TIME = Register(38, 1)
TORQUE_ENABLE = Register(40, 1)
ACCELERATION = Register(41, 1)
GOAL_POSITION = Register(42, 2, sign_bit=15)
GOAL_VELOCITY = Register(46, 2, sign_bit=15)
TORQUE_LIMIT = Register(48, 2)
LOCK = Register(55, 1)
PRESENT_POSITION = Register(56, 2, sign_bit=15)
PRESENT_VELOCITY = Register(58, 2, sign_bit=15)
PRESENT_LOAD = Register(60, 2, sign_bit=10)
PRESENT_VOLTAGE = Register(62, 1)
PRESENT_TEMPERATURE = Register(63, 1)
STATUS = Register(65, 1)
MOVING = Register(66, 1)
PRESENT_CURRENT = Register(69, 2, sign_bit=15)
POSITION_MODE = 0
WHOLE_ANGLE = 0x10
"""Bit of `PHASE`: positions are told over several turns, below 0 or above 4095, instead of within one."""
SAVED = 40
"""Registers below this one are kept without supply, if they were written while `LOCK` was 0."""


class Fault(IntFlag):
    """Bits of the error byte in every answer, of register 65, and of what register 19 enables."""

    VOLTAGE = 1
    ENCODER = 2
    TEMPERATURE = 4
    CURRENT = 8
    OVERLOAD = 32

    def describe(self) -> str:
        """The faults by name."""
        return " and ".join(str(fault.name).lower() for fault in Fault if fault in self)


def within(block: int, register: Register, data: bytes) -> int:
    """The value of `register` in `data`, which was read from address `block` on."""
    return register.unpack(data[register.address - block :])
