"""The paper's claims, each judged by a rule that was written before the first run: seen, not seen or unclear here.

A claim is *seen* when the whole 95 % interval lies on the claimed side of the bound, *not seen* when the whole interval
lies on the other side, *unclear* otherwise. All seeds play the same scenes, so a difference in success has two
intervals: Student's over the differences of paired seeds, and a bootstrap that draws seeds and scenes. Both have to lie
on the same side, and there must be three seeds. It is judged after every duration; the last one counts. A ratio is
paired by seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lab.prior.statistics import Interval, ratio, student, two_levels

LEAST_SEEDS = 3
Verdict = Literal["seen", "not seen", "unclear", "not run"]
Results = dict[str, list[dict[str, Any]]]
"""The results of every variant, in the order of their seeds."""


@dataclass(frozen=True)
class Judged:
    """A claim with its figure. `how` says what the figure is, `paper` what the paper has; `figure` has Student's
    interval over seeds, `both` that of seeds and scenes, where there are scenes."""

    claim: str
    paper: str
    how: str
    verdict: Verdict
    figure: Interval | None
    both: Interval | None = None


@dataclass(frozen=True)
class Gain:
    """The claim that one variant is better than another; `paper` has the paper's success, worse and better."""

    claim: str
    paper: str
    better: str
    worse: str


GAINS = (
    Gain("the prior helps", "55.3, 64.9 %", "prior", "none"),
    Gain("it helps where data is scarce", "35.0, 61.3 %", "prior-few", "none-few"),
    Gain("history helps on top", "64.9, 68.0 %", "history", "prior"),
    Gain("the encoder compresses history better than a plain MLP", "68.4, 71.5", "history", "history-mlp"),
    Gain("distilling helps beyond the weights", "64.6, 68.3", "prior", "decay-zero"),
    Gain("letting go later is better (middle, early)", "65.1, 68.3", "prior", "decay-early"),
    Gain("letting go is better than never", "63.1, 68.3", "prior", "decay-never"),
    Gain("never letting go is worse than not distilling", "63.1, 64.6", "decay-zero", "decay-never"),
    Gain("a state-action prior beats one of actions alone", "65.4, 68.3", "prior", "actions"),
    Gain("more stage-1 data, better prior", "32.2, 35.4 %", "prior", "little"),
    Gain("other arms and tasks alone make a prior (ours)", "-", "others", "none"),
)


def by_variant(results: Sequence[dict[str, Any]]) -> Results:
    found: Results = {}
    for result in sorted(results, key=lambda one: int(one["seed"])):
        found.setdefault(result["variant"]["name"], []).append(result)
    return found


