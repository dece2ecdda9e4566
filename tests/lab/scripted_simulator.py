"""A simulator that is none, light to import: worker processes start with it."""

from __future__ import annotations

import numpy as np

from lab.datagen.rollout import Attempt


class Scripted:
    """Six frames of noise on a "UR5e"; three of four attempts succeed, by their seed."""

    robot, fps = "robosuite_ur5e", 20
    joints = tuple(f"joint{number}_rad" for number in range(1, 7))

    def __init__(self, success: float = 0.75, stop_at: int | None = None) -> None:
        self.success, self.stop_at = success, stop_at

    def attempt(self, rng: np.random.Generator, number: int) -> Attempt:
        if number == self.stop_at:
            raise KeyboardInterrupt
        done = Attempt("pick up the cube")
        for _ in range(6):
            for rows, width in ((done.pose, 7), (done.joints, 7), (done.target, 7), (done.motion, 7)):
                rows.append(rng.normal(size=width))
        done.success = bool(rng.random() < self.success)
        return done
