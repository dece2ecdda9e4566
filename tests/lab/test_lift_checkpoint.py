"""The shipped lifting policy, through its engines, the runtime and the firmware in lockstep."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.evaluate import EvaluationSettings, evaluate
from export.commands.export import main as export
from tests.conftest import ROOT

EPISODES = 3

pytestmark = (
    pytest.mark.slow
)  # two minutes: an export and six episodes with two cameras; docs/notebook/lift.md has 100 of each


@pytest.fixture(scope="module")
def lift_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lift") / "bundle"
    assert export([str(ROOT / "checkpoints" / "lift.pt"), "--samples", "4", "-o", str(path)]) == 0
    return path


@pytest.mark.parametrize("arm", ["franka_hand", "so101"])
def test_the_shipped_policy_lifts_what_it_is_told_to(lift_bundle: Path, arm: str) -> None:
    """It does in nine of ten scenes; in two of three it has to."""
    found = evaluate(EvaluationSettings(lift_bundle, arm, EPISODES, first_scene=2_600_000))
    assert found.task == "lift" and found.succeeded >= EPISODES - 1, found.rows
    assert all(row.stop is None for row in found.rows)
