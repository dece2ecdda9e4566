"""Somebody else's policy by `edge-run`: processes, shared memory, line, firmware; its start, and its log."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge.cli.run import main as edge_run
from edge.log.trace import read_trace, violations
from edge.sim.scenes import open_scene
from tests.edge.policy.test_foreign import TASK, in_degrees
from tests.foreign_bundle import SO101, write_foreign

START = in_degrees(np.array(open_scene(SO101, 0, TASK).start))
AWAY = np.array([17.0, 0, 0, 0, 0, 0])
"""Degrees: more than a start may be from the first goals."""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "edge.cli.run", "--arm", "so101", "--task", TASK, "--duration", "3"]
    line += ["--camera", "front=pattern:", "--camera", "wrist=pattern:", "--bundle", str(folder / "bundle")]
    line += ["--report", str(folder / "run.json"), "--trace", str(folder / "trace.csv"), "--no-plot", *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=120)


@pytest.mark.real_time
@pytest.mark.side_by_side
def test_a_run_and_its_replay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_foreign(tmp_path / "bundle", target=START + AWAY)
    done = run(tmp_path, "--log", str(tmp_path / "run.mcap"))
    assert done.returncode == 0, done.stderr
    report, trace = json.loads((tmp_path / "run.json").read_text()), read_trace(tmp_path / "trace.csv")
    assert violations(trace, SO101.limits) == []
    assert report["chunks"]["execute_steps"] == 10 and report["chunks"]["committed"] >= 4
    assert report["goals"]["chunks"] >= 4 and set(report["latency_ms"]["engines"]) == {"camera", "backbone", "decoder"}
    away = in_degrees(np.array(trace.q[-1])) - START
    assert away[0] > 0.5 * AWAY[0], "it has gone most of the way"
    assert edge_run(["--replay", str(tmp_path / "run.mcap")]) == 0
    assert "verdict      identical" in capsys.readouterr().out


@pytest.mark.real_time
@pytest.mark.side_by_side
def test_a_far_start_is_refused_or_approached(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_foreign(tmp_path / "bundle", target=START + AWAY, at_once=True)
    refused = run(tmp_path)
    assert refused.returncode == 2 and refused.stderr.count("edge-run:") == 1
    assert "shoulder_pan stands at" in refused.stderr and "let it go there slowly with --approach" in refused.stderr
    assert not any(read_trace(tmp_path / "trace.csv").chunk), "nothing has moved"
    done = run(tmp_path, "--approach", "--log", str(tmp_path / "run.mcap"), "--overwrite")
    assert done.returncode == 0 and "the move to the first goals takes" in done.stdout, done.stderr
    trace = read_trace(tmp_path / "trace.csv")
    again = np.flatnonzero((np.array(trace.state[:-1]) == "IDLE") & (np.array(trace.state[1:]) == "ARMED"))[-1] + 1
    for part in (slice(0, again), slice(again, None)):  # armed again, it is held where it was measured
        assert violations(trace.part(part), SO101.limits) == []
    assert in_degrees(np.array(trace.q[-1])) == pytest.approx(START + AWAY, abs=1.5)
    assert edge_run(["--replay", str(tmp_path / "run.mcap")]) == 0
    assert "verdict      identical" in capsys.readouterr().out
