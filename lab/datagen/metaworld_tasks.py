"""Meta-World's tasks on its Sawyer, with the experts it ships; attempt k is of task k, modulo their number."""

from __future__ import annotations

from typing import Any

import metaworld
import numpy as np
from metaworld.policies import ENV_POLICY_MAP
from numpy.typing import NDArray

from lab.datagen.rollout import Attempt, canonical

TASKS = tuple(sorted(ENV_POLICY_MAP))
FRAMES, FRAMES_AFTER = 400, 10
"""How long an attempt may take, and how long it goes on after it has succeeded."""


class MetaworldSawyer:
    """Fifty tasks at 80 Hz. The hand is pulled by a mocap weld: its rotation stays as it is."""

    robot = "metaworld_sawyer"
    fps = 80
    joints = tuple(f"right_j{number}_rad" for number in range(7))

    def __init__(self) -> None:
        self._environments: dict[str, Any] = {}

    def attempt(self, rng: np.random.Generator, number: int) -> Attempt:
        task = TASKS[number % len(TASKS)]
        env, policy = self._environment(task), ENV_POLICY_MAP[task]()
        env.seed(int(rng.integers(2**31)))
        seen, _ = env.reset()
        record = Attempt(task.removesuffix("-v3").replace("-", " "))
        after = 0
        for _ in range(FRAMES):
            hand = env.data.body("hand")
            record.pose.append(np.concatenate([env.get_endeff_pos(), canonical(hand.xquat)]))
            record.joints.append(self._joints(env, seen))
            action = np.clip(policy.get_action(seen), -1, 1)
            seen, _, _, truncated, info = env.step(action)
            record.target.append(self._joints(env, seen))
            record.motion.append(np.concatenate([action[:3] * env.action_scale, np.zeros(3), action[3:]]))
            record.success = record.success or bool(info["success"])
            after += record.success
            if after > FRAMES_AFTER or truncated:
                break
        return record

    def _environment(self, task: str) -> Any:
        """One per task, compiled when it is first needed, whose targets are drawn anew at every reset."""
        if task not in self._environments:
            env = metaworld.ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE[f"{task}-goal-observable"](seed=0)
            env.seeded_rand_vec, env._freeze_rand_vec = True, False
            self._environments[task] = env
        return self._environments[task]

    @staticmethod
    def _joints(env: Any, seen: NDArray[Any]) -> NDArray[Any]:
        """Joint positions, and how far the fingers are open, 0 to 1."""
        return np.append(env.data.qpos[:7], seen[3])
