"""How everything is timed: warm-up, calls in turns, the cold start apart, and the noise measured beside the result.

Ways to do the same thing take turns, one call each per round, so that a noisy minute of the machine falls on all of
them. Every round has an order of its own, drawn from the seed: in a fixed one, and in a rotated one too, each way would
always run on what the same neighbour left in the caches. A ratio is taken round by round. The baseline runs twice in
every round: what its two halves differ by is the noise floor of the comparison.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Run = Callable[[], object]
Floats = NDArray[np.float64]

LEAST_CALLS = 100
ENOUGH_CALLS = 1000
"""From here on a 99.9th percentile is a measurement and not the maximum."""
RESAMPLES = 2000
CONFIDENCE = 0.95
AGAIN = "again"
"""What the baseline's second run in every round is called."""
YARDSTICK, YARDSTICK_SIZE = "yardstick", 200_000
"""A fixed piece of work in every round. A virtual machine may be half as fast an hour later; counted in yardsticks two
runs can be compared all the same."""


@dataclass(frozen=True)
class Plan:
    """How much to measure: at least `calls` rounds, then up to `ENOUGH_CALLS` while `seconds` have not passed."""

    calls: int = LEAST_CALLS
    seconds: float = 5.0
    warm_up: int = 5

    def goes_on(self, rounds: int, elapsed_s: float) -> bool:
        """Whether another round is to be run after `rounds` of them."""
        return rounds < self.calls or (rounds < ENOUGH_CALLS and elapsed_s < self.seconds)


QUICK = Plan(calls=20, seconds=0.0, warm_up=2)
"""For a smoke run: the figures are not worth quoting, and the report says so."""


@dataclass(frozen=True)
class Interval:
    """A middle value and the interval it lies in with 95 % confidence."""

    median: float
    low: float
    high: float

    def to_plain(self) -> dict[str, float]:
        return {"median": self.median, "low": self.low, "high": self.high}


@dataclass
class Timing:
    """One way's times, ns: opening it, its first call, and every call after the warm-up in order."""

    open_ns: int = 0
    first_ns: int = 0
    warm_ns: list[int] = field(default_factory=list)

    def to_plain(self, warm_up: int, seed: int) -> dict[str, Any]:
        return {
            "cold": {"open_ms": self.open_ns / 1e6, "first_call_ms": self.first_ns / 1e6},
            "warm_up_calls": warm_up,
            **summary(np.array(self.warm_ns) / 1e6, seed, "ms"),
            "raw_ns": self.warm_ns,
        }


