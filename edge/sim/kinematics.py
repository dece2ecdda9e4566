"""Kinematics of the arms that lift: where the tool is, and the joint positions that put it somewhere."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edge.sim.library import mujoco
from edge.sim.lift import Layout
from edge.sim.robots import TOOL

FloatArray = NDArray[np.float64]
SEARCH_STEPS = 200
DOWN = np.diag([1.0, -1.0, -1.0])
"""The hand of an FR3 points down, and its fingers close along y."""


class ToolKinematics:
    """Where the tool is, and the posture that puts it somewhere, pointing down.

    With six joints for the purpose an FR3 also keeps the direction of its hand. An arm with four turns with its base
    and cannot point straight down everywhere: it tilts outwards by `Layout.tilt_rad`, more the higher the tool is.
    """

    def __init__(self, model: mujoco.MjModel, layout: Layout) -> None:
        self._model, self._data = model, mujoco.MjData(model)
        self._home, self._moving, self._tilt = np.array(layout.home_rad), list(layout.moving), layout.tilt_rad
        self._whole = len(layout.moving) == 6
        self._site = model.site(TOOL).id
        joints = [int(model.actuator_trnid[axis, 0]) for axis in range(len(layout.home_rad))]
        self._positions = [int(model.jnt_qposadr[joint]) for joint in joints]
        self._speeds = [int(model.jnt_dofadr[joints[axis]]) for axis in self._moving]
        self._wrist, self._wrist_speed = len(joints) - 1, int(model.jnt_dofadr[joints[-1]])

    def tool_m(self, q: FloatArray) -> FloatArray:
        """Place of the tool, shape (3,), with the arm's joints (the axes without the gripper) at `q`."""
        self._pose(q)
        return np.array(self._data.site_xpos[self._site])

    def _pose(self, q: FloatArray) -> None:
        self._data.qpos[self._positions] = q
        mujoco.mj_kinematics(self._model, self._data)

    def posture(self, tool_m: FloatArray, tolerance: float = 1e-6, along_rad: float | None = None) -> FloatArray:
        """Joint positions for a place of the tool, always searched from home so that near places get near postures.

        `tolerance` is in metres and radians; what is left of the error would shake the joints. With `along_rad` an
        arm that tilts turns its wrist too: the jaws close across that direction in the table's plane. Raises
        `ValueError` for a place out of reach.
        """
        q, jacobian = np.array(self._home), np.zeros((6, self._model.nv))
        moving, speeds = self._moving, self._speeds
        if along_rad is not None:
            moving, speeds = [*moving, self._wrist], [*speeds, self._wrist_speed]
        for _ in range(SEARCH_STEPS):
            self._pose(q)
            mujoco.mj_comPos(self._model, self._data)
            axes, missing = self._turn()
            if along_rad is not None:
                axes, missing = np.vstack([axes, self._tool_axis()]), np.append(missing, self._roll(along_rad))
            error = np.concatenate([tool_m - self._data.site_xpos[self._site], missing])
            if np.linalg.norm(error) < tolerance:
                return q
            mujoco.mj_jacSite(self._model, self._data, jacobian[:3], jacobian[3:], self._site)
            j = np.vstack([jacobian[:3, speeds], axes @ jacobian[3:, speeds]])
            q[moving] += np.clip(j.T @ np.linalg.solve(j @ j.T + 1e-8 * np.eye(len(j)), error), -0.2, 0.2)
        raise ValueError(f"no posture puts the tool at {tool_m}")

    def _tool_axis(self) -> FloatArray:
        return np.array(self._data.site_xmat[self._site].reshape(3, 3)[:, 2])

    def _roll(self, along_rad: float) -> float:
        """The rotation about the tool's axis that is missing for the jaws to close across a direction."""
        axes = self._data.site_xmat[self._site].reshape(3, 3)
        across = np.array([-math.sin(along_rad), math.cos(along_rad), 0.0])
        return math.atan2(across @ axes[:, 1], across @ axes[:, 0])

    def _turn(self) -> tuple[FloatArray, FloatArray]:
        """Axes about which the direction of the tool matters, (n, 3), and the small rotations missing about them."""
        axes = self._data.site_xmat[self._site].reshape(3, 3)
        if self._whole:
            m = DOWN @ axes.T
            return np.eye(3), 0.5 * np.array([m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]])
        sine = max(math.hypot(axes[0, 2], axes[1, 2]), 1e-6)
        wanted = self._tilt[0] + self._tilt[1] * float(self._data.site_xpos[self._site][2])
        missing = math.atan2(sine, -axes[2, 2]) - wanted
        return np.array([[-axes[1, 2] / sine, axes[0, 2] / sine, 0.0]]), np.array([missing])
