"""A fixed step with absolute deadlines, and the groups of work that run on it.

A step that comes late is counted, and missed ones are skipped, never caught up: a burst of stale steps would help
nobody. Nothing here allocates, logs or locks while it runs.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BIN_US = 10
BINS = 10_000
"""Up to 100 ms in bins of 10 us; anything later counts in the last bin."""
NAPS, NAP_S = 200, 0.0005
MOST_SPIN_NS = 250_000


class Histogram:
    """Counts in fixed bins."""

    def __init__(self) -> None:
        self._counts = array("Q", bytes(8 * BINS))
        self.total = 0
        self.largest_us = 0

    def add(self, value_us: int) -> None:
        self._counts[min(max(value_us, 0) // BIN_US, BINS - 1)] += 1
        self.total += 1
        if value_us > self.largest_us:
            self.largest_us = value_us

    def counts(self) -> array[int]:
        """How many values each bin of `BIN_US` holds now."""
        return self._counts[:]

    def percentile_us(self, percent: float) -> int:
        """Upper edge of the bin that holds this percentile; 0 when nothing was recorded."""
        wanted = self.total * percent / 100
        seen = 0
        for index, count in enumerate(self._counts):
            seen += count
            if seen >= wanted and count:
                return min((index + 1) * BIN_US, self.largest_us)
        return 0

    def coarse(self, edges_us: Sequence[int]) -> NDArray[np.uint64]:
        """Counts between wider edges, of which the first bin begins at 0 and the last takes all that is later."""
        starts = [0, *(edge // BIN_US for edge in edges_us[:-1])]
        return np.add.reduceat(np.frombuffer(self._counts, dtype=np.uint64), starts)


class FixedStep:
    """Calls come back at multiples of `period_ns` after the first deadline, or right away when that has passed.

    The last `spin_ns` before a deadline are spent looking at the clock, since a sleep may end that much late.
    `lateness` is the phase of each step, `jitter` how far its period was off.
    """

    def __init__(
        self, period_ns: int, clock_ns: Callable[[], int], sleep: Callable[[float], None], spin_ns: int = 0
    ) -> None:
        self.period_ns = period_ns
        self.spin_ns = spin_ns
        self._clock_ns = clock_ns
        self._sleep = sleep
        self._deadline_ns = clock_ns()
        self._last_ns = self._deadline_ns
        self.ticks = 0
        self.overruns = 0
        self.late_ns = 0
        self.lateness = Histogram()
        self.jitter = Histogram()

    def begin(self) -> None:
        """The first deadline is a period from now."""
        self._deadline_ns = self._last_ns = self._clock_ns()

    def slack_s(self) -> float:
        """Time left until the next deadline."""
        return (self._deadline_ns + self.period_ns - self._clock_ns()) / 1e9

    def wait(self) -> int:
        """Waits for the next deadline; returns the time at which the step begins."""
        self._deadline_ns += self.period_ns
        ahead_ns = self._deadline_ns - self.spin_ns - self._clock_ns()
        if ahead_ns > 0:
            self._sleep(ahead_ns / 1e9)
        now_ns = self._clock_ns()
        while now_ns < self._deadline_ns:
            now_ns = self._clock_ns()
        self.late_ns = late_ns = now_ns - self._deadline_ns
        self.lateness.add(late_ns // 1000)
        self.jitter.add(abs(now_ns - self._last_ns - self.period_ns) // 1000)
        self._last_ns = now_ns
        self.ticks += 1
        if late_ns >= self.period_ns:
            missed = late_ns // self.period_ns
            self.overruns += missed
            self.ticks += missed
            self._deadline_ns += missed * self.period_ns
        return now_ns


@dataclass(frozen=True)
class RateGroup:
    """Work that runs every `every` ticks; gets the time in ns and the tick."""

    name: str
    every: int
    run: Callable[[int, int], None]


class RateTable:
    """A static table of groups, run in their order. A group whose tick was skipped runs once, at the next one."""

    def __init__(self, *groups: RateGroup) -> None:
        self.groups = groups
        self._due = [0] * len(groups)

    def run(self, now_ns: int, tick: int) -> None:
        """Runs what is due at `tick`."""
        for index, group in enumerate(self.groups):
            if tick >= self._due[index]:
                self._due[index] = tick - tick % group.every + group.every
                group.run(now_ns, tick)


def measured_spin_ns(clock_ns: Callable[[], int], sleep: Callable[[float], None]) -> int:
    """How long to spin before a deadline: what 99 in 100 sleeps on this machine oversleep at most."""
    overslept = []
    for _ in range(NAPS):
        began_ns = clock_ns()
        sleep(NAP_S)
        overslept.append(clock_ns() - began_ns - round(NAP_S * 1e9))
    return min(max(sorted(overslept)[NAPS * 99 // 100], 0), MOST_SPIN_NS)
