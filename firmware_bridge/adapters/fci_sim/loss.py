"""Which packets get lost on the line to a robot: drawn from a seed, singly and in bursts, in either direction."""

from __future__ import annotations

import random


class PacketLoss:
    """`share` of all periods lose their packet, in bursts of 1 to `burst`; by whole bursts either the state does not
    reach the client, or its set-point does not reach the robot."""

    def __init__(self, share: float, burst: int, seed: int) -> None:
        self._draw = random.Random(seed)
        self._burst = burst
        length = (1 + burst) / 2
        self._begins = share / (length * (1.0 - share) + share) if share else 0.0
        self._left = 0
        self._states = False

    def next(self) -> tuple[bool, bool]:
        """Of the next period: whether the state is lost, and whether the set-point is."""
        if self._left == 0 and self._draw.random() < self._begins:
            self._left, self._states = self._draw.randint(1, self._burst), self._draw.random() < 0.5
        if self._left == 0:
            return False, False
        self._left -= 1
        return self._states, not self._states
