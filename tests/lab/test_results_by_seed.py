"""The intervals by seeds of the runs before follow from the raw columns of docs/notebook/results.md, and so do their
verdicts."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

TEXT = (Path(__file__).parents[2] / "docs" / "notebook" / "results.md").read_text(encoding="utf-8")
STUDENT_2 = 4.302653
"""Student's t for 95 % and two degrees of freedom."""


def _rows(text: str, cells: int) -> list[list[str]]:
    lines = [line.strip().strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line] for line in lines if len(line) == cells]


def _successes(scale: str) -> dict[str, np.ndarray]:
    block = TEXT[TEXT.index(f"<!-- before: {scale} -->") :]
    rows = _rows(block[: block.index("<!-- end before -->")], 11)
    return {row[0]: np.array([int(one.split("/")[0]) / 50 for one in row[-1].split()]) for row in rows[1:]}


BY_SEED = _rows(TEXT[TEXT.index("**By seeds.**") : TEXT.index("**On what it was made.**")], 5)[1:]


@pytest.mark.parametrize("row", BY_SEED, ids=lambda row: f"{row[0]} {row[1]}")
def test_an_interval_by_seeds_is_that_of_the_raw_counts(row: list[str]) -> None:
    scale, difference, _, said, verdict = row
    one, other = difference.split(" minus ")
    found = _successes(scale)
    away = found[one] - found[other]
    half = STUDENT_2 * away.std(ddof=1) / math.sqrt(len(away))
    low, high = away.mean() - half, away.mean() + half
    assert said == f"{low:.2f} to {high:.2f}"
    kind = "seen" if low > 0 else "not seen" if high < 0 else "unclear"
    assert verdict.replace("*", "").split(",")[0] == kind


def test_both_scales_are_judged() -> None:
    assert len(BY_SEED) == 11 and {row[0] for row in BY_SEED} == {"small", "long"}
