"""How often the bus can be queried: bytes of a cycle, the servos' delays and the USB adapter, added up.

One cycle reads every servo's position, writes every goal, and asks one servo after the other for all else that it has
to tell. The line is half duplex, so everything follows one after the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from firmware_bridge.adapters.feetech.packets import OVERHEAD
from firmware_bridge.bus_load import BITS_PER_BYTE

BAUD = 1_000_000
WANTED_HZ = 200
RETURN_DELAY_S = 100e-6
"""Before a servo answers. Register 7 is set to 0, which LeRobot's driver takes for 2 us; a table of the vendor's says
that less than 100 us is not to be had. The worse of the two."""
USB_S = 1e-3
"""A question and its answer through a full-speed USB adapter wait for one frame of 1 ms (ours; an FTDI chip with its
latency timer at 16 ms takes 16)."""
POSITION_BYTES = 2
GOAL_BYTES = 2
HEALTH_BYTES = 31
"""Registers 40 to 70 of one servo: torque, acceleration, goal, load, voltage, temperature, current."""
FULLEST = 0.9
"""Of a cycle's time. Nothing is sent again within a cycle, and one that comes late is bridged (ours)."""


@dataclass(frozen=True)
class BusCycle:
    """What one cycle takes, in seconds, part by part."""

    read_positions_s: float
    write_goals_s: float
    query_more_s: float
    usb_s: float

    @property
    def total_s(self) -> float:
        return self.read_positions_s + self.write_goals_s + self.query_more_s + self.usb_s

    @property
    def limit_hz(self) -> float:
        """The most that fits, with nothing to spare."""
        return 1 / self.total_s

    @property
    def period_ms(self) -> int:
        """The core's periods in one cycle: those of `WANTED_HZ`, or more where the bus would be too full."""
        return max(1000 // WANTED_HZ, math.ceil(1000 * self.total_s / FULLEST))

    def __str__(self) -> str:
        parts = {
            "positions": self.read_positions_s,
            "goals": self.write_goals_s,
            "one more question": self.query_more_s,
            "USB": self.usb_s,
        }
        text = " + ".join(f"{name} {1000 * seconds:.2f}" for name, seconds in parts.items())
        return f"{text} = {1000 * self.total_s:.2f} ms"


def question_s(servos: int, size: int, baud: int = BAUD, delay_s: float = RETURN_DELAY_S) -> float:
    """Seconds on the line of a sync read of `size` bytes from each of `servos` servos, answers included."""
    request = OVERHEAD + 2 + servos
    return (request + servos * (OVERHEAD + size)) * BITS_PER_BYTE / baud + servos * delay_s


def bus_cycle(servos: int, baud: int = BAUD, delay_s: float = RETURN_DELAY_S, usb_s: float = USB_S) -> BusCycle:
    """The arithmetic for `servos` servos: two questions wait for USB, the goals travel with the second one."""
    byte_s = BITS_PER_BYTE / baud
    goals = OVERHEAD + 2 + servos * (1 + GOAL_BYTES)
    more = (OVERHEAD + 2 + OVERHEAD + HEALTH_BYTES) * byte_s + delay_s
    return BusCycle(question_s(servos, POSITION_BYTES, baud, delay_s), goals * byte_s, more, 2 * usb_s)
