"""Ends of real runs, one of each kind before and during motion; `make ends` makes two thousand random ones.

What must hold stands in tools/ends.py.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tools.ends import Sum, campaign, drawn, table

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
def test_whatever_ends_a_run_the_law_holds(bundle_path: Path) -> None:
    for seeds, in_motion in ((EARLY, False), (IN_MOTION, True)):
        for name, seed in seeds.items():
            cause, moment = drawn(Random(seed))
            assert cause.name == name and moment.in_motion == in_motion and moment.seconds < 2
    ends = Sum(0, 0)
    campaign([*EARLY.values(), *IN_MOTION.values()], bundle_path, 2, ends, lambda: None)
    print(table(ends))
    assert ends.broken == []
