"""The harness on a fake clock: what is counted, in what order, and whether its statements about noise hold."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bench.harness import (
    ENOUGH_CALLS,
    LEAST_CALLS,
    Plan,
    Timing,
    drift_share,
    group,
    median_interval,
    ratios,
    summary,
    take_turns,
)


class FakeClock:
    """Time passes only when a way is run."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.ran: list[str] = []

    def way(self, name: str, cost_ns: int, cold_ns: int = 0, open_ns: int = 0) -> Callable[[], Callable[[], object]]:
        def opener() -> Callable[[], object]:
            self.now_ns += open_ns
            state = {"cold": cold_ns}

            def run() -> None:
                self.ran.append(name)
                self.now_ns += cost_ns + state.pop("cold", 0)

            return run

        return opener


def test_the_cold_start_and_the_warm_up_are_in_no_sample() -> None:
    clock = FakeClock()
    found = take_turns(
        {"a": clock.way("a", 10, cold_ns=5000, open_ns=700)}, Plan(100, 0.0, 3), clock_ns=lambda: clock.now_ns
    )
    assert found["a"].open_ns == 700
    assert found["a"].first_ns == 5010
    assert found["a"].warm_ns == [10] * 100
    assert len(clock.ran) == 1 + 3 + 100


def rounds_of(ways: str, count: int, seed: int) -> list[str]:
    """The order in which `count` rounds ran."""
    clock = FakeClock()
    take_turns(
        {name: clock.way(name, 10) for name in ways}, Plan(count, 0.0, 0), clock_ns=lambda: clock.now_ns, seed=seed
    )
    size = len(ways)
    return ["".join(clock.ran[index : index + size]) for index in range(size, size * (count + 1), size)]


def test_every_way_runs_once_a_round_in_an_order_that_the_seed_draws() -> None:
    rounds = rounds_of("abc", 6, seed=0)
    assert all(sorted(one) == list("abc") for one in rounds)
    assert rounds == rounds_of("abc", 6, seed=0) and rounds != rounds_of("abc", 6, seed=1)


def test_no_way_always_follows_the_same_neighbour() -> None:
    """A call runs on what the one before it left in the caches; rotating alone would leave every neighbour in place."""
    ran = "".join(rounds_of("abcd", 600, seed=0))
    before = [ran[index - 1] for index in range(1, len(ran)) if ran[index] == "a"]
    shares = {name: before.count(name) / len(before) for name in "bcd"}
    assert all(0.25 < share < 0.36 for share in shares.values()), shares


def test_at_least_a_hundred_calls_then_as_many_as_the_time_allows() -> None:
    assert Plan().calls == LEAST_CALLS == 100
    plan = Plan(calls=100, seconds=1.0)
    assert plan.goes_on(99, 60.0), "a hundred, however slow"
    assert not plan.goes_on(100, 60.0)
    assert plan.goes_on(ENOUGH_CALLS - 1, 0.5) and not plan.goes_on(ENOUGH_CALLS, 0.5)


def test_a_ratio_is_taken_pair_by_pair() -> None:
    """A machine that becomes ten times slower half way changes neither ratio nor interval."""
    base = [100] * 50 + [1000] * 50
    timings = {"base": Timing(warm_ns=base), "other": Timing(warm_ns=[3 * value for value in base])}
    found = ratios(timings, "base", seed=0)["other"]
    assert (found.median, found.low, found.high) == pytest.approx((3, 3, 3))


def test_the_twin_of_the_baseline_becomes_the_noise_floor() -> None:
    clock = FakeClock()
    plan = Plan(100, 0.0, 1)
    timings = take_turns(
        {"a": clock.way("a", 10), "b": clock.way("b", 25)}, plan, baseline="a", clock_ns=lambda: clock.now_ns
    )
    found = group("test", "inside the fake clock", timings, plan, 0, "a")
    assert found["noise_floor"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert list(found["ratios"]) == ["b"] and found["ratios"]["b"]["median"] == 2.5
    assert found["boundary"] and found["ways"]["b"]["raw_ns"] == [25] * 100
    assert found["ways"]["b"]["warm_up_calls"] == 1


def test_the_interval_is_seeded_and_covers_the_median() -> None:
    """Of 200 samples with a known median, about 19 in 20 intervals hold it."""
    draw = np.random.default_rng(7)
    held = 0
    for seed in range(200):
        found = median_interval(draw.exponential(1.0, 150), seed)
        held += found.low <= np.log(2) <= found.high
    assert 178 <= held <= 199
    values = draw.exponential(1.0, 150)
    assert median_interval(values, 3) == median_interval(values, 3)


def test_blocks_keep_what_consecutive_calls_share() -> None:
    """Noise in bursts makes the interval wider than the same values in any order would."""
    draw = np.random.default_rng(0)
    bursts = np.repeat(draw.normal(1.0, 0.2, 20), 20)
    shuffled = draw.permutation(bursts)

    def width(values: np.ndarray) -> float:
        found = median_interval(values, 0)
        return found.high - found.low

    assert width(bursts) > 2 * width(shuffled)


def test_the_stated_noise_has_the_drift_in_it() -> None:
    steady, drifting = np.full(100, 10.0), np.linspace(10.0, 20.0, 100)
    assert drift_share(steady) == 0.0
    assert summary(steady, 0, "ms")["noise_share"] == 0.0
    assert summary(drifting, 0, "ms")["noise_share"] > 0.3


def test_a_thousandth_is_not_told_from_a_hundred_calls() -> None:
    assert summary(np.ones(LEAST_CALLS), 0, "ms")["p999_ms"] is None
    assert summary(np.arange(ENOUGH_CALLS) + 1.0, 0, "ms")["p999_ms"] == pytest.approx(999, abs=1)


def test_nothing_measured_has_no_median() -> None:
    with pytest.raises(ValueError, match="no values"):
        median_interval(np.zeros(0), 0)
