"""The camera `sim:`, which looks at a simulated bench; mujoco is imported when it is opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edge.cameras import CameraError, FrameSource
from edge.registry import missing


@dataclass(frozen=True)
class SimulatedCamera:
    """A camera of the bench in the folder `target`: the scene's first, or the one named."""

    FORM: ClassVar[str] = "sim:?camera=NAME"
    target: str = ""
    camera: str | None = None

    def open(self, frame_px: tuple[int, int], clock_ns: Callable[[], int]) -> FrameSource:
        if not self.target:
            raise CameraError(
                "the camera sim: belongs to a simulated arm; give --bridge sim: or an address of this machine, "
                "or another camera"
            )
        try:
            from edge.sim.render import SimulatedSource
        except ImportError as error:
            raise CameraError(missing("the camera sim:", error)) from None
        return SimulatedSource(Path(self.target), frame_px, self.camera)
