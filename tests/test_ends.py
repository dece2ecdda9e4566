"""Twenty random ends of real runs; `make ends` makes two thousand. What must hold stands in tools/ends.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.ends import campaign, table

FIRST, COUNT = 1178, 20


@pytest.mark.real_time
def test_whatever_ends_a_run_the_law_holds(bundle_path: Path) -> None:
    rows, broken = campaign(COUNT, FIRST, bundle_path, at_once=2)
    print(table(rows))
    assert broken == []
