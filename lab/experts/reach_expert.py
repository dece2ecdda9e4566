"""The scripted expert that the demonstrations come from: a smooth reach of the pointer's tip to a goal."""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from edge.sim.scene import ARM_QPOS, DOF

STEP_S = 0.1
"""Length of one policy step: one action, one knot."""
STIFFNESS_1_S = 2.6
VELOCITY_RAD_S = 0.75
ACCELERATION_RAD_S2 = 1.5


class InverseKinematics:
    """Finds the pose that puts the tip at a point with the pointer straight down (damped least squares)."""

    def __init__(self, model: mujoco.MjModel, start_rad: NDArray[np.float64]) -> None:
        self._model, self._data = model, mujoco.MjData(model)
        self._start = np.array(start_rad)
        self._site = model.site("tip").id

    def solve(self, tip_m: NDArray[np.float64], tolerance_m: float = 1e-4) -> NDArray[np.float64]:
        """Joint positions in rad, shape (7,), always searched from the same start so that near goals get near poses."""
        data, jacobian = self._data, np.zeros((6, self._model.nv))
        data.qpos[ARM_QPOS] = self._start
        for _ in range(200):
            mujoco.mj_kinematics(self._model, data)
            mujoco.mj_comPos(self._model, data)
            rotation = data.site_xmat[self._site].reshape(3, 3)
            error = np.concatenate([tip_m - data.site_xpos[self._site], np.cross(rotation[:, 2], [0.0, 0.0, -1.0])])
            if np.linalg.norm(error[:3]) < tolerance_m and np.linalg.norm(error[3:]) < 1e-2:
                return np.array(data.qpos[ARM_QPOS])
            mujoco.mj_jacSite(self._model, data, jacobian[:3], jacobian[3:], self._site)
            j = jacobian[:, :DOF]
            step = j.T @ np.linalg.solve(j @ j.T + 1e-3 * np.eye(6), error)
            data.qpos[ARM_QPOS] += np.clip(step, -0.2, 0.2)
        raise ValueError(f"no pose puts the tip at {tip_m}")

    def tip_m(self, q: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where the tip is at joint positions (7,), shape (3,)."""
        self._data.qpos[ARM_QPOS] = q
        mujoco.mj_kinematics(self._model, self._data)
        return np.array(self._data.site_xpos[self._site])


def next_velocity(
    q: NDArray[np.float64], velocity: NDArray[np.float64], goal: NDArray[np.float64]
) -> NDArray[np.float64]:
    """One step of a critically damped pull towards `goal` with bounded velocity and acceleration, rad/s, shape (7,)."""
    pull = STIFFNESS_1_S**2 * (goal - q) - 2 * STIFFNESS_1_S * velocity
    pull *= min(1.0, ACCELERATION_RAD_S2 / max(float(np.abs(pull).max()), 1e-9))
    faster = velocity + pull * STEP_S
    return faster * min(1.0, VELOCITY_RAD_S / max(float(np.abs(faster).max()), 1e-9))