def paired(results: Results, one: str, other: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The results of two variants at the seeds that both have."""
    a = {result["seed"]: result for result in results.get(one, [])}
    b = {result["seed"]: result for result in results.get(other, [])}
    both = sorted(a.keys() & b.keys())
    return [a[seed] for seed in both], [b[seed] for seed in both]


def verdict(figure: Interval | None, bound: float, more: bool) -> Verdict:
    """The rule. `more`: the claim is that the figure is above the bound; else that it is below."""
    if figure is None:
        return "not run"
    low, high = (figure.low, figure.high) if more else (-figure.high, -figure.low)
    bound = bound if more else -bound
    if low > bound:
        return "seen"
    return "not seen" if high < bound else "unclear"


def level(results: Results, baseline: str) -> float | None:
    """The error that steps are counted to: the largest that any run of the baseline has at its end, so that each of
    them reaches it."""
    ends = [result["final_error"] for result in results.get(baseline, [])]
    return max(ends) if ends else None


def steps_to(result: dict[str, Any], error: float) -> int | None:
    """Steps until the first validation with at most this error; None if there is none."""
    return next((int(steps) for steps, found in result["curve"] if found <= error), None)


def best(results: Results, baseline: str) -> float | None:
    """The lowest error that any run of the baseline has at any time: none of them gets below it."""
    ever = [found for result in results.get(baseline, []) for _, found in result["curve"]]
    return min(ever) if ever else None


def steps_below(result: dict[str, Any], error: float) -> int | None:
    """Steps until the first validation with less than this error; None if there is none."""
    return next((int(steps) for steps, found in result["curve"] if found < error), None)


def durations_of(results: Sequence[dict[str, Any]]) -> list[float]:
    """After how long the policies were judged; empty where none was played."""
    return next((list(one["closed_loop"]["durations_s"]) for one in results if "closed_loop" in one), [])


def done_of(results: Sequence[dict[str, Any]], at: int) -> NDArray[np.float64]:
    """1 where a scene was done after the duration number `at`, (seeds, scenes); (0, 0) where some were not played."""
    if not results or not all("closed_loop" in one for one in results):
        return np.zeros((0, 0))
    return np.array([[float(digit) for digit in one["closed_loop"]["done"][at]] for one in results])


def gains_of(results: Results, better: str, worse: str, at: int) -> NDArray[np.float64]:
    """By how much success differs, (paired seeds, scenes)."""
    ours, theirs = paired(results, better, worse)
    found: NDArray[np.float64] = done_of(ours, at) - done_of(theirs, at)
    return found


def by_both_levels(gains: NDArray[np.float64]) -> tuple[Interval | None, Interval | None, Verdict]:
    """A difference (seeds, scenes) with its interval over seeds and that over seeds and scenes, and whether it is above
    0 by both."""
    if not gains.size:
        return None, None, "not run"
    over_seeds, both = student(gains.mean(axis=1).tolist()), two_levels(gains)
    found = {verdict(one, 0.0, more=True) for one in (over_seeds, both)}
    agreed = len(found) == 1 and len(gains) >= LEAST_SEEDS
    return over_seeds, both, found.pop() if agreed else "unclear"


def ratio_of(
    results: Results, one: str, other: str, value: Callable[[dict[str, Any]], float | None]
) -> Interval | None:
    """The ratio of a value of two variants, paired by seed. None where a run has no such value."""
    ours, theirs = paired(results, one, other)
    over, under = [value(result) for result in ours], [value(result) for result in theirs]
    if None in over or None in under:
        return None
    return ratio(over, under)  # type: ignore[arg-type]


def judge(results: Results) -> list[Judged]:
    """All claims, in the order of the paper's table."""
    durations = durations_of([one for found in results.values() for one in found])
    judged = [[*_gains(results, gain, durations), _error(results, gain)] for gain in GAINS]
    judged.insert(2, [_most_where_scarce(results, at, time) for at, time in enumerate(durations)])
    return [
        *(one for group in judged for one in group),
        _begins(results, "stage 2 begins at a lower loss", "7.1, 0.9", "first flow loss", "initial_predict"),
        _begins(
            results,
            "stage 2 begins with a smaller gradient",
            "1405, 89",
            "first gradient norm",
            "initial_gradient_norm",
        ),
        _steps(results, "prior", "none"),
        _passes(results, "prior", "none"),
        _steps(results, "prior-few", "none-few"),
        _passes(results, "prior-few", "none-few"),
    ]


def _gains(results: Results, gain: Gain, durations: Sequence[float]) -> list[Judged]:
    """A claim about success, after every duration."""
    judged = []
    for at, time in enumerate(durations):
        over_seeds, both, found = by_both_levels(gains_of(results, gain.better, gain.worse, at))
        how = f"success at {time:g} s, {gain.better} minus {gain.worse}"
        judged.append(Judged(gain.claim, gain.paper, how, found, over_seeds, both))
    return judged


def _error(results: Results, gain: Gain) -> Judged:
    """The same claim, judged by the error at the end of training."""
    better, worse = gain.better, gain.worse
    figure = ratio_of(results, better, worse, lambda one: one["final_error"])
    how = f"error at the end, {better} over {worse}"
    return Judged(gain.claim, gain.paper, how, _below(results, better, worse, figure, 1.0), figure)


def _most_where_scarce(results: Results, at: int, time: float) -> Judged:
    """Where a baseline fails in every scene of a seed, its gain is the success itself, and says nothing about need."""
    shared = _shared(results, "prior-few", "none-few", "prior", "none")
    few, many = gains_of(shared, "prior-few", "none-few", at), gains_of(shared, "prior", "none", at)
    over_seeds, both, found = by_both_levels(few - many)
    floors = [done_of(shared[name], at) for name in ("none-few", "none")]
    if found != "not run" and any(not floor.any(axis=1).all() for floor in floors):
        found = "unclear"
    claim, how = (
        "it helps most where data is scarce",
        f"gain at {time:g} s with few demonstrations minus gain with many",
    )
    return Judged(claim, "26.3, 9.6 points", how, found, over_seeds, both)


def _shared(results: Results, *names: str) -> Results:
    """The results of these variants at the seeds that all of them have."""
    seeds = set.intersection(*({one["seed"] for one in results.get(name, [])} for name in names))
    return {name: [one for one in results.get(name, []) if one["seed"] in seeds] for name in names}


def _begins(results: Results, claim: str, paper: str, what: str, name: str) -> Judged:
    figure = ratio_of(results, "prior", "none", lambda one: float(one[name]))
    return Judged(claim, paper, f"{what}, prior over none", _below(results, "prior", "none", figure, 1.0), figure)


def _steps(results: Results, ours: str, baseline: str) -> Judged:
    """Issue: at most half the steps. A run that never gets there counts with all its steps, which is too few."""
    claim, how = "the same error in at most half the steps", f"steps to the error of {baseline}, {ours} over {baseline}"
    return _half(results, ours, baseline, (claim, "700, 2100 steps", how), level(results, baseline), steps_to)


def _passes(results: Results, ours: str, baseline: str) -> Judged:
    """Added after the pilot had shown a baseline that ends where it begins to learn, so that its last error tells
    nothing. The baseline counts with all its steps, and would need more."""
    claim = "an error that the baseline never has, in at most half of its steps (added after the pilot)"
    how = f"steps to less than {baseline} ever has, {ours} over {baseline}"
    return _half(results, ours, baseline, (claim, "-", how), best(results, baseline), steps_below)


def _half(
    results: Results,
    ours: str,
    baseline: str,
    texts: tuple[str, str, str],
    wanted: float | None,
    steps: Callable[[dict[str, Any], float], int | None],
) -> Judged:
    """Whether we need at most half as many steps as the baseline to an error; `texts` are claim, paper and how."""
    if wanted is None:
        return Judged(*texts, "not run", None)
    figure = ratio_of(results, ours, baseline, lambda one: steps(one, wanted) or float(one["scale"]["steps"]))
    return Judged(*texts, _below(results, ours, baseline, figure, 0.5), figure)


def _below(results: Results, one: str, other: str, figure: Interval | None, bound: float) -> Verdict:
    """Whether a ratio is below a bound; a single pair of runs has no interval and says nothing."""
    if figure is None and paired(results, one, other)[0]:
        return "unclear"
    return verdict(figure, bound, more=False)
