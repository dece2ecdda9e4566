"""The simulated bench as one thing: scene, arm, camera, and the judge of whether the task was done."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edge.arms import ArmProfile
from edge.errors import InputError
from edge.log.recorder import Samples
from edge.sim.library import mujoco, save_model
from edge.sim.scenes import REACH, BenchVerdict, open_scene, scene_cameras
from edge.sim.world import MODEL_FILE, WORLD_FILE, WorldReader
from firmware_bridge.codes import DeviceState
from firmware_bridge.simulator import SimulatedArm, SimulatorProcess

WATCH_EVERY_S = 0.02
FOLLOW_EVERY_US = 100_000
"""Of a run's samples, one for each of these is judged."""


class _Bench:
    """A scene in a folder that the camera reads, drawn and judged where the world file says that everything is.

    `task` is the instruction, for a scene that suits it.
    """

    def __init__(self, arm: ArmProfile, scene_seed: int, folder: Path, contacts: bool, task: str) -> None:
        self.scene = open_scene(arm, scene_seed, task)
        self.folder = folder
        if not contacts:
            self.scene.model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONTACT
        save_model(self.scene.model, folder / MODEL_FILE)

    @property
    def world_file(self) -> Path:
        return self.folder / WORLD_FILE

    @property
    def camera_url(self) -> str:
        """The scene's first camera."""
        return f"sim:{self.folder}"

    def camera_urls(self, names: Sequence[str]) -> tuple[str, ...]:
        """Of a policy's cameras those of the scene. Raises `InputError`."""
        return tuple(f"{self.camera_url}?camera={name}" for name in scene_cameras(self.scene, names))

    def verdict(self, task: str, samples: Samples) -> BenchVerdict | None:
        """Judges what is there now, and for the scene's `watch_s` from now on.

        Whether a target was held follows from the run's samples; where the objects were that an arm lifts is in none.
        """
        world = WorldReader(self.world_file)
        track = [world.position()]
        for _ in range(round(self.scene.watch_s / WATCH_EVERY_S)):
            time.sleep(WATCH_EVERY_S)
            track.append(world.position())
        verdict = self.scene.verdict(task, np.array(track))
        moving = samples.state == DeviceState.STREAMING
        if verdict is None or self.scene.task != REACH or not moving.any():
            return verdict
        since = np.arange(int(np.argmax(moving)), len(moving))
        _, first = np.unique(samples.device_us[since] // FOLLOW_EVERY_US, return_index=True)
        rows = since[first]
        return replace(verdict, hold=self.scene.hold(task, samples.device_us[rows] / 1e6, samples.measured_rad[rows]))


class DrawnBench(_Bench):
    """The scene of an arm that is simulated elsewhere, and whose adapter writes `world_file`.

    Objects are seen, and nothing collides with them: there is nothing to lift.
    """

    def __init__(self, arm: ArmProfile, scene_seed: int, folder: Path, contacts: bool = True, task: str = "") -> None:
        super().__init__(arm, scene_seed, folder, contacts, task)
        if self.scene.task != REACH:
            raise InputError(f"the objects that '{arm.name}' could lift exist with --bridge sim: only; use that")


class SimulatedBench(_Bench):
    """Scene and device process together. Without `contacts` the arm passes through objects and table."""

    def __init__(
        self,
        arm: ArmProfile,
        scene_seed: int,
        folder: Path,
        trace: Path | None,
        contacts: bool = True,
        task: str = "",
    ) -> None:
        super().__init__(arm, scene_seed, folder, contacts, task)
        self.process = SimulatorProcess(
            SimulatedArm(arm.name, self.scene.start, folder / MODEL_FILE, trace, self.world_file)
        )

    def close(self) -> None:
        self.process.close()
