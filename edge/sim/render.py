"""Offscreen rendering of the simulated camera."""

from __future__ import annotations

import os

os.environ.setdefault("MUJOCO_GL", "egl")  # read by mujoco at import; a robot or a server has no display

import mujoco
import numpy as np
from numpy.typing import NDArray

from edge.sim.robots import DRAWN_GROUP
from edge.sim.stage import CAMERA, CAMERA_SIZE_PX


class CameraRenderer:
    """Draws what a camera of the scene sees. One per thread that renders; close it to free the GL context."""

    def __init__(self, model: mujoco.MjModel, size_px: int = CAMERA_SIZE_PX) -> None:
        self._renderer = mujoco.Renderer(model, size_px, size_px)
        self._options = mujoco.MjvOption()
        self._options.geomgroup[:] = 0
        self._options.geomgroup[DRAWN_GROUP] = 1

    def render(self, data: mujoco.MjData, camera: str = CAMERA) -> NDArray[np.uint8]:
        """The image of the current state, uint8, shape (size, size, 3)."""
        self._renderer.update_scene(data, camera=camera, scene_option=self._options)
        flags = self._renderer.scene.flags
        flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        image: NDArray[np.uint8] = self._renderer.render()
        return image

    def close(self) -> None:
        self._renderer.close()
