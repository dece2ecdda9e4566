"""SO-101 pick and place, with the expert that comes with the environment."""

from __future__ import annotations

from typing import Any

import numpy as np
from lerobot_env_so101.pick_place_env import SO101PickPlaceGymEnv
from lerobot_env_so101.scripted import PickPlaceController
from numpy.typing import NDArray

from lab.datagen.rollout import Attempt, canonical

ACTION_SCALE_M = 0.025
"""Metres per unit of action, the scale the environment's own expert is written for."""
FRAMES = 200
JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll")


class So101PickPlace:
    """A 5-joint arm at 10 Hz. The joints' targets are the servos' commands."""

    robot = "so101_simulated"
    fps = 10
    joints = tuple(f"{joint}_rad" for joint in JOINTS)

    def __init__(self) -> None:
        self._env = SO101PickPlaceGymEnv(random_block_position=True, action_scale=ACTION_SCALE_M)
        model = self._env.model
        names = (*JOINTS, "gripper")
        self._qpos = [int(model.joint(name).qposadr[0]) for name in names]
        self._ctrl = [int(model.actuator(name).id) for name in names]

    def attempt(self, rng: np.random.Generator, number: int) -> Attempt:
        env: Any = self._env
        env.reset(seed=int(rng.integers(2**31)))
        expert = PickPlaceController(ACTION_SCALE_M)
        record = Attempt("put the cube on the goal")
        for _ in range(FRAMES):
            record.pose.append(self._pose())
            record.joints.append(env.data.qpos[self._qpos].copy())
            action = expert.act(env.ik_point_pos, env.data.sensor("block_pos").data, env.goal_pos)
            _, _, ended, _, info = env.step(action)
            record.target.append(env.data.ctrl[self._ctrl].copy())
            record.motion.append(np.concatenate([action[:3] * ACTION_SCALE_M, np.zeros(3), action[3:]]))
            record.success = record.success or bool(info["succeed"])
            if ended:
                break
        return record

    def _pose(self) -> NDArray[Any]:
        """The grasp point between the jaws, and the gripper's rotation."""
        return np.concatenate([self._env.ik_point_pos, canonical(self._env.data.body("gripper").xquat)])
