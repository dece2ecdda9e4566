"""The generator's bookkeeping, with a simulator that is none: numbers, seeds, success, interruption."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from edge.log.dataset.spec import DatasetWriteError
from export.training.data import read_demonstrations
from lab.datagen.__main__ import record
from lab.datagen.rollout import canonical
from tests.lab.scripted_simulator import Scripted


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.datagen.__main__.EPISODES_PER_PART", 4)


def test_only_successful_attempts_are_kept_and_counted(tmp_path: Path) -> None:
    line = record(Scripted, tmp_path / "data", episodes=12, seed=0)
    remarks = json.loads((tmp_path / "data" / "meta" / "info.json").read_text())["vla_edge"]
    assert remarks["attempts"] > 12 and remarks["success_rate"] == pytest.approx(12 / remarks["attempts"])
    assert f"12 episodes of {remarks['attempts']} attempts" in line and remarks["simulated"] is True
    data = read_demonstrations(tmp_path / "data")
    assert data.embodiment == "robosuite_ur5e" and len(data.states) == 12 * 3
    assert data.state_slots == (*range(14), 15) and data.action_slots == (0, 1, 2, 3, 4, 5, 6, *range(29, 35), 36)


def test_interruption_and_processes_change_nothing(tmp_path: Path) -> None:
    record(Scripted, tmp_path / "whole", episodes=10, seed=5)
    with pytest.raises(KeyboardInterrupt):
        record(partial(Scripted, stop_at=9), tmp_path / "halves", episodes=10, seed=5)
    counted = json.loads((tmp_path / "halves" / "meta" / "info.json").read_text())
    assert 0 < counted["total_episodes"] < 10
    record(Scripted, tmp_path / "halves", episodes=10, seed=5)
    record(Scripted, tmp_path / "two", episodes=10, seed=5, jobs=2)
    assert files(tmp_path / "whole") == files(tmp_path / "halves") == files(tmp_path / "two")
    record(Scripted, tmp_path / "whole", episodes=10, seed=5)
    assert files(tmp_path / "whole") == files(tmp_path / "halves"), "nothing is left to do"


def test_another_seed_is_not_mixed_in(tmp_path: Path) -> None:
    record(Scripted, tmp_path, episodes=2, seed=1)
    with pytest.raises(DatasetWriteError, match="begun with seed 1"):
        record(Scripted, tmp_path, episodes=4, seed=2)


def test_an_expert_that_fails_ends_the_recording(tmp_path: Path) -> None:
    with pytest.raises(DatasetWriteError, match="0 of 4 attempts succeeded"):
        record(partial(Scripted, success=0.0), tmp_path, episodes=4, seed=0)


def test_a_hand_that_points_down_keeps_the_sign_of_its_rotation() -> None:
    down = np.array([0.01, 0.9999, 0.0, 0.0])
    trembling = canonical(down) - canonical(-(down * [-1, 1, 1, 1]))
    assert np.abs(trembling).max() < 0.03
