"""The shipped ACTs that `lerobot-train` trained: LeRobot folders through export, engines, runtime and firmware."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.evaluate import EvaluationSettings, evaluate
from export.commands.export import main as export
from tests.conftest import ROOT

SCENES = {"act-lift": ("so101", "red cube", 2_000_000), "act-tray": ("bi_so101", "tray", 2_000_000)}
"""Arm, object and a scene that it is lifted in; docs/notebook/lift.md has how many of all."""


@pytest.mark.long
@pytest.mark.parametrize("folder", SCENES)
def test_the_shipped_folder_lifts_its_object(folder: str, tmp_path: Path) -> None:
    arm, target, scene = SCENES[folder]
    told = ["--arm", arm, "--rate", "10", "--units", "degrees", "--samples", "2"]
    assert export([str(ROOT / "checkpoints" / folder), "-o", str(tmp_path / "bundle"), *told]) == 0
    settings = EvaluationSettings(
        tmp_path / "bundle", arm, 1, latency_ms=30.0, threads=1, first_scene=scene, target=target
    )
    report = evaluate(settings)
    assert report.succeeded == 1 and report.rows[0].stop is None and report.rows[0].refused == []
