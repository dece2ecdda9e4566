"""robosuite's Lift on six arms: pick up the cube. The expert is ours, scripted."""

from __future__ import annotations

from typing import Any

import numpy as np
import robosuite
from numpy.typing import NDArray

from lab.datagen.rollout import Attempt, canonical

ARMS = ("Panda", "Sawyer", "UR5e", "IIWA", "Kinova3", "XArm7")
HOVER_M, GRASP_M, LIFT_M = 0.10, -0.005, 0.15
NEAR_M, FRAMES, CLOSING_FRAMES = 0.015, 160, 12
GAIN = 10.0
"""From metres of error to the controller's command in -1 to 1."""


class RobosuiteLift:
    """One arm in front of a cube, under robosuite's operational-space controller at 20 Hz."""

    fps = 20

    def __init__(self, arm: str) -> None:
        self._env: Any = robosuite.make(
            "Lift",
            robots=arm,
            has_renderer=False,
            has_offscreen_renderer=False,
            use_camera_obs=False,
            control_freq=self.fps,
            ignore_done=True,
            hard_reset=False,
            seed=0,
        )
        self.robot = f"robosuite_{arm.lower()}"
        self.joints = tuple(
            f"joint{number}_rad" for number in range(1, len(self._env.robots[0]._ref_joint_pos_indexes) + 1)
        )
        controller = self._env.robots[0].part_controllers["right"]
        self._metres, self._radians = float(controller.output_max[0]), float(controller.output_max[3])

    def attempt(self, rng: np.random.Generator, number: int) -> Attempt:
        env = self._env
        env.rng = env.placement_initializer.rng = rng
        for sampler in getattr(env.placement_initializer, "samplers", {}).values():
            sampler.rng = rng
        seen = env.reset()
        record = Attempt("pick up the cube")
        phase, closed = 0, 0
        for _ in range(FRAMES):
            record.pose.append(
                np.concatenate([seen["robot0_eef_pos"], canonical(seen["robot0_eef_quat"][[3, 0, 1, 2]])])
            )
            record.joints.append(self._joints(seen))
            action, phase, closed = expert(seen["robot0_eef_pos"], seen["cube_pos"], phase, closed)
            seen, *_ = env.step(action)
            record.target.append(self._joints(seen))
            scaled = np.concatenate([action[:3] * self._metres, action[3:6] * self._radians, action[6:]])
            record.motion.append(scaled)
            if phase == 3 and env._check_success() and seen["cube_pos"][2] > 0.9:
                record.success = True
                break
        return record

    def _joints(self, seen: dict[str, NDArray[Any]]) -> NDArray[Any]:
        """Joint positions, and the first finger's as the gripper's."""
        robot = self._env.robots[0]
        q = self._env.sim.data.qpos[robot._ref_joint_pos_indexes]
        return np.append(q, seen["robot0_gripper_qpos"][0])


def expert(tip: NDArray[Any], cube: NDArray[Any], phase: int, closed: int) -> tuple[NDArray[Any], int, int]:
    """Over the cube, down, close, up: the action (7,), and what to remember for the next frame."""
    goal = cube + np.array([0.0, 0.0, HOVER_M if phase == 0 else GRASP_M])
    if phase == 3:
        goal = np.array([tip[0], tip[1], cube[2] + LIFT_M])
    if phase < 2 and np.linalg.norm(goal - tip) < NEAR_M:
        phase += 1
    if phase == 2:
        closed += 1
        phase = 3 if closed > CLOSING_FRAMES else 2
    move = np.clip((goal - tip) * GAIN, -1, 1) if phase != 2 else np.zeros(3)
    return np.concatenate([move, np.zeros(3), [1.0 if phase >= 2 else -1.0]]), phase, closed
