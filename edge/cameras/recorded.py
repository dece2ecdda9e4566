"""A recording played at its own rate against the clock: `file:PATH`, a video or a folder of images."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge.cameras.base import CameraError, CameraLost, Frame, SourceTraits
from edge.cameras.images import fit, fit_text, opencv

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png")
IMAGE_FPS = 30.0
CURE = "play the recording with end=loop, or record it again"


@dataclass(frozen=True)
class Playback:
    """`fps` None: the recording's own rate (30 for images). `loop`: start again at the end, else give no new frame."""

    fps: float | None = None
    loop: bool = True


class Reel(Protocol):
    """A recording's images in order, BGR as OpenCV has them."""

    fps: float

    def next(self) -> NDArray[np.uint8] | None:
        """The next image, None at the end. Raises `CameraLost`."""

    def skip(self) -> bool:
        """Passes over an image; False at the end."""

    def rewind(self) -> None:
        """Back to the first image."""

    def close(self) -> None:
        """Frees the file."""


class ImageReel:
    """The images of a folder in the order of their names, or a single one."""

    def __init__(self, path: Path) -> None:
        found = sorted(path.iterdir()) if path.is_dir() else [path]
        self._files = [file for file in found if file.suffix.lower() in IMAGE_SUFFIXES]
        if not self._files:
            raise CameraError(f"{path}: no {', '.join(IMAGE_SUFFIXES)} in this folder; name a video or images")
        self._cv2 = opencv()
        self.fps = IMAGE_FPS
        self._at = 0

    def next(self) -> NDArray[np.uint8] | None:
        if self._at >= len(self._files):
            return None
        file = self._files[self._at]
        image: NDArray[np.uint8] | None = self._cv2.imread(str(file), self._cv2.IMREAD_COLOR)
        if image is None:
            raise CameraLost(f"{file} " + ("is damaged" if file.exists() else "is gone"))
        self._at += 1
        return image

    def skip(self) -> bool:
        self._at += 1
        return self._at <= len(self._files)

    def rewind(self) -> None:
        self._at = 0

    def close(self) -> None:
        pass


class VideoReel:
    """The frames of a video file."""

    def __init__(self, path: Path) -> None:
        cv2 = opencv()
        self._path, self._size = path, path.stat().st_size
        self._open: Callable[[], Any] = lambda: cv2.VideoCapture(str(path))
        self._capture = self._open()
        self.fps = float(self._capture.get(cv2.CAP_PROP_FPS)) if self._capture.isOpened() else 0.0
        self._played = 0

    def next(self) -> NDArray[np.uint8] | None:
        if not self.skip():
            return None
        whole, image = self._capture.retrieve()
        if not whole:
            raise CameraLost(f"{self._path} is damaged")
        found: NDArray[np.uint8] = image
        return found

    def skip(self) -> bool:
        self._check_file()
        if self._capture.grab():
            self._played += 1
            return True
        if not self._played:
            raise CameraLost(f"{self._path} has no frame that can be read")
        return False

    def rewind(self) -> None:
        self._capture.release()  # not every container can seek; every one can be opened again
        self._capture = self._open()
        self._played = 0

    def close(self) -> None:
        self._capture.release()

    def _check_file(self) -> None:
        """An open file that has been deleted, or cut behind what was read ahead, would go on playing."""
        if not self._path.exists():
            raise CameraLost(f"{self._path} is gone")
        if self._path.stat().st_size < self._size:
            raise CameraLost(f"{self._path} was cut short")


class RecordedSource:
    """Gives each image when it is due; images that nobody waited for are passed over. Raises `CameraError`."""

    def __init__(
        self,
        path: Path,
        playback: Playback,
        frame_px: tuple[int, int],
        clock_ns: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not path.exists():
            raise CameraError(f"{path}: there is no such recording; name a video file or a folder of images")
        still = path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES
        self._reel: Reel = ImageReel(path) if still else VideoReel(path)
        self._loop, self._frame_px, self._clock_ns, self._sleep = playback.loop, frame_px, clock_ns, sleep
        try:
            text = self._check_first(path)
        except CameraError:
            self._reel.close()
            raise
        fps = playback.fps or self._reel.fps
        if not 0 < fps < 1000:
            self._reel.close()
            raise CameraError(f"{path}: the recording names no rate; add ?fps=N")
        self._period_ns = round(1e9 / fps)
        self.traits = SourceTraits(self._period_ns, False, f"recorded at {fps:g} fps, {text}", CURE)
        self._began_ns = clock_ns()
        self._last: Frame | None = None

    def _check_first(self, path: Path) -> str:
        try:
            first = self._reel.next()
        except CameraLost as error:
            raise CameraError(f"{error}; name a video file or a folder of images that OpenCV can read") from None
        assert first is not None  # an empty recording has raised
        try:
            fit(first, self._frame_px)
            text = fit_text((first.shape[0], first.shape[1]), self._frame_px)
        except CameraError as error:
            raise CameraError(f"{path}: {error}") from None
        self._reel.rewind()
        return text

    def read(self) -> Frame:
        """The image that is due next; past the end of a recording that does not loop, the last one, unchanged."""
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
