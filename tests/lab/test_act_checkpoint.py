"""The shipped ACT that `lerobot-train` trained: a LeRobot folder through export, engines, runtime and firmware."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.evaluate import EvaluationSettings, evaluate
from export.commands.export import main as export
from tests.conftest import ROOT

FOLDER = ROOT / "checkpoints" / "act-lift"
SCENE = 2_000_000
"""One that it lifts in; docs/notebook/lift.md has 100."""


@pytest.mark.long
def test_the_shipped_folder_lifts_its_object(tmp_path: Path) -> None:
    arm = ["--arm", "so101", "--rate", "10", "--units", "degrees"]
    assert export([str(FOLDER), "-o", str(tmp_path / "bundle"), *arm, "--samples", "2"]) == 0
    settings = EvaluationSettings(
        tmp_path / "bundle", "so101", 1, latency_ms=30.0, threads=1, first_scene=SCENE, target="red cube"
    )
    report = evaluate(settings)
    assert report.succeeded == 1 and report.rows[0].stop is None and report.rows[0].refused == []
