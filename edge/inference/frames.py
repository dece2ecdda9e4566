"""The frames of one observation: of every camera the newest, and for a policy that sees several those of steps ago."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge.cameras import Camera, CameraError, CameraUnhealthy, Frame

LOOKS = 2
"""Times a step that a camera which draws on demand draws, where earlier frames are part of an observation."""
OFF = 0.75
"""Steps that an earlier frame may be from where it should be."""


class FrameHistory:
    """The frames of the last steps of each camera, for a policy that sees `observations` of them, `step_s` apart.

    A `FrameSink`: it is told every frame in the thread that takes it, so that frames are kept while inference computes.
    Each camera has one such thread, and what it leaves is replaced whole.
    """

    def __init__(self, cameras: int, observations: int = 1, step_s: float = 0.0) -> None:
        self.earlier, self.step_ns = observations - 1, round(1e9 * step_s)
        self._kept: list[tuple[Frame, ...]] = [()] * cameras

    def seen(self, camera: int, frame: Frame) -> None:
        """Keeps a frame, and lets go of those that no observation can reach any more."""
        if self.earlier:
            oldest_ns = frame.captured_ns - (self.earlier + 1) * self.step_ns
            self._kept[camera] = (*(one for one in self._kept[camera] if one.captured_ns >= oldest_ns), frame)

    def observed(self, request: int, frames: Sequence[Sequence[Frame]]) -> None:
        """They have been seen already."""

    def before(self, camera: int, newest: Frame) -> list[Frame]:
        """The frames of the steps before `newest`, the oldest first. Raises `CameraUnhealthy` where one is missing."""
        steps = range(self.earlier, 0, -1)
        return [self._nearest(camera, newest.captured_ns - back * self.step_ns) for back in steps]

    def check(self, called: str, period_ns: int) -> None:
        """Raises `CameraError` for a camera that is too slow to have given a frame a step ago."""
        if self.earlier and period_ns > (1 + OFF) * self.step_ns:
            raise CameraError(
                f"camera {called} gives {1e9 / period_ns:.3g} frames a second, and this policy sees frames that are "
                f"{self.step_ns / 1e6:.0f} ms apart; set it to {1e9 / self.step_ns:.3g} or more (fps=N)"
            )

    def _nearest(self, camera: int, at_ns: int) -> Frame:
        def off_ns(frame: Frame) -> int:
            return abs(frame.captured_ns - at_ns)

        frame = min(self._kept[camera], key=off_ns, default=None)
        if frame is None or off_ns(frame) > OFF * self.step_ns:
            raise CameraUnhealthy("there is no frame of the step before yet, which this policy sees; wait a step")
        return frame


class Frames:
    """The cameras of a policy, with the `history` that is told their frames; none where the newest alone count.

    Who draws on demand has no thread: whoever has time calls `look` in between.
    """

    def __init__(self, cameras: Sequence[Camera], history: FrameHistory | None = None) -> None:
        self._cameras, self._history = cameras, history or FrameHistory(len(cameras))
        drawn = [camera for camera in cameras if getattr(camera, "on_demand", False)]
        self._drawn = drawn if self._history.earlier else []
        self._looked_ns: int | None = None
        self.observed: list[list[Frame]] = []
        """Of each camera the frames of the last observation, the newest last."""

    def look(self, now_ns: int) -> None:
        """Has frames drawn that a later observation may need, if it is time."""
        if self._drawn and (self._looked_ns is None or now_ns - self._looked_ns >= self._history.step_ns / LOOKS):
            self._looked_ns = now_ns
            try:
                for camera in self._drawn:
                    camera.grab()
            except CameraUnhealthy:
                return  # an observation says so

    @property
    def period_s(self) -> float:
        """Time between two looks; 0 where the newest alone count."""
        return self._history.step_ns / LOOKS / 1e9 if self._history.earlier else 0.0

    def observe(self) -> tuple[list[NDArray[np.uint8]], int]:
        """Of each camera uint8 (height, width, 3), or (observations, height, width, 3) with the newest last; and when
        the oldest of the newest was captured, ns, 0 without a camera. Raises `CameraUnhealthy`."""
        newest = [camera.grab() for camera in self._cameras]
        captured_ns = min((frame.captured_ns for frame in newest), default=0)
        self.observed = [[*self._history.before(number, frame), frame] for number, frame in enumerate(newest)]
        if not self._history.earlier:
            return [frame.image for frame in newest], captured_ns
        return [np.stack([frame.image for frame in seen]) for seen in self.observed], captured_ns
