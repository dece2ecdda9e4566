"""A fixed step with absolute deadlines.

A step that comes late is counted, and missed ones are skipped, never caught up.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable

BIN_US = 10
BINS = 10_000
"""Lateness up to 100 ms in bins of 10 us; anything later counts in the last bin."""


class Histogram:
    """Counts of lateness in fixed bins; recording allocates nothing that stays."""

    def __init__(self) -> None:
        self._counts = array("Q", bytes(8 * BINS))
        self.total = 0
        self.largest_us = 0

    def add(self, value_us: int) -> None:
        self._counts[min(max(value_us, 0) // BIN_US, BINS - 1)] += 1
        self.total += 1
        if value_us > self.largest_us:
            self.largest_us = value_us

    def percentile_us(self, percent: float) -> int:
        """Upper edge of the bin that holds this percentile; 0 when nothing was recorded."""
        wanted = self.total * percent / 100
        seen = 0
        for index, count in enumerate(self._counts):
            seen += count
            if seen >= wanted and count:
                return min((index + 1) * BIN_US, self.largest_us)
        return 0


class FixedStep:
    """Calls come back at multiples of `period_ns` after the first deadline, or right away when that has passed."""

    def __init__(self, period_ns: int, clock_ns: Callable[[], int], sleep: Callable[[float], None]) -> None:
        self.period_ns = period_ns
        self._clock_ns = clock_ns
        self._sleep = sleep
        self._deadline_ns = clock_ns()
        self.ticks = 0
        self.overruns = 0
        self.late_ns = 0
        self.lateness = Histogram()

    def slack_s(self) -> float:
        """Time left until the next deadline."""
        return (self._deadline_ns + self.period_ns - self._clock_ns()) / 1e9

    def wait(self) -> int:
        """Waits for the next deadline; returns the time at which the step begins."""
        self._deadline_ns += self.period_ns
        ahead_ns = self._deadline_ns - self._clock_ns()
        if ahead_ns > 0:
            self._sleep(ahead_ns / 1e9)
        now_ns = self._clock_ns()
        self.late_ns = late_ns = now_ns - self._deadline_ns
        self.lateness.add(late_ns // 1000)
        self.ticks += 1
        if late_ns >= self.period_ns:
            missed = late_ns // self.period_ns
            self.overruns += missed
            self.ticks += missed
            self._deadline_ns += missed * self.period_ns
        return now_ns
