"""The table of goals: what it says of sound chunks, and that it tells unsound ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bench import cli
from bench.goal_kinds import KINDS, Situation, at_rest, under_way
from bench.goals import exceeded, executed
from edge.plan.shaping import ShapedChunk
from edge.plan.trajectory import to_micro
from tests.goal_chunks import ARMS, SHAPERS

SO101 = ARMS["so101"]


def test_every_kind_is_accepted_by_the_device_and_keeps_its_limits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "goals.json"
    assert cli.main(["goals", "--quick", "--arms", "so101", "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    assert [row["kind"] for row in found["rows"]] == list(KINDS)
    for row in found["rows"]:
        assert row["refused"] == row["refused_by_device"] == row["violations"] == {}, row
        assert row["limited_ticks"] == 0, row
        assert len(row["raw_ms"]) == row["chunks"] == 2
    assert "Of 16 chunks the host refused 0 and the firmware 0; limits that the device's trace violates: 0." in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize("away_deg", [0.5, 3.0, 11.0])
@pytest.mark.parametrize("hz", [10, 30, 50])
def test_first_goals_that_are_off_leave_the_limiter_nothing_to_do(hz: int, away_deg: float) -> None:
    """From standstill each joint is to be elsewhere at once, and to wave there."""
    spacing_us = round(1e6 / hz)
    wave = np.radians(4.0) * (1 - np.cos(np.arange(1, 50) / hz * 4))[:, None]
    goals = np.array(SO101.home_rad) + np.radians(away_deg) * np.array([1, -1, 1, -1, 1, 0]) + wave
    at = Situation(at_rest(SO101, spacing_us), (), 0, goals, spacing_us)
    chunk = SHAPERS["so101"].shape(at.timeline, at.splice, at.goals_rad, at.spacing_us)
    assert isinstance(chunk, ShapedChunk), chunk
    refused, trace = executed(SO101, at, chunk.knots)
    assert refused == [] and exceeded(trace, SO101) == [] and int(trace.limited.sum()) == 0


def test_knots_on_noisy_goals_are_refused_by_the_device() -> None:
    at = KINDS["white noise of 0.25 degree"](SHAPERS["so101"], SO101, 30, np.random.default_rng(0))
    naive = at.timeline.through(0, at.goals_rad[:49], at.spacing_us)
    refused, _ = executed(SO101, at, naive)
    assert len(refused) == 1 and "ACCELERATION" in refused[0].upper()


def test_a_jerky_trace_is_told() -> None:
    at = under_way(SHAPERS["so101"], SO101, 30, 10, 0.2 * np.ones(6), 1.5)
    knots = at.timeline.through(10, at.goals_rad, at.spacing_us)
    refused, trace = executed(SO101, at, knots)
    assert refused == [] and exceeded(trace, SO101) == []
    trace.q[:] = to_micro(trace.q * 1e-2) * 1e-4  # on a coarse grid
    assert any("acceleration" in line for line in exceeded(trace, SO101))


def test_what_it_cannot_measure_is_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    for command, told in (
        (["goals", "--arms", "nobody"], "unknown arm 'nobody'"),
        (["goals", "--rates", "0"], "--rates 0: give rates from 1 to 100 Hz"),
        (["goals", "--rates", "nan"], "--rates nan: give rates from 1 to 100 Hz"),
    ):
        assert cli.main(command) == 2
        assert told in capsys.readouterr().err
