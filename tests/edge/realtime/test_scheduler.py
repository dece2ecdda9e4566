"""The fixed step on a fake clock: no drift, no bursts, and lateness told as it was."""

from __future__ import annotations

from edge.realtime.scheduler import FixedStep, Histogram, RateGroup, RateTable, measured_spin_ns


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


def test_spinning_makes_up_for_oversleeping() -> None:
    clock = FakeClock()
    clock.oversleep_ns = 70_000
    reads = 0

    def read() -> int:
        nonlocal reads
        reads += 1
        clock.now += 100  # looking at the clock takes time
        return clock.now

    loop = FixedStep(4_000_000, read, clock.sleep, spin_ns=80_000)
    for _ in range(100):
        loop.wait()
    assert loop.lateness.largest_us == 0
    assert loop.jitter.largest_us == 0
    assert reads < 100 * 200, "slept most of the time"


def test_jitter_is_told_apart_from_lateness() -> None:
    """A loop that is always late by the same time has a steady period."""
    clock = FakeClock()
    clock.oversleep_ns = 300_000
    loop = FixedStep(4_000_000, clock, clock.sleep)
    for _ in range(100):
        loop.wait()
    assert loop.lateness.percentile_us(1) == 300
    assert loop.jitter.percentile_us(98) == 10, "the lowest bin"


def test_groups_run_at_their_rates_and_once_after_a_gap() -> None:
    ran: list[tuple[str, int]] = []

    def group(name: str, every: int) -> RateGroup:
        return RateGroup(name, every, lambda _, tick: ran.append((name, tick)))

    table = RateTable(group("fast", 1), group("slow", 5))
    for tick in (1, 2, 3, 4, 5, 6, 23, 24, 25):
        table.run(tick, tick)
    assert [tick for name, tick in ran if name == "fast"] == [1, 2, 3, 4, 5, 6, 23, 24, 25]
    assert [tick for name, tick in ran if name == "slow"] == [1, 5, 23, 25], "one run for the four that were missed"
    assert ran[0][0] == "fast"


def test_the_spin_is_measured_and_bounded() -> None:
    clock = FakeClock()
    clock.oversleep_ns = 60_000
    assert measured_spin_ns(clock, clock.sleep) == 60_000
    clock.oversleep_ns = 10_000_000
    assert measured_spin_ns(clock, clock.sleep) == 250_000
