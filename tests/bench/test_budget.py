"""The budget of ratios: how it judges, and that the engines of this commit keep it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.budget import BUDGET, Bound, judge, read_budget
from bench.cli import main
from edge.errors import InputError
from tests.conftest import SHIPPED


def bound(**limits: float) -> Bound:
    return Bound("g", "way", "base", "why", **limits)


@pytest.mark.parametrize(
    ("limits", "low", "high", "missed"),
    [
        ({"least": 1.5}, 1.4, 1.6, False),
        ({"least": 1.5}, 1.2, 1.49, True),
        ({"most": 1.5}, 1.4, 1.6, False),
        ({"most": 1.5}, 1.51, 1.6, True),
        ({"least": 1.5}, float("nan"), float("nan"), True),
        ({"most": 1.5}, float("nan"), float("nan"), True),
    ],
)
def test_a_bound_is_missed_when_the_whole_interval_is(
    limits: dict[str, float], low: float, high: float, missed: bool
) -> None:
    assert bound(**limits).misses({"median": 1.5, "low": low, "high": high}) is missed


def test_only_the_same_comparison_counts() -> None:
    ratio = {"median": 1.0, "low": 1.0, "high": 1.0}
    groups = [
        {"name": "g", "baseline": "another", "ratios": {"way": ratio}},
        {"name": "other", "baseline": "base", "ratios": {"way": ratio}},
    ]
    (verdict,) = judge([bound(least=2.0)], groups)
    assert verdict.ratio is None and not verdict.missed
    (verdict,) = judge([bound(least=2.0)], [{"name": "g", "baseline": "base", "ratios": {"way": ratio}}])
    assert verdict.missed


@pytest.mark.parametrize(
    "text",
    ["", "[[ratio]]\ngroup='g'\n", "[[ratio]]\ngroup='g'\nway='w'\nbaseline='b'\nwhy=''\nleast=1\nmost=2\n", "x"],
)
def test_a_budget_that_cannot_be_meant_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "budget.toml"
    path.write_text(text)
    with pytest.raises(InputError):
        read_budget(path)


@pytest.mark.real_time
def test_the_engines_keep_the_budget(bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ratios of ways that take turns within one run, so that a slow machine is slow for both."""
    measured = tmp_path / "latency.json"
    arguments = ["latency", "--quick", "--without-wire", "--bundle", str(bundle_path), "--checkpoint", str(SHIPPED)]
    assert main([*arguments, "--json", str(measured)]) == 0
    capsys.readouterr()
    assert main(["check", str(measured)]) == 0, capsys.readouterr().out
    judged = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("kept") for line in judged) == 4, judged
    _check_that_it_can_be_missed(measured, capsys)


def _check_that_it_can_be_missed(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document: dict[str, Any] = json.loads(measured.read_text())
    for group in document["groups"]:
        for ratio in group["ratios"].values():
            ratio.update(median=1.0, low=0.9, high=1.1)
    measured.write_text(json.dumps(document))
    assert main(["check", str(measured)]) == 1
    assert "MISSED" in capsys.readouterr().out


def test_the_committed_budget_holds_ratios_and_no_times() -> None:
    bounds = read_budget(BUDGET)
    assert len(bounds) >= 4
    assert "_ms" not in BUDGET.read_text()
