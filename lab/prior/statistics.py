"""Intervals that the verdicts rest on; all are 95 %."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edge.run.proportion import wilson

STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""The 97.5 % quantile of Student's t by degrees of freedom; with more, that of nine is on the safe side."""


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % interval."""

    value: float
    low: float
    high: float

    def minus(self, other: Interval) -> Interval:
        """Difference of two independent estimates: Newcombe's hybrid of their intervals (Newcombe, 1998, method 10)."""
        value = self.value - other.value
        below = math.hypot(self.value - self.low, other.high - other.value)
        above = math.hypot(self.high - self.value, other.value - other.low)
        return Interval(value, value - below, value + above)


@dataclass(frozen=True)
class Sample:
    """Mean and standard deviation over seeds."""

    mean: float
    deviation: float | None


def proportion(successes: int, trials: int) -> Interval:
    """Wilson's interval."""
    low, high = wilson(successes, trials)
    return Interval(successes / trials, low, high)


def sample(values: Sequence[float]) -> Sample:
    mean = sum(values) / len(values)
    if len(values) < 2:
        return Sample(mean, None)
    return Sample(mean, math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1)))


def ratio(over: Sequence[float], under: Sequence[float]) -> Interval | None:
    """Geometric mean of ratios that are paired by seed, with Student's interval of their logarithms.

    None for fewer than two pairs, or a value that is not above zero.
    """
    if len(over) < 2 or min([*over, *under]) <= 0:
        return None
    logs = sample([math.log(a / b) for a, b in zip(over, under)])
    assert logs.deviation is not None
    half = STUDENT[min(len(over) - 1, 9)] * logs.deviation / math.sqrt(len(over))
    return Interval(math.exp(logs.mean), math.exp(logs.mean - half), math.exp(logs.mean + half))
