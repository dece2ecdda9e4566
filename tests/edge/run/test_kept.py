"""A run's figures take bounded room, however long it lasts."""

from __future__ import annotations

import tracemalloc
from dataclasses import fields

import numpy as np
import pytest

import edge.run.counters
from edge.inference.records import Outcome, PlanResult
from edge.log.recorder import Recorder
from edge.run import kept
from edge.run.counters import Counters
from edge.run.kept import Kept
from edge.run.pauses import PauseLog
from edge.run.session import kept_samples


def test_the_newest_stay_and_all_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST", 10)
    row: Kept[int] = Kept()
    for number in range(1, 1001):
        row.append(number)
        assert row[-1] == number and row.total == number and min(5, number) <= len(row) <= 10
    assert list(row) == list(range(1001 - len(row), 1001))


def test_everything_that_a_run_counts_is_bounded() -> None:
    counters = Counters()
    growing = [one.name for one in fields(Counters) if isinstance(getattr(counters, one.name), list)]
    assert growing and all(isinstance(getattr(counters, name), Kept) for name in growing)
    pauses = PauseLog()
    for number in range(10_000):
        pauses.pause(f"camera 1 is {number} ms old", number)
        pauses.resume(number)
    assert sum(pauses.reasons.values()) == 10_000 and len(pauses.reasons) < 200


@pytest.mark.parametrize("duration_s", [5.0, 20.0, 590.0, 3600.0, 80_000.0, 86_399.0])
def test_the_store_of_samples_does_not_grow_with_the_duration(duration_s: float) -> None:
    tracemalloc.start()
    try:
        Recorder(kept_samples(duration_s), 8)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 16e6


def test_a_day_of_chunks_takes_the_room_of_an_hour_and_a_half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST", 1000)
    counters, result = Counters(), PlanResult.untimed(1, Outcome.CHUNK, np.zeros((15, 7)), "")

    ours = [tracemalloc.Filter(True, file) for file in (kept.__file__, edge.run.counters.__file__, __file__)]

    def held() -> int:
        """Of what these files have asked for: whatever else this process does has its own."""
        return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces(ours).traces)

    def chunks(begin: int, end: int) -> int:
        """The most that is held meanwhile; what `Kept` holds goes up and down by half."""
        most = 0
        for number in range(begin, end):
            counters.measured(number * 1000, result, 1000 + number)
            counters.committed_ids.append(number)
            counters.splice_acceleration.append(number / 7)
            counters.delays.append(number % 5)
            if number % 250 == 249:
                most = max(most, held())
        return most

    tracemalloc.start()
    try:
        first = chunks(0, 2 * kept.MOST)
        assert chunks(2 * kept.MOST, 16 * kept.MOST) < 1.2 * first < 30e6
    finally:
        tracemalloc.stop()
    assert counters.committed_ids.total == 16 * kept.MOST


def test_the_whole_run_s_device_time_is_known_without_its_samples() -> None:
    recorder = Recorder(100, 2)
    for tick in range(1000):
        recorder.sample(10_000 * tick, (0, 0), (0, 0), 100, 3)
    samples = recorder.samples()
    assert len(samples.device_us) == 100 and samples.whole_run_us[[0, -1]].tolist() == [0, 9_990_000]
