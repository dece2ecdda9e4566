"""What the recorders of every task share: the steps of an episode, and the dataset they are written to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge.arms import ArmProfile
from edge.log.dataset import Camera, DatasetSpec, DatasetWriter, Vector
from edge.sim.stage import CAMERA_SIZE_PX
from lab.experts.reach_expert import STEP_S


@dataclass
class Episode:
    """One recorded episode; a row per step: measured positions, increments of the commanded ones over the step that
    follows, the instruction, and a frame of every camera."""

    states: list[NDArray[np.float64]] = field(default_factory=list)
    actions: list[NDArray[np.float64]] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    frames: dict[str, list[NDArray[np.uint8]]] = field(default_factory=dict)


def dataset_spec(arm: ArmProfile, cameras: Sequence[str]) -> DatasetSpec:
    """The columns of `Episode`, with the arm's names and units."""
    axes = list(zip(arm.joints, arm.units))
    columns: dict[str, Vector | Camera] = {
        "observation.state": Vector(tuple(f"{name}.pos_{unit}" for name, unit in axes)),
        "action": Vector(tuple(f"{name}.increment_{unit}" for name, unit in axes)),
    }
    columns |= {f"observation.images.{camera}": Camera(CAMERA_SIZE_PX, CAMERA_SIZE_PX) for camera in cameras}
    return DatasetSpec(fps=round(1 / STEP_S), robot=arm.embodiment, columns=columns)


def write_episode(writer: DatasetWriter, episode: Episode) -> None:
    """Appends one episode, each step under the instruction it was taken for."""
    images = {f"observation.images.{camera}": np.array(frames) for camera, frames in episode.frames.items()}
    moved = {"observation.state": np.array(episode.states), "action": np.array(episode.actions)}
    writer.add_episode({**moved, **images}, episode.tasks)
