"""The fixed step on a fake clock: no drift, no bursts, and lateness told as it was."""

from __future__ import annotations

from edge.scheduler import FixedStep, Histogram


class FakeClock:
    """Time that passes only when somebody sleeps, or when the test says so."""

    def __init__(self) -> None:
        self.now = 1_000
        self.oversleep_ns = 0

    def __call__(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1e9) + self.oversleep_ns


def test_work_and_oversleeping_do_not_make_it_drift() -> None:
    clock = FakeClock()
    clock.oversleep_ns = 70_000
    loop = FixedStep(4_000_000, clock, clock.sleep)
    begins = []
    for step in range(1000):
        begins.append(loop.wait())
        clock.now += 500_000 * (step % 5)
    assert begins[-1] - 1_000 == 1000 * 4_000_000 + 70_000
    assert loop.overruns == 0


def test_missed_steps_are_skipped_and_counted() -> None:
    clock = FakeClock()
    loop = FixedStep(4_000_000, clock, clock.sleep)
    loop.wait()
    clock.now += 83_000_000
    late = loop.wait()
    assert loop.overruns == 19
    assert loop.ticks == 21
    following = loop.wait()
    assert 0 < following - late <= 4_000_000, "one step, not a burst of twenty"
    assert (following - 1_000) % 4_000_000 == 0, "still on the old grid"


def test_a_step_that_is_late_by_less_than_a_period_is_not_an_overrun() -> None:
    clock = FakeClock()
    loop = FixedStep(4_000_000, clock, clock.sleep)
    loop.wait()
    clock.now += 7_000_000
    loop.wait()
    assert (loop.overruns, loop.lateness.largest_us) == (0, 3_000)


def test_histogram_percentiles() -> None:
    histogram = Histogram()
    for value in range(1000):
        histogram.add(value)
    assert histogram.percentile_us(50) == 500
    assert histogram.percentile_us(99) == 990
    histogram.add(10**9)
    assert histogram.percentile_us(100) == 100_000
    assert histogram.largest_us == 10**9
    assert Histogram().percentile_us(99) == 0
