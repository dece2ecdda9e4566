"""Intervals that the verdicts rest on; all are 95 %."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""The 97.5 % quantile of Student's t by degrees of freedom; with more, that of nine is on the safe side."""
DRAWS, DRAWN_WITH = 10_000, 2606
"""Of the bootstrap: how many, and the seed of its dice."""


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Sample:
    """Mean and standard deviation over seeds."""

    mean: float
    deviation: float | None


def sample(values: Sequence[float]) -> Sample:
    mean = sum(values) / len(values)
    if len(values) < 2:
        return Sample(mean, None)
    return Sample(mean, math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1)))


def student(values: Sequence[float]) -> Interval | None:
    """Student's interval of a mean; None for fewer than two values."""
    if len(values) < 2:
        return None
    found = sample(values)
    assert found.deviation is not None
    half = STUDENT[min(len(values) - 1, 9)] * found.deviation / math.sqrt(len(values))
    return Interval(found.mean, found.mean - half, found.mean + half)


def two_levels(values: NDArray[np.float64]) -> Interval:
    """The mean of values (seeds, scenes) by a bootstrap of both levels.

    In every draw seeds and scenes are drawn with replacement, the same scenes for all seeds, since every seed has
    played the same ones. The interval reaches from the 2.5th percentile of the draws' means to the 97.5th.
    """
    rng, (seeds, scenes) = np.random.default_rng(DRAWN_WITH), values.shape
    by_seed = rng.integers(seeds, size=(DRAWS, seeds))
    by_scene = rng.integers(scenes, size=(DRAWS, scenes))
    means = values[by_seed[:, :, None], by_scene[:, None, :]].mean(axis=(1, 2))
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(values.mean()), float(low), float(high))


def ratio(over: Sequence[float], under: Sequence[float]) -> Interval | None:
    """Geometric mean of ratios that are paired by seed, with Student's interval of their logarithms.

    None for fewer than two pairs, or a value that is not above zero.
    """
    if len(over) < 2 or min([*over, *under]) <= 0:
        return None
    logs = student([math.log(a / b) for a, b in zip(over, under)])
    assert logs is not None
    return Interval(math.exp(logs.value), math.exp(logs.low), math.exp(logs.high))
