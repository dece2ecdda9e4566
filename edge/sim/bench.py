"""The simulated bench as one thing: scene, device process, camera, and the judge of whether the task was done."""

from __future__ import annotations

import time
from pathlib import Path

from edge.sim.scenes import BenchVerdict, open_scene  # first: it chooses the GL backend before mujoco is imported

import mujoco
import numpy as np

from edge.arms import ArmProfile
from edge.sim.world import MODEL_FILE, WORLD_FILE, WorldReader
from firmware_bridge.simulator import SimulatedArm, SimulatorProcess

WATCH_EVERY_S = 0.02


class SimulatedBench:
    """Scene and device process together, in a folder that the camera reads.

    `task` is the instruction, for a scene that suits it. Without `contacts` the arm passes through objects and table.
    """

    def __init__(
        self,
        arm: ArmProfile,
        scene_seed: int,
        folder: Path,
        trace: Path | None,
        contacts: bool = True,
        task: str = "",
    ) -> None:
        self.scene = open_scene(arm, scene_seed, task)
        self.folder = folder
        if not contacts:
            self.scene.model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONTACT
        mujoco.mj_saveModel(self.scene.model, str(folder / MODEL_FILE))
        self.process = SimulatorProcess(
            SimulatedArm(arm.name, self.scene.start, folder / MODEL_FILE, trace, folder / WORLD_FILE)
        )
        self._world = WorldReader(folder / WORLD_FILE)

    @property
    def camera_url(self) -> str:
        """The scene's first camera."""
        return f"sim:{self.folder}"

    def camera_urls(self, count: int) -> tuple[str, ...]:
        """The first `count` cameras of the scene, or as many as it has."""
        return tuple(f"{self.camera_url}?camera={name}" for name in self.scene.cameras[:count])

    def verdict(self, task: str) -> BenchVerdict | None:
        """Judges what is there now, and for the scene's `watch_s` from now on."""
        track = [self._world.position()]
        for _ in range(round(self.scene.watch_s / WATCH_EVERY_S)):
            time.sleep(WATCH_EVERY_S)
            track.append(self._world.position())
        return self.scene.verdict(task, np.array(track))

    def close(self) -> None:
        self.process.close()
