"""A camera of the Linux kernel, through OpenCV: `v4l2:/dev/v4l/by-id/NAME?size=640x480&fps=30&fourcc=MJPG`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from edge.cameras.base import CameraError, CameraLost, Frame, SourceTraits
from edge.cameras.identity import identity_of, lasting_name
from edge.cameras.images import fit, fit_text, needs_opencv, opencv
from edge.registry import option

FIX = "check its cable and its other users (fuser -v /dev/video*)"
OLDEST_STAMP_NS = 1_000_000_000


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise ValueError("write WIDTHxHEIGHT, as in size=640x480")
    return int(height), int(width)


def _fourcc(text: str) -> str:
    if not (len(text) == 4 and text.isascii()):
        raise ValueError("write four characters, as in fourcc=MJPG")
    return text


@dataclass(frozen=True)
class V4l2Camera:
    """A device and the mode requested of its driver; None leaves the driver's own choice."""

    FORM: ClassVar[str] = "v4l2:/dev/videoN?size=WxH&fps=N&fourcc=ABCD"
    target: Path
    size_px: tuple[int, int] | None = option(None, name="size", read=_size)
    fps: float | None = option(None, least=1)
    fourcc: str | None = option(None, read=_fourcc)

    def check(self) -> None:
        needs_opencv()
        _check_node(self.target)

    def open(self, frame_px: tuple[int, int], clock_ns: Callable[[], int]) -> V4l2Source:
        return V4l2Source(self, frame_px, clock_ns)


def capture_time(stamp_ms: float, read_ns: int) -> tuple[int, bool]:
    """When a frame that was read at `read_ns` was captured, and whether the driver said so.

    `stamp_ms` is the driver's own time. It counts only where it can be one of the monotonic clock: not after the
    reading and less than a second before it. A driver that stamps with the time of day, or with nothing, is far off.
    """
    stamp_ns = round(stamp_ms * 1e6)
    if 0 <= read_ns - stamp_ns < OLDEST_STAMP_NS:
        return stamp_ns, True
    return read_ns, False


class V4l2Source:
    """Frames of one V4L2 device. Raises `CameraError` when it cannot be opened as requested."""

    def __init__(
        self, camera: V4l2Camera, frame_px: tuple[int, int], clock_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        device = camera.target
        self._cv2 = opencv()
        self._device, self._frame_px, self._clock_ns = device, frame_px, clock_ns
        self._capture = _open(self._cv2, device)
        try:
            found = _set_mode(self._cv2, self._capture, camera)
            self._sequence = 0
            _, stamped = self._grab()
            image = self._retrieve()
            text = fit_text((image.shape[0], image.shape[1]), frame_px)
            fit(image, frame_px)
        except (CameraError, CameraLost) as error:
            self._capture.release()
            raise CameraError(f"{device}: {error}") from None
        assert found.fps is not None and found.size_px is not None  # always read back
        stamps = "the driver's timestamps" if stamped else "timestamps taken right after each read"
        self.traits = SourceTraits(
            period_ns=round(1e9 / found.fps),
            never_still=True,
            description=f"{found.fourcc} at {found.fps:g} fps, {text}, {stamps}{_better_name(device)}",
            fix=FIX,
            identity=f"{identity_of(device)} {found.fourcc} {found.size_px[1]}x{found.size_px[0]}".strip(),
            native_px=(image.shape[0], image.shape[1]),
        )

    def read(self) -> Frame:
        captured_ns, _ = self._grab()
        image = fit(self._retrieve(), self._frame_px)
        self._sequence += 1
        return Frame(image, captured_ns, self._sequence)

    def close(self) -> None:
        self._capture.release()

    def _grab(self) -> tuple[int, bool]:
        if not self._capture.grab():
            raise CameraLost("gives no frames" if self._device.exists() else "the device is gone")
        read_ns = self._clock_ns()
        return capture_time(self._capture.get(self._cv2.CAP_PROP_POS_MSEC), read_ns)

    def _retrieve(self) -> Any:
        whole, image = self._capture.retrieve()
        if not whole:
            raise CameraLost("its frames cannot be decoded")
        return image


def _better_name(device: Path) -> str:
    name = lasting_name(device)
    return f"; v4l2:{name} would name the same camera after a replug" if name is not None else ""


def _check_node(device: Path) -> None:
    if not device.exists():
        raise CameraError(
            f"{device}: there is no such camera; plug it in, or name another (ls /dev/v4l/by-id /dev/video*)"
        )
    if not os.access(device, os.R_OK | os.W_OK):
        raise CameraError(f"{device}: no permission; sudo usermod -aG video $USER, then log in again")


def _open(cv2: Any, device: Path) -> Any:
    _check_node(device)
    capture = cv2.VideoCapture(str(device.resolve()), cv2.CAP_V4L2)
    if not capture.isOpened():
        raise CameraError(f"{device}: cannot be opened as a camera; {FIX}")
    return capture


def _set_mode(cv2: Any, capture: Any, requested: V4l2Camera) -> V4l2Camera:
    """Requests a mode and returns the one that was granted. Raises `CameraError` when it is another one."""
    if requested.fourcc is not None:  # first: the sizes and rates depend on it
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*requested.fourcc))
    if requested.size_px is not None:
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, requested.size_px[0])
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, requested.size_px[1])
    if requested.fps is not None:
        capture.set(cv2.CAP_PROP_FPS, requested.fps)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    code = int(capture.get(cv2.CAP_PROP_FOURCC))
    found = V4l2Camera(
        requested.target,
        (int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)), int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))),
        float(capture.get(cv2.CAP_PROP_FPS)),
        code.to_bytes(4, "little").decode("ascii", "replace"),
    )
    assert found.size_px is not None and found.fps is not None
    differs = (
        requested.size_px not in (None, found.size_px)
        or requested.fourcc not in (None, found.fourcc)
        or (requested.fps is not None and abs(requested.fps - found.fps) > 0.5)
    )
    if differs or found.fps <= 0:
        raise CameraError(
            f"the driver gives size={found.size_px[1]}x{found.size_px[0]}&fps={found.fps:g}&fourcc={found.fourcc}; "
            f"ask for a mode it has (v4l2-ctl -d {requested.target} --list-formats-ext)"
        )
    return found
