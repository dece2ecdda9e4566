"""The writer: what it puts on disk, what it refuses, and that it is whole at any time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from edge.log.dataset import Camera, DatasetSpec, DatasetWriter, Vector
from edge.log.dataset.spec import DatasetWriteError
from edge.log.dataset.statistics import column_statistics, merged

FRONT, WRIST = "observation.images.front", "observation.images.wrist"
SPEC = DatasetSpec(
    fps=10,
    robot="fr3",
    columns={"observation.state": Vector(("a_rad", "b_rad")), "action": Vector(("a_rad",)), FRONT: Camera(32, 48)},
)


def episode(number: int, steps: int = 7) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(number)
    rows, columns = np.mgrid[0:32, 0:48]
    picture = np.stack([rows * 4, columns * 4, np.full_like(rows, 10 * number)], axis=-1).astype(np.uint8)
    return {
        "observation.state": rng.normal(size=(steps, 2)),
        "action": rng.normal(size=(steps, 1)),
        FRONT: np.stack([np.roll(picture, step, axis=1) for step in range(steps)]),
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_dataset_has_the_layout_of_lerobot_v3(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path, SPEC, episodes_per_part=2) as writer:
        writer.remarks = {"seed": 3}
        for number in range(3):
            writer.add_episode(episode(number), ["reach"] * 4 + ["stop"] * 3)
    info = json.loads((tmp_path / "meta" / "info.json").read_text())
    assert (info["codebase_version"], info["total_episodes"], info["total_frames"]) == ("v3.0", 3, 21)
    assert info["features"]["observation.state"] == {"dtype": "float32", "shape": [2], "names": ["a_rad", "b_rad"]}
    assert info["vla_edge"] == {"seed": 3, "parts": 2}
    rows = pq.read_table(tmp_path / "data" / "chunk-000" / "file-001.parquet").to_pydict()
    assert rows["episode_index"] == [2] * 7 and rows["index"] == list(range(14, 21))
    assert rows["task_index"] == [0] * 4 + [1] * 3 and rows["frame_index"] == list(range(7))
    assert rows["timestamp"] == pytest.approx(np.arange(7) / 10)
    assert np.allclose(rows["observation.state"], episode(2)["observation.state"])
    described = pq.read_table(tmp_path / "meta" / "episodes" / "chunk-000" / "file-000.parquet").to_pylist()
    assert [row["dataset_from_index"] for row in described] == [0, 7]
    assert described[1][f"videos/{FRONT}/from_timestamp"] == pytest.approx(0.7)
    assert described[1]["tasks"] == ["reach", "stop"]
    tasks = pq.read_table(tmp_path / "meta" / "tasks.parquet").to_pydict()
    assert tasks == {"task_index": [0, 1], "__index_level_0__": ["reach", "stop"]}


def test_statistics_are_those_of_all_rows(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path, SPEC, episodes_per_part=2) as writer:
        for number in range(3):
            writer.add_episode(episode(number, steps=5 + number), "reach")
    found = json.loads((tmp_path / "meta" / "stats.json").read_text())["observation.state"]
    values = np.concatenate([episode(number, steps=5 + number)["observation.state"] for number in range(3)])
    assert found["count"] == [18]
    for name, wanted in (("mean", values.mean(0)), ("std", values.std(0)), ("max", values.max(0))):
        assert found[name] == pytest.approx(wanted)
    one, other = column_statistics(values[:4]), column_statistics(values[4:])
    assert merged(one, other)["std"] == pytest.approx(values.std(0))


def test_an_interrupted_recording_ends_up_the_same(tmp_path: Path) -> None:
    """Killed after a video was begun, and after rows were written that info.json does not count."""
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    with DatasetWriter(whole, SPEC, episodes_per_part=2) as writer:
        for number in range(5):
            writer.add_episode(episode(number), f"task {number}")

    writer = DatasetWriter(halves, SPEC, episodes_per_part=2)
    for number in range(3):
        writer.add_episode(episode(number), f"task {number}")
    counted = (halves / "meta" / "info.json").read_bytes()
    writer.add_episode(episode(3), "task 3")
    (halves / "meta" / "info.json").write_bytes(counted)  # killed before info.json was replaced
    writer._lock.close()

    with DatasetWriter(halves, SPEC, episodes_per_part=2) as writer:
        assert (writer.episodes, writer.frames) == (2, 14)
        for number in range(writer.episodes, 5):
            writer.add_episode(episode(number), f"task {number}")
    assert contents(whole) == contents(halves)


def test_an_error_leaves_no_unfinished_part(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), DatasetWriter(tmp_path, SPEC) as writer:
        writer.add_episode(episode(0), "reach")
        raise RuntimeError
    assert [name for name in contents(tmp_path) if name != ".lock"] == []


def test_two_writers_do_not_share_a_folder(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path, SPEC), pytest.raises(DatasetWriteError, match="another process is writing"):
        DatasetWriter(tmp_path, SPEC)


def test_another_dataset_is_not_appended_to(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path, SPEC) as writer:
        writer.continues({"seed": 1})
        writer.add_episode(episode(0), "reach")
    with pytest.raises(DatasetWriteError, match="another rate, robot or columns"):
        DatasetWriter(tmp_path, DatasetSpec(20, "fr3", SPEC.columns))
    with DatasetWriter(tmp_path, SPEC) as writer, pytest.raises(DatasetWriteError, match="begun with seed 1"):
        writer.continues({"seed": 2})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda columns: columns.pop("action"), "the dataset has"),
        (lambda columns: columns["action"].__setitem__((3, 0), np.nan), "action is not finite in step 3"),
        (lambda columns: columns.update(action=columns["action"][:5]), r"action is float64 \(5, 1\)"),
        (lambda columns: columns.update({FRONT: columns[FRONT][:, :16]}), r"uint8 \(7, 16, 48, 3\)"),
        (lambda columns: columns.update({FRONT: columns[FRONT] / 255}), "float64"),
    ],
)
def test_a_broken_episode_is_refused(tmp_path: Path, spoil: object, message: str) -> None:
    columns = episode(0)
    spoil(columns)  # type: ignore[operator]
    with pytest.raises(DatasetWriteError, match=message), DatasetWriter(tmp_path, SPEC) as writer:
        writer.add_episode(columns, ["reach"] * 7)
