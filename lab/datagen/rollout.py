"""What every simulator hands over: one attempt of an expert, in the same columns whatever the arm."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge.log.dataset import DatasetSpec, Vector

POSE = ("x_m", "y_m", "z_m", "qw", "qx", "qy", "qz")
MOTION = ("dx_m", "dy_m", "dz_m", "rx_rad", "ry_rad", "rz_rad")


@dataclass
class Attempt:
    """One attempt. Rows are frames; `target` is where the joints and the gripper stand at the end of the frame, or are
    told to stand; `motion` is the commanded change of the end effector's pose, with the gripper's command."""

    task: str
    pose: list[NDArray[Any]] = field(default_factory=list)
    joints: list[NDArray[Any]] = field(default_factory=list)
    target: list[NDArray[Any]] = field(default_factory=list)
    motion: list[NDArray[Any]] = field(default_factory=list)
    success: bool = False

    def columns(self) -> dict[str, NDArray[np.float32]]:
        """As the dataset has them: poses with the gripper last, joints with the gripper last."""
        joints = np.array(self.joints, np.float32)
        return {
            "observation.state": joints,
            "observation.pose": np.column_stack([np.array(self.pose, np.float32), joints[:, -1]]),
            "action": np.array(self.target, np.float32),
            "action.pose": np.array(self.motion, np.float32),
        }


class Simulator(Protocol):
    """One arm with its tasks and its expert."""

    robot: str
    fps: int
    joints: tuple[str, ...]

    def attempt(self, rng: np.random.Generator, number: int) -> Attempt:
        """Plays one. The result depends on `rng` and `number` alone."""
        ...


def dataset_spec(simulator: Simulator) -> DatasetSpec:
    """The columns of `Attempt`, with the arm's names; the gripper is the last joint."""
    joints = (*simulator.joints, "gripper")
    return DatasetSpec(
        fps=simulator.fps,
        robot=simulator.robot,
        columns={
            "observation.state": Vector(joints),
            "observation.pose": Vector((*POSE, "gripper")),
            "action": Vector(joints),
            "action.pose": Vector((*MOTION, "gripper")),
        },
    )


def canonical(quaternion_wxyz: NDArray[Any]) -> NDArray[Any]:
    """The one of the two quaternions of a rotation whose largest element is positive.

    Not the one with w >= 0: a hand that points down has w near 0, and would change sign with every tremor.
    """
    return quaternion_wxyz * np.sign(quaternion_wxyz[np.argmax(np.abs(quaternion_wxyz))])
