"""A recording's images in order: the frames of a video, or the images of a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge.cameras.base import CameraError, CameraLost
from edge.cameras.images import opencv

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png")
IMAGE_FPS = 30.0


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


def check_there(path: Path) -> None:
    """Raises `CameraError` when there is no such recording."""
    if not path.exists():
        raise CameraError(f"{path}: there is no such recording; name a video file or a folder of images")


def open_reel(path: Path) -> Reel:
    """A folder or an image by its name, else a video. Raises `CameraError`."""
    check_there(path)
    return ImageReel(path) if path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES else VideoReel(path)
