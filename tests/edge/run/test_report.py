"""What a run's report says that no run on an ordinary device would show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.errors import InputError
from edge.run.counters import Slow
from edge.run.report import check_output, device_clock_rate, slow_clock, slowed_down


@pytest.mark.parametrize("rate", [1.0, 0.59])
def test_the_rate_of_the_device_s_clock_is_that_of_its_reports(rate: float) -> None:
    host_us = 1_000_000 * np.arange(200)
    told_us = 5_000_000 + np.rint(rate * host_us).astype(np.int64)
    assert device_clock_rate(told_us, 199.0) == rate
    assert device_clock_rate(told_us[:99], 98.0) is None
    assert device_clock_rate(told_us[:0], 0.0) is None


def test_only_a_clock_that_no_crystal_explains_has_a_row() -> None:
    assert slow_clock(None) == slow_clock(0.999) == slow_clock(0.95) == []
    assert slow_clock(0.59) == [("device clock", "slow: it made 59% of real time")]


@pytest.mark.parametrize("why", Slow)
def test_the_reason_for_the_slowest_pace_is_named(why: Slow) -> None:
    other = Slow.LATE if why is Slow.LATENCY else Slow.LATENCY
    changes = [
        {"device_us": at, "spacing_us": spacing_us, "latency_us": 91_999, "why": reason}
        for at, spacing_us, reason in ((1, 110_000, other), (2, 400_000, why), (3, 200_000, other))
    ]
    said = slowed_down({"trained_step_ms": 100.0, "slowest_step_ms": 400.0, "changes": changes})
    reason = "inference took 91 ms" if why is Slow.LATENCY else why.value
    assert said == f"slowed down to 25% of the trained one: {reason}"


def test_an_output_that_this_user_cannot_write_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(InputError, match=r"--report .*run.json: this user cannot write in .*; name another file"):
        check_output("--report", tmp_path / "run.json")
