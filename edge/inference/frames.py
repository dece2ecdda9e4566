"""The frames of one observation: of every camera the newest, and for a policy that sees several those of steps ago."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge.cameras import Camera, CameraUnhealthy, Frame

LOOKS = 4
"""Times a step that frames are kept, where earlier ones are part of an observation."""
OFF = 0.75
"""Steps that an earlier frame may be from where it should be."""


class Frames:
    """`observations` frames of each camera, `step_ns` apart. Whoever has time calls `look` in between."""

    def __init__(self, cameras: Sequence[Camera], observations: int = 1, step_ns: int = 0) -> None:
        self._cameras, self._earlier, self._step_ns = cameras, observations - 1, step_ns
        self._kept: deque[list[Frame]] = deque(maxlen=LOOKS * (observations + 1))
        self._looked_ns: int | None = None
        self.observed: list[list[Frame]] = []
        """Of each camera the frames of the last observation, the newest last."""

    def look(self, now_ns: int) -> None:
        """Keeps a frame of each camera, if it is time; nothing where the newest alone count."""
        due = self._looked_ns is None or now_ns - self._looked_ns >= self._step_ns / LOOKS
        if self._earlier and self._cameras and due:
            self._looked_ns = now_ns
            try:
                self._kept.append([camera.grab() for camera in self._cameras])
            except CameraUnhealthy:
                return  # an observation says so

    @property
    def period_s(self) -> float:
        """Time between two looks; 0 where the newest alone count."""
        return self._step_ns / LOOKS / 1e9 if self._earlier else 0.0

    def observe(self) -> tuple[list[NDArray[np.uint8]], int]:
        """Of each camera uint8 (height, width, 3), or (observations, height, width, 3) with the newest last; and when
        the oldest of the newest was captured, ns, 0 without a camera. Raises `CameraUnhealthy`."""
        newest = [camera.grab() for camera in self._cameras]
        captured_ns = min((frame.captured_ns for frame in newest), default=0)
        if not self._earlier:
            self.observed = [[frame] for frame in newest]
            return [frame.image for frame in newest], captured_ns
        self._kept.append(newest)
        rows = [
            [self._nearest(number, frame.captured_ns - back * self._step_ns) for number, frame in enumerate(newest)]
            for back in range(self._earlier, 0, -1)
        ]
        self.observed = [list(seen) for seen in zip(*rows, newest)]
        return [np.stack([frame.image for frame in seen]) for seen in self.observed], captured_ns

    def _nearest(self, camera: int, at_ns: int) -> Frame:
        frame = min((looks[camera] for looks in self._kept), key=lambda one: abs(one.captured_ns - at_ns))
        if abs(frame.captured_ns - at_ns) > OFF * self._step_ns:
            raise CameraUnhealthy("there is no frame of the step before yet, which this policy sees; wait a step")
        return frame
