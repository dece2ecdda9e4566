"""Arms on a simulated CAN bus: frames take their time on it, and some of them are lost."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass

from firmware_bridge.bus_load import classic_bits
from firmware_bridge.transports.can_stream import CLASSIC_SIZE, CanFrame

STEP_S = 0.0005
STEP_NS = 500_000
LONGEST_JUMP_NS = 20_000_000
ANSWER_NS = 40_000
"""From the end of a command to the answer asking for the bus (ours)."""
MOST_WAITING = 256


@dataclass(frozen=True)
class BusFaults:
    """Shares of the frames, of either direction, that get lost, by a seed."""

    lost: float = 0.0
    seed: int = 0


class SimulatedArm(ABC):
    """An arm behind a bus of 1 Mbit/s or `bitrate`; `own` are the ids that it speaks by."""

    def __init__(self, own: frozenset[int], faults: BusFaults, now_ns: int, bitrate: int) -> None:
        self.own = own
        self.faults = faults
        self.frames = self.lost = 0
        self.is_propped = False
        """Whether something holds the arm up while every motor is off; else it sinks until its stops."""
        self._random = random.Random(faults.seed)
        self._frame_ns = round(1e9 * classic_bits(CLASSIC_SIZE) / bitrate)
        self._now_ns = self._free_ns = now_ns
        self._coming: deque[tuple[int, CanFrame]] = deque(maxlen=MOST_WAITING)

    @property
    @abstractmethod
    def joints_rad(self) -> list[float]:
        """Where the joints are, not what the arm tells."""

    @property
    @abstractmethod
    def is_on(self) -> bool:
        """Whether every motor is on."""

    def receive(self, frame: CanFrame, now_ns: int) -> None:
        """A frame that asks for the bus at `now_ns`."""
        self.advance(now_ns)
        self._free_ns = max(self._free_ns, now_ns) + self._frame_ns
        if not self._is_lost():
            for answer in self._answers(frame):
                self._send(answer, now_ns + ANSWER_NS)

    def arrived(self, now_ns: int) -> list[CanFrame]:
        """What the arm has sent until now."""
        self.advance(now_ns)
        arrived = []
        while self._coming and self._coming[0][0] <= now_ns:
            arrived.append(self._coming.popleft()[1])
        return arrived

    def advance(self, now_ns: int) -> None:
        """Moves the arm up to `now_ns`; of a time longer than 20 ms, in which this process was held up, the end."""
        self._now_ns = max(self._now_ns, now_ns - LONGEST_JUMP_NS)
        while self._now_ns + STEP_NS <= now_ns:
            self._now_ns += STEP_NS
            self._step(self._now_ns)

    def _send(self, frame: CanFrame, asks_ns: int) -> None:
        self._free_ns = max(self._free_ns, asks_ns) + self._frame_ns
        if not self._is_lost():
            self._coming.append((self._free_ns, frame))

    def _is_lost(self) -> bool:
        self.frames += 1
        lost = self._random.random() < self.faults.lost
        self.lost += lost
        return lost

    @abstractmethod
    def _answers(self, frame: CanFrame) -> list[CanFrame]:
        """What the arm says to a frame."""

    @abstractmethod
    def _step(self, now_ns: int) -> None:
        """`STEP_S` of the arm's life."""
