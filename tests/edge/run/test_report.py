"""What a run's report says that no run on an ordinary device would show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.errors import InputError
from edge.run.report import check_output, device_clock_rate, slow_clock


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


def test_an_output_that_this_user_cannot_write_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(InputError, match=r"--report .*run.json: this user cannot write in .*; name another file"):
        check_output("--report", tmp_path / "run.json")
