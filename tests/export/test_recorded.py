"""INT8 of a LeRobot folder: calibrated on some episodes of a dataset, judged by the others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from edge.log.dataset import Camera, DatasetSpec, DatasetWriter, Vector
from export.commands.export import main
from export.engines.recorded import recorded_observations
from export.families.base import CheckpointError
from tests.export.families.lerobot_engines import FOLDERS, read_fixture

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
CENTRE = np.array([6.6, -56.3, 43.2, 56.2, 90.0, 48.2])


def recorded(folder: Path, size: int = 64) -> Path:
    """Four episodes of twelve rows; a row's pictures and state say which it is."""
    names = Vector(tuple(f"{joint}.pos" for joint in JOINTS))
    eyes = {f"observation.images.{name}": Camera(size, size) for name in ("front", "wrist")}
    spec = {"observation.state": names, "action": names, **eyes}
    with DatasetWriter(folder, DatasetSpec(15, "so101", spec), episodes_per_part=2) as writer:
        for episode in range(4):
            states = CENTRE + 5 * episode + 0.1 * np.arange(12)[:, None]
            grey = np.arange(12, dtype=np.uint8)[:, None, None, None] * 12 + 20 * episode
            frames = np.broadcast_to(grey, (12, size, size, 3))
            writer.add_episode({"observation.state": states, "action": states, **dict.fromkeys(eyes, frames)}, "wave")
    return folder


def test_observations_are_rows_of_different_episodes(tmp_path: Path) -> None:
    samples = recorded_observations(read_fixture("smolvla_waving"), recorded(tmp_path / "data"), 9, 5, 0)
    assert (len(samples.calibration), len(samples.verification)) == (9, 5)

    def place(values: dict[str, torch.Tensor]) -> tuple[int, int]:
        offset = float(values["backbone.state"][0]) - CENTRE[0]
        episode = int((offset + 0.05) // 5)
        return episode, round((offset - 5 * episode) / 0.1)

    for values in (*samples.calibration, *samples.verification):
        episode, row = place(values)
        grey = values["backbone.frame_front"].float().mean()
        assert abs(float(grey) - (12 * row + 20 * episode)) < 3 and values["backbone.token_mask"].any()
    assert {place(values)[0] for values in samples.calibration} <= {0, 1, 2}
    assert {place(values)[0] for values in samples.verification} == {3}


@pytest.mark.long
def test_int8_is_exported_from_a_folder_and_its_dataset(tmp_path: Path) -> None:
    folder, data, out = FOLDERS / "act_waving", recorded(tmp_path / "data"), tmp_path / "bundle"
    given = ["--dataset", str(data), "--observations", str(data)]
    assert main([str(folder), "-o", str(out), "--precision", "int8", "--samples", "4", *given]) == 0
    report = json.loads((out / "verification.json").read_text())
    assert report["passed"] and report["observations"] == "recorded, data" and report["calibration_samples"] == 36


def test_a_dataset_of_another_camera_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="front' has 32 x 32 x 3 numbers"):
        recorded_observations(read_fixture("smolvla_waving"), recorded(tmp_path / "data", 32), 4, 4, 0)
    with pytest.raises(CheckpointError, match="no pictures of camera 'top'"):
        recorded_observations(read_fixture("smolvla_variant"), recorded(tmp_path / "other"), 4, 4, 0)
