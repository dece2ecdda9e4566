"""A LeRobot folder by `edge-export` and `edge-run`, in real time: processes, line and firmware of a real run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge.arms import load_arm
from edge.log.trace import read_trace, violations
from tests.export.families.lerobot_engines import WAVE_RAD, bundle_of

DURATION_S = 3.0
SO101 = load_arm("so101")


@pytest.fixture(scope="module")
def act(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ACT that LeRobot's own loss has trained to wave, at 15 goals a second."""
    return bundle_of("act_waving", tmp_path_factory)


@pytest.mark.real_time
@pytest.mark.side_by_side
def test_an_act_of_lerobot_s_drives_the_arm_at_its_own_rate(act: Path, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "edge.cli.run", "--bundle", str(act), "--arm", "so101", "--bridge", "sim:"]
    line += ["--camera", "front=pattern:", "--camera", "wrist=pattern:", "--duration", str(DURATION_S)]
    line += ["--trace", str(tmp_path / "trace.csv"), "--report", str(tmp_path / "run.json"), "--no-plot"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    chunks, trace = json.loads((tmp_path / "run.json").read_text())["chunks"], read_trace(tmp_path / "trace.csv")
    assert violations(trace, SO101.limits, SO101.edges) == []
    assert chunks["committed"] >= 0.9 * chunks["computed"] >= 3
    travelled = np.ptp(trace.q, axis=0)
    assert (travelled >= WAVE_RAD / 2).all(), travelled
