"""Ends of real runs, one of each kind before and during motion; `make ends` makes two thousand random ones.

What must hold stands in tools/ends.py.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from random import Random

import pytest

from tools.ends import Run, Sum, campaign, drawn, left, table

EARLY = {
    "control, SIGTERM x 2": 100,
    "inference, SIGKILL": 52,
    "progress, SIGINT": 5,
    "page, SIGTERM": 187,
    "stderr closed": 38,
    "disk full for control": 63,
}
IN_MOTION = {
    "control, SIGINT x 50": 42,
    "control, SIGHUP": 1134,
    "control, SIGKILL": 39,
    "log, SIGKILL": 881,
    "device, SIGKILL": 669,
    "disk full for log": 317,
    "stdout closed": 683,
    "terminal closed": 24,
}
"""Seeds, by what they draw."""


@pytest.mark.real_time
@pytest.mark.side_by_side
@pytest.mark.parametrize(
    ("name", "in_motion"), [*((name, False) for name in EARLY), *((name, True) for name in IN_MOTION)]
)
def test_whatever_ends_a_run_the_law_holds(bundle_path: Path, name: str, in_motion: bool) -> None:
    seed = (IN_MOTION if in_motion else EARLY)[name]
    cause, moment = drawn(Random(seed))
    assert cause.name == name and moment.in_motion == in_motion and moment.seconds < 2
    ends = Sum(seed, seed)
    campaign([seed], bundle_path, 1, ends, lambda: None)
    print(table(ends))
    assert ends.broken == [] and ends.rows == {name: [1, 0]}


def test_who_stays_longer_than_a_second_is_found(tmp_path: Path) -> None:
    control = subprocess.Popen(["true"])
    control.wait()
    with subprocess.Popen(["sleep", "60"]) as stays, subprocess.Popen(["sleep", "0.3"]) as goes:
        run = Run(tmp_path, control, {stays.pid: "page", goes.pid: "log"})
        found = left(run)
        stays.kill()
    assert found == [f"page (pid {stays.pid}) is left"]
    assert 0.2 < run.outlived_s["log"] < 1 < run.outlived_s["page"]
