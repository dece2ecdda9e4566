"""Small datasets that tests train on and break."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge.datasets import Camera, DatasetSpec, DatasetWriter, Vector

INSTRUCTIONS = ("reach the red cube", "reach the blue cube")
JOINTS = tuple(f"j{joint}" for joint in range(7))
FRONT = "observation.images.front"


def write_dataset(folder: Path, frames: bool = False, robot: str = "fr3", seed: int = 0) -> Path:
    """Two short episodes of a smooth swing of an FR3 at 10 Hz, the second with a change of mind at its middle."""
    rng = np.random.default_rng(seed)
    command = 0.3 * np.sin(0.08 * np.arange(121)[:, None] + rng.uniform(0, 6, 7))
    columns = {"observation.state": command[:-1], "action": np.diff(command, axis=0)}
    spec: dict[str, Vector | Camera] = {name: Vector(JOINTS) for name in columns}
    if frames:
        spec[FRONT] = Camera(128, 128)
        columns[FRONT] = rng.integers(0, 256, (120, 128, 128, 3), dtype=np.uint8)
    with DatasetWriter(folder, DatasetSpec(10, robot, spec)) as writer:
        for told, rows in (([0] * 60, slice(0, 60)), ([1] * 30 + [0] * 30, slice(60, 120))):
            writer.add_episode(
                {name: values[rows] for name, values in columns.items()}, [INSTRUCTIONS[i] for i in told]
            )
    return folder