def block_medians(values: Floats, seed: int) -> Floats:
    """Medians of resamples of `values`, drawn in blocks of consecutive ones (Kunsch 1989).

    Consecutive samples are autocorrelated; single draws would make the interval too narrow.
    """
    count = len(values)
    size = max(1, round(count**0.5))
    blocks = -(-count // size)
    starts = np.random.default_rng(seed).integers(0, count, (RESAMPLES, blocks, 1))
    picked = values[(starts + np.arange(size)) % count].reshape(RESAMPLES, -1)[:, :count]
    medians: Floats = np.median(picked, axis=1)
    return medians


def median_interval(values: Floats, seed: int) -> Interval:
    """The median with a bootstrap interval. Raises `ValueError` for no values."""
    if not len(values):
        raise ValueError("no values to take a median of")
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(block_medians(values, seed), [tail, 100 - tail])
    return Interval(float(np.median(values)), float(low), float(high))


def drift_share(values: Floats) -> float:
    """By how much of the whole median the medians of four consecutive quarters differ at most."""
    quarters = [float(np.median(part)) for part in np.array_split(values, 4) if len(part)]
    return (max(quarters) - min(quarters)) / float(np.median(values))


def summary(values: Floats, seed: int, unit: str) -> dict[str, Any]:
    """Percentiles, the median's interval, and the noise: how far another run may lie from this one, as a share.

    The noise is half the interval's width plus what the four quarters of this run differ by.
    """
    middle = median_interval(values, seed)
    p95, p99, p999 = (float(value) for value in np.percentile(values, [95, 99, 99.9]))
    noise = (middle.high - middle.low) / 2 / middle.median + drift_share(values) if middle.median else 0.0
    return {
        "calls": len(values),
        f"p50_{unit}": middle.median,
        f"p50_low_{unit}": middle.low,
        f"p50_high_{unit}": middle.high,
        f"p95_{unit}": p95,
        f"p99_{unit}": p99,
        f"p999_{unit}": p999 if len(values) >= ENOUGH_CALLS else None,
        f"max_{unit}": float(values.max()),
        "noise_share": noise,
    }


def open_yardstick() -> Run:
    """Single precision exponentials of numbers that fit the cache: one thread, the processor's arithmetic alone."""
    given = np.linspace(-1, 1, YARDSTICK_SIZE, dtype=np.float32)
    found = np.empty_like(given)
    return lambda: np.exp(given, out=found)


def yardstick_ns(clock_ns: Callable[[], int] = time.perf_counter_ns) -> list[int]:
    """Times of the yardstick on its own, for what cannot take turns with it: once before and once after."""
    run, times = open_yardstick(), []
    run()
    for _ in range(LEAST_CALLS):
        began_ns = clock_ns()
        run()
        times.append(clock_ns() - began_ns)
    return times


def take_turns(
    openers: Mapping[str, Callable[[], Run]],
    plan: Plan,
    baseline: str | None = None,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
    step: Callable[[], object] = lambda: None,
    seed: int = 0,
) -> dict[str, Timing]:
    """Opens every way, warms it up, and times the ways in turns. With a baseline, also its twin for the noise floor.

    `seed` draws the order of the ways within each round. `step` is called after every round, for a progress bar; its
    time is in no sample.
    """
    timings = {name: Timing() for name in openers}
    runs: dict[str, Run] = {}
    for name, opener in openers.items():
        began_ns = clock_ns()
        runs[name] = opener()
        opened_ns = clock_ns()
        runs[name]()
        timings[name].open_ns, timings[name].first_ns = opened_ns - began_ns, clock_ns() - opened_ns
        for _ in range(plan.warm_up):
            runs[name]()
    if baseline is not None:
        twin = f"{baseline} {AGAIN}"
        runs[twin], timings[twin] = runs[baseline], Timing(timings[baseline].open_ns, timings[baseline].first_ns)
    collects = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        _rounds(runs, timings, plan, clock_ns, step, seed)
    finally:
        if collects:
            gc.enable()
    return timings


def _rounds(
    runs: dict[str, Run],
    timings: dict[str, Timing],
    plan: Plan,
    clock_ns: Callable[[], int],
    step: Callable[[], object],
    seed: int,
) -> None:
    names, began_ns, rounds, draw = list(runs), clock_ns(), 0, np.random.default_rng(seed)
    while plan.goes_on(rounds, (clock_ns() - began_ns) / 1e9):
        for index in draw.permutation(len(names)):
            name = names[index]
            run = runs[name]
            started_ns = clock_ns()
            run()
            timings[name].warm_ns.append(clock_ns() - started_ns)
        rounds += 1
        step()


def ratios(timings: Mapping[str, Timing], baseline: str, seed: int) -> dict[str, Interval]:
    """How many times as long as the baseline each other way takes, pair by pair; its twin's ratio is the noise."""
    base = np.array(timings[baseline].warm_ns, dtype=np.float64)
    return {
        name: median_interval(np.array(timing.warm_ns) / base, seed)
        for name, timing in timings.items()
        if name != baseline
    }


def group(
    name: str, boundary: str, timings: Mapping[str, Timing], plan: Plan, seed: int, baseline: str | None = None
) -> dict[str, Any]:
    """One comparison as plain data: what exactly was timed, every way's figures and samples, ratios, noise floor."""
    found = ratios(timings, baseline, seed) if baseline is not None else {}
    twin = found.pop(f"{baseline} {AGAIN}", None)
    return {
        "name": name,
        "boundary": boundary,
        "baseline": baseline,
        "ways": {way: timing.to_plain(plan.warm_up, seed) for way, timing in timings.items()},
        "ratios": {way: ratio.to_plain() for way, ratio in found.items()},
        "noise_floor": twin.to_plain() if twin is not None else None,
    }
