"""A recording played at its own rate against the clock: `file:PATH`, a video or a folder of images."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from edge.cameras.base import CameraError, CameraLost, Frame, SourceTraits
from edge.cameras.images import fit, fit_text, needs_opencv
from edge.cameras.reels import check_there, open_reel
from edge.registry import option

FIX = "play the recording with end=loop, or record it again"


@dataclass(frozen=True)
class RecordedCamera:
    """A recording. `fps` None: its own rate (30 for images). `end`: start again there, or give no new frame."""

    FORM: ClassVar[str] = "file:PATH?fps=N&end=loop|hold"
    target: Path
    fps: float | None = option(None, least=0.1)
    end: Literal["loop", "hold"] = "loop"

    def check(self) -> None:
        needs_opencv()
        check_there(self.target)

    def open(self, frame_px: tuple[int, int], clock_ns: Callable[[], int]) -> RecordedSource:
        return RecordedSource(self, frame_px, clock_ns)


class RecordedSource:
    """Gives each image when it is due; images that nobody waited for are passed over. Raises `CameraError`."""

    def __init__(
        self,
        camera: RecordedCamera,
        frame_px: tuple[int, int],
        clock_ns: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        path = camera.target
        self._reel = open_reel(path)
        self._loop, self._frame_px, self._clock_ns, self._sleep = camera.end == "loop", frame_px, clock_ns, sleep
        try:
            text, native_px = self._check_first(path)
        except CameraError:
            self._reel.close()
            raise
        fps = camera.fps or self._reel.fps
        if not 0 < fps < 1000:
            self._reel.close()
            raise CameraError(f"{path}: the recording names no rate; add ?fps=N")
        self._period_ns = round(1e9 / fps)
        self.traits = SourceTraits(self._period_ns, False, f"recorded at {fps:g} fps, {text}", FIX, native_px=native_px)
        self._began_ns = 0
        self._last: Frame | None = None

    def _check_first(self, path: Path) -> tuple[str, tuple[int, int]]:
        try:
            first = self._reel.next()
        except CameraLost as error:
            raise CameraError(f"{error}; name a video file or a folder of images that OpenCV can read") from None
        assert first is not None  # an empty recording has raised
        try:
            fit(first, self._frame_px)
            native_px = (first.shape[0], first.shape[1])
            text = fit_text(native_px, self._frame_px)
        except CameraError as error:
            raise CameraError(f"{path}: {error}") from None
        self._reel.rewind()
        return text, native_px

    def read(self) -> Frame:
        """The image that is due next; past the end of a recording that does not loop, the last one, unchanged."""
        if self._last is None:
            self._began_ns = self._clock_ns()
        passed = (self._clock_ns() - self._began_ns) // self._period_ns
        following = self._last.sequence + 1 if self._last else 0
        due = max(following, passed)
        for _ in range(due - following):
            self._skip()
        due_ns = self._began_ns + due * self._period_ns
        while (ahead_ns := due_ns - self._clock_ns()) > 0:
            self._sleep(ahead_ns / 1e9)
        image = self._next()
        if image is None and self._last is not None:
            self._sleep(self._period_ns / 1e9)
            return self._last
        assert image is not None  # a recording has a first image, or could not be opened
        self._last = Frame(fit(image, self._frame_px), due_ns, due)
        return self._last

    def _skip(self) -> None:
        if not self._reel.skip() and self._loop:
            self._reel.rewind()
            self._reel.skip()

    def _next(self) -> NDArray[np.uint8] | None:
        image = self._reel.next()
        if image is None and self._loop:
            self._reel.rewind()
            image = self._reel.next()
        return image

    def close(self) -> None:
        self._reel.close()
