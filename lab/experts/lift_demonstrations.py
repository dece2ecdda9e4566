"""Writes demonstrations of the lifting task as a LeRobot v3 dataset; `lab.experts.lift_recorder` plays them."""

from __future__ import annotations

from pathlib import Path

from lab.experts.lift_recorder import LiftEpisode, LiftRecorder, succeeded  # first: it chooses the GL backend

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from edge.arms import ArmProfile
from edge.log.dataset import Camera, DatasetSpec, DatasetWriter, Vector
from lab.experts.reach_expert import STEP_S
from edge.sim.lift import WRIST_CAMERA
from edge.sim.stage import CAMERA, CAMERA_SIZE_PX

EPISODES_PER_PART = 50


def lift_spec(arm: ArmProfile, with_frames: bool) -> DatasetSpec:
    """Measured positions, increments of the commanded ones over the step that follows, and both cameras."""
    axes = list(zip(arm.joints, arm.units))
    columns: dict[str, Vector | Camera] = {
        "observation.state": Vector(tuple(f"{name}.pos_{unit}" for name, unit in axes)),
        "action": Vector(tuple(f"{name}.increment_{unit}" for name, unit in axes)),
    }
    if with_frames:
        for camera in (CAMERA, WRIST_CAMERA):
            columns[f"observation.images.{camera}"] = Camera(CAMERA_SIZE_PX, CAMERA_SIZE_PX)
    return DatasetSpec(fps=round(1 / STEP_S), robot=arm.embodiment, columns=columns)


def write_lift_episode(writer: DatasetWriter, episode: LiftEpisode) -> None:
    """Appends one episode, each step under the instruction it was taken for."""
    columns: dict[str, NDArray[np.floating] | NDArray[np.uint8]] = {
        "observation.state": np.array(episode.states),
        "action": np.array(episode.actions),
    }
    for camera, frames in episode.frames.items():
        columns[f"observation.images.{camera}"] = np.array(frames)
    writer.add_episode(columns, episode.tasks)


def record_lift(arm: ArmProfile, episodes: int, seed: int, out: Path, with_frames: bool) -> None:
    """Records until the dataset in `out` has so many episodes; goes on where an interrupted run was.

    What the dataset says of itself counts the expert's attempts, so that its failures are not hidden.
    """
    recorder = LiftRecorder(arm, with_frames)
    with DatasetWriter(out, lift_spec(arm, with_frames), episodes_per_part=EPISODES_PER_PART) as writer:
        writer.continues({"seed": seed, "simulated": True, "source": "lab.experts.demonstrations --task lift"})
        writer.remarks.setdefault("attempts", 0)
        for number in tqdm(range(writer.episodes, episodes), unit="episode", disable=None):
            episode, attempts = succeeded(recorder, seed, number)
            writer.remarks["attempts"] += attempts
            write_lift_episode(writer, episode)
    recorder.close()
