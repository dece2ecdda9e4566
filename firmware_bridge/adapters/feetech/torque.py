"""Switching the torque of all servos on and off, over a line that loses packets: decided by what is read back alone.

A servo whose torque comes on goes to whatever goal it holds. So the goals are written and read back first, and must be
where the servos are; a goal that was lost on the way would otherwise become a jump.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from firmware_bridge.adapters.feetech import packets
from firmware_bridge.adapters.feetech import registers as reg

TORQUE_AT = reg.TORQUE_ENABLE.address
TORQUE_SIZE = reg.GOAL_POSITION.address + reg.GOAL_POSITION.size - TORQUE_AT
NEAR_COUNTS = 50
"""4.4 degrees: a goal this near is no jump (ours; half of what the core lets a joint lag behind)."""
LONGEST_SWITCH_S = 0.25
"""Ours: fifty cycles, of which a sound line needs three."""


@dataclass(frozen=True)
class TorqueState:
    """What a servo told of its torque, in registers that begin at 40."""

    is_on: bool
    acceleration: int
    goal: int

    @staticmethod
    def unpack(data: bytes) -> TorqueState:
        return TorqueState(
            is_on=reg.within(TORQUE_AT, reg.TORQUE_ENABLE, data) != 0,
            acceleration=reg.within(TORQUE_AT, reg.ACCELERATION, data),
            goal=reg.within(TORQUE_AT, reg.GOAL_POSITION, data),
        )


class TorqueSwitch:
    """Of the servos in `names`. What was read comes in, what is to be sent comes out; it reads no clock and no line."""

    def __init__(self, names: Mapping[int, str], acceleration: int, now_ns: int) -> None:
        self.wanted = False
        self._names = dict(names)
        self._acceleration = acceleration
        self._reported: dict[int, TorqueState] = {}
        self._fresh: set[int] = set()
        self._since_ns = now_ns
        self._begun = self._came_on = False

    def want(self, on: bool, now_ns: int) -> None:
        """From now on. What was read before a change tells nothing of what it led to."""
        if on == self.wanted:
            return
        self.wanted, self._since_ns = on, now_ns
        self._begun = self._came_on = False
        self._fresh.clear()
        if not on:
            self._reported.clear()

    def learn(self, servo: int, reported: TorqueState) -> None:
        """What a servo answered to a question that was asked after the last packet."""
        self._reported[servo] = reported
        self._fresh.add(servo)

    @property
    def is_on(self) -> bool:
        """Whether any servo holds, or may hold: one that has not told since it was to let go counts as holding."""
        return any(servo not in self._reported or self._reported[servo].is_on for servo in self._names)

    @property
    def settled(self) -> bool:
        """Whether every servo has told that it is as wanted."""
        return all(self._is_as_commanded(servo) for servo in self._names)

    def packet(self, positions: Mapping[int, int]) -> bytes:
        """What to send now to servos at `positions` (counts), behind their goals; nothing where nothing is due."""
        if self.settled:
            self._came_on = self.wanted
        if self.settled or self._came_on:
            return b""  # a servo that has let go by itself is a fault, and not switched on again
        if self.wanted and not self._begun:
            self._begun = all(self._goal_is_near(servo, positions) for servo in self._names)
            if not self._begun:
                return b""
        value = reg.TORQUE_ENABLE.pack(int(self.wanted))
        behind = [servo for servo in self._names if not self._is_as_commanded(servo)]
        return packets.sync_write(TORQUE_AT, dict.fromkeys(behind, value))

    def fault(self, now_ns: int) -> str:
        """What is wrong with the torque, in words; empty where nothing is."""
        late = now_ns - self._since_ns > LONGEST_SWITCH_S * 1e9
        for servo, name in self._names.items():
            reported = self._reported.get(servo)
            if self._came_on and reported is not None and not reported.is_on:
                return f"{name} has let go by itself; see its supply, its temperature and what blocks it"
            if self._came_on and reported is not None and reported.acceleration != self._acceleration:
                return f"{name} has started anew; check its supply"
            if late and not self._came_on and not self._is_as_commanded(servo):
                return f"{name} does not {'come on' if self.wanted else 'let go'}; check the cables"
        return ""

    def _is_as_commanded(self, servo: int) -> bool:
        return servo in self._fresh and self._reported[servo].is_on == self.wanted

    def _goal_is_near(self, servo: int, positions: Mapping[int, int]) -> bool:
        return servo in self._fresh and abs(self._reported[servo].goal - positions[servo]) <= NEAR_COUNTS
