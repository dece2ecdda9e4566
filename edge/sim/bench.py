"""The simulated bench as one thing: scene, arm, camera, and the judge of whether the target was reached."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from edge.sim.render import CameraRenderer  # first: it chooses the GL backend before mujoco is imported

import mujoco
import numpy as np
from numpy.typing import NDArray

from edge.arms import ArmProfile
from edge.errors import InputError
from edge.sim.scene import ARM_QPOS, DOF, REACHED_M, Placement, build_model, target_of
from edge.sim.world import MODEL_FILE, WORLD_FILE, WorldReader
from firmware_bridge.simulator import SimulatedArm, SimulatorProcess


@dataclass(frozen=True)
class BenchVerdict:
    """How a simulated run ended. `distance_m` is from the pointer's tip to its goal above the named cube."""

    target: str
    distance_m: float
    reached: bool
    tolerance_m: float
    scene_seed: int

    def to_plain(self) -> dict[str, object]:
        return asdict(self)


class Scene:
    """One placement of the cubes, compiled, and the measure of success in it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.placement = Placement.sample(np.random.default_rng(seed))
        self.model = build_model(self.placement)
        self._data = mujoco.MjData(self.model)

    def verdict(self, task: str, position: NDArray[np.float64]) -> BenchVerdict | None:
        """Judges a pose of the arm (the first entries of `position`); None when the task names no single cube."""
        target = target_of(task)
        if target is None:
            return None
        self._data.qpos[ARM_QPOS] = position[:DOF]
        mujoco.mj_kinematics(self.model, self._data)
        distance = float(np.linalg.norm(self._data.site("tip").xpos - self.placement.goal_m(target)))
        return BenchVerdict(target, distance, distance <= REACHED_M, REACHED_M, self.seed)

    def picture(self, position: NDArray[np.float64], size_px: int) -> NDArray[np.uint8]:
        """What the scene's camera sees with the arm at `position`, uint8 (size, size, 3)."""
        self._data.qpos[ARM_QPOS] = position[:DOF]
        mujoco.mj_forward(self.model, self._data)
        renderer = CameraRenderer(self.model, size_px)
        try:
            return renderer.render(self._data)
        finally:
            renderer.close()


class DrawnBench:
    """A scene in a folder that the camera reads, drawn and judged where the arm's world file says that the arm is.

    By itself it belongs to an arm that is simulated elsewhere, and whose adapter writes `world_file`: the cubes are
    seen, and nothing collides with them. Without `contacts` the arm passes through cubes and table.
    """

    def __init__(self, arm: ArmProfile, scene_seed: int, folder: Path, contacts: bool = True) -> None:
        if arm.dof != DOF:
            raise InputError(f"the simulated bench has an FR3; '{arm.name}' has {arm.dof} joints")
        self.scene = Scene(scene_seed)
        self.folder = folder
        if not contacts:
            self.scene.model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONTACT
        mujoco.mj_saveModel(self.scene.model, str(folder / MODEL_FILE))

    @property
    def world_file(self) -> Path:
        return self.folder / WORLD_FILE

    @property
    def camera_url(self) -> str:
        return f"sim:{self.folder}"

    def verdict(self, task: str) -> BenchVerdict | None:
        """Judges where the arm is now."""
        return self.scene.verdict(task, WorldReader(self.world_file).position())


class SimulatedBench(DrawnBench):
    """Scene and device process together."""

    def __init__(
        self, arm: ArmProfile, scene_seed: int, folder: Path, trace: Path | None, contacts: bool = True
    ) -> None:
        super().__init__(arm, scene_seed, folder, contacts)
        self.process = SimulatorProcess(
            SimulatedArm(arm.name, arm.home_rad, folder / MODEL_FILE, trace, self.world_file)
        )

    def close(self) -> None:
        self.process.close()
