"""Offscreen rendering, and the camera that draws the world as the simulated device last published it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.cameras import CameraError, Frame, SourceTraits
from edge.cameras.base import CameraLost
from edge.errors import InputError
from edge.sim.library import mujoco
from edge.sim.robots import DRAWN_GROUP
from edge.sim.stage import CAMERA, CAMERA_SIZE_PX
from edge.sim.world import MODEL_FILE, WORLD_FILE, WorldReader
from firmware_bridge.reading import one_line

OFF = ("disable", "disabled", "off", "false", "0")
"""Of MUJOCO_GL: MuJoCo loads without a renderer."""


class CameraRenderer:
    """Draws what a camera of the scene sees. One per thread that renders; close it to free the GL context.

    Raises `InputError` where nothing can be drawn: no driver, no library, no room.
    """

    def __init__(self, model: mujoco.MjModel, height_px: int = CAMERA_SIZE_PX, width_px: int | None = None) -> None:
        width_px, room = width_px or height_px, model.vis.global_
        room.offheight, room.offwidth = max(room.offheight, height_px), max(room.offwidth, width_px)
        try:
            if (chosen := os.environ["MUJOCO_GL"].strip().lower()) in OFF:
                raise RuntimeError(f"MUJOCO_GL is '{chosen}', as it is where libEGL.so.1 is missing")
            self._renderer = mujoco.Renderer(model, height_px, width_px)
        except (ImportError, RuntimeError, mujoco.FatalError) as error:
            raise InputError(
                f"nothing can be drawn on this machine ({one_line(str(error), 100)}); "
                "install libegl1, libegl-mesa0 and libgl1-mesa-dri, or set MUJOCO_GL to osmesa or glfw"
            ) from None
        self._options = mujoco.MjvOption()
        self._options.geomgroup[:] = 0
        self._options.geomgroup[DRAWN_GROUP] = 1

    def render(self, data: mujoco.MjData, camera: str = CAMERA) -> NDArray[np.uint8]:
        """The image of the current state, uint8, shape (height, width, 3)."""
        self._renderer.update_scene(data, camera=camera, scene_option=self._options)
        flags = self._renderer.scene.flags
        flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        image: NDArray[np.uint8] = self._renderer.render()
        return image

    def close(self) -> None:
        self._renderer.close()


class SimulatedSource:
    """Draws the newest published pose of the arm and the objects, by the scene's first camera or the one named."""

    def __init__(self, folder: Path, frame_px: tuple[int, int], camera: str | None = None) -> None:
        try:
            model = mujoco.MjModel.from_binary_path(str(folder / MODEL_FILE))
        except ValueError as error:
            raise CameraError(f"{folder}: no simulated bench there ({error})") from None
        names = [model.camera(number).name for number in range(model.ncam)]
        self._camera = names[0] if camera is None else camera
        if self._camera not in names:
            raise CameraError(f"the simulated scene has no camera '{camera}'; it has {', '.join(names)}")
        self._model, self._data = model, mujoco.MjData(model)
        self._world = WorldReader(folder / WORLD_FILE)
        try:
            self._renderer = CameraRenderer(model, *frame_px)
        except InputError as error:
            raise CameraError(str(error)) from None
        self._sequence = -1
        self.traits = SourceTraits(
            0,
            False,
            f"the simulated bench at {frame_px[1]}x{frame_px[0]}, drawn on demand",
            "start the simulation again",
        )

    def read(self) -> Frame:
        try:
            position = self._world.position()
        except InputError as error:
            raise CameraLost(str(error)) from None
        captured_ns = time.monotonic_ns()
        self._data.qpos[:] = np.array(position)
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)
        self._sequence += 1
        return Frame(self._renderer.render(self._data, self._camera), captured_ns, self._sequence)

    def close(self) -> None:
        self._renderer.close()
