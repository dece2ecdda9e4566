"""Holds datasets against LeRobot's own reader and writer. Runs where `lerobot` is installed (0.4.4, 0.6.1), not in CI.

`python tools/lerobot_compat.py read DIR` loads a dataset with LeRobot and compares every row with the files;
`python tools/lerobot_compat.py write DIR` lets LeRobot write the small dataset that the reader's tests use.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lerobot.datasets.lerobot_dataset import LeRobotDataset

JOINTS = ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"]
STEPS, EPISODES, FPS = 24, 3, 30
TASKS = ("put the cube away", "wave")


def frame_of(episode: int, step: int, height: int, width: int) -> np.ndarray:
    """A smooth picture with a bright square that moves: (height, width, 3) uint8."""
    rows, columns = np.mgrid[0:height, 0:width]
    picture = np.stack([rows * 3 + 20 * episode, columns * 3, np.full_like(rows, 90)], axis=-1).astype(np.uint8)
    picture[8 : 8 + height // 4, step : step + width // 4] = (220, 40, 40)
    return picture


def write(folder: Path) -> None:
    """Three episodes of an SO-101 in degrees, the second with two tasks; a video and an image column."""
    names = [f"{joint}.pos" for joint in JOINTS]
    dataset = LeRobotDataset.create(
        "local/golden",
        FPS,
        root=folder,
        robot_type="so101_follower",
        features={
            "observation.state": {"dtype": "float32", "shape": (6,), "names": names},
            "action": {"dtype": "float32", "shape": (6,), "names": names},
            "observation.images.front": {
                "dtype": "video",
                "shape": (48, 64, 3),
                "names": ["height", "width", "channels"],
            },
            "observation.images.wrist": {
                "dtype": "image",
                "shape": (48, 48, 3),
                "names": ["height", "width", "channels"],
            },
        },
    )
    for episode in range(EPISODES):
        for step in range(STEPS):
            command = 30 * np.sin(0.1 * step + episode + np.arange(6))
            dataset.add_frame(
                {
                    "observation.state": (command - 1).astype(np.float32),
                    "action": command.astype(np.float32),
                    "observation.images.front": frame_of(episode, step, 48, 64),
                    "observation.images.wrist": frame_of(episode, step, 48, 48),
                    "task": TASKS[int(episode == 1 and step >= STEPS // 2)],
                }
            )
        dataset.save_episode()
    dataset.finalize()


def read(folder: Path) -> None:
    """Every row that LeRobot returns, against the files themselves."""
    dataset = LeRobotDataset("local/check", root=folder, video_backend="pyav")
    rows = pa.concat_tables([pq.read_table(path) for path in sorted(folder.glob("data/*/*.parquet"))])
    vectors = [key for key, feature in dataset.features.items() if feature["dtype"] in ("float32", "bool")]
    assert len(dataset) == len(rows), f"LeRobot sees {len(dataset)} rows of {len(rows)}"
    if "intervention" in vectors:
        taken: dict[int, int] = {}
        for index in range(len(dataset)):
            number, by = (
                int(rows["episode_index"][index].as_py()),
                bool(np.ravel(rows["intervention"][index].as_py())[0]),
            )
            taken[number] = taken.get(number, 0) + by
        sizes = np.bincount(rows["episode_index"].to_numpy())
        parts = [f"{number}: {by} of {sizes[number]}" for number, by in taken.items() if 0 < by < sizes[number]]
        print(f"by a person: {sum(by == sizes[one] for one, by in taken.items())} whole episodes; parts of {parts}")
    tasks = pq.read_table(folder / "meta" / "tasks.parquet").to_pylist()
    texts = {row.pop("task_index"): str(*row.values()) for row in tasks}
    for index in range(len(dataset)):
        item = dataset[index]
        for key in vectors:
            assert np.array_equal(np.ravel(item[key]), np.ravel(rows[key][index].as_py()).astype(np.float32)), key
        assert item["task"] == texts[rows["task_index"][index].as_py()]
        for key in dataset.meta.camera_keys:
            assert tuple(item[key].shape[1:]) == tuple(dataset.features[key]["shape"][:2])
    print(
        f"{len(dataset)} rows of {dataset.num_episodes} episodes, {vectors} and {dataset.meta.camera_keys}: as written"
    )


if __name__ == "__main__":
    {"read": read, "write": write}[sys.argv[1]](Path(sys.argv[2]))
