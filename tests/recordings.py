"""Small datasets that tests train on and break."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge.arms import load_arm
from edge.log.dataset import Camera, DatasetSpec, DatasetWriter, Vector

INSTRUCTIONS = ("reach the red cube", "reach the blue cube")
JOINTS = tuple(f"j{joint}" for joint in range(7))
FRONT = "observation.images.front"


def write_dataset(folder: Path, frames: int = 0, episodes: int = 2, robot: str = "fr3", seed: int = 0) -> Path:
    """Short episodes of a swing of an FR3 about its home pose at 10 Hz, every second one with a change of mind midway.

    60 steps each, with noise of `frames` pixels as pictures.
    """
    rng = np.random.default_rng(seed)
    command = 0.3 * np.sin(0.08 * np.arange(60 * episodes + 1)[:, None] + rng.uniform(0, 6, 7))
    columns = {"observation.state": command[:-1] + load_arm("franka").home_rad, "action": np.diff(command, axis=0)}
    spec: dict[str, Vector | Camera] = {name: Vector(JOINTS) for name in columns}
    if frames:
        spec[FRONT] = Camera(frames, frames)
        columns[FRONT] = rng.integers(0, 256, (60 * episodes, frames, frames, 3), dtype=np.uint8)
    with DatasetWriter(folder, DatasetSpec(10, robot, spec)) as writer:
        for episode in range(episodes):
            told = [0] * 60 if episode % 2 == 0 else [1] * 30 + [0] * 30
            rows = slice(60 * episode, 60 * (episode + 1))
            writer.add_episode(
                {name: values[rows] for name, values in columns.items()}, [INSTRUCTIONS[i] for i in told]
            )
    return folder
