"""Ends of real runs, one of each kind before and during motion; `make ends` makes two thousand random ones.

What must hold stands in tools/ends.py.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tools.ends import campaign, drawn, table

KINDS = {
    "control, SIGTERM x 2": 49,
    "inference, SIGKILL": 52,
    "progress, SIGINT": 5,
    "page, SIGTERM": 187,
    "stderr closed": 38,
    "disk full for control": 9,
    "control, SIGINT x 50": 547,
    "control, SIGHUP": 1358,
    "control, SIGKILL": 90,
    "log, SIGKILL": 423,
    "device, SIGKILL": 706,
    "disk full for log": 106,
    "stdout closed": 1096,
    "terminal closed": 92,
}
"""Seeds, by what they draw: the first six come within two seconds of the start, the others after about five."""


@pytest.mark.real_time
def test_whatever_ends_a_run_the_law_holds(bundle_path: Path) -> None:
    assert {drawn(Random(seed))[0].name: seed for seed in KINDS.values()} == KINDS
    rows, broken = campaign(KINDS.values(), bundle_path, at_once=2)
    print(table(rows))
    assert broken == []
