"""Frames as video and as PNG, through PyAV."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

CODEC, PIXELS = "libx264", "yuv444p"
OPTIONS = {
    "crf": "12",
    "preset": "veryfast",
    "g": "10",
    "bf": "0",
    "threads": "1",
    "x264-params": "mbtree=0:rc-lookahead=0",
}
"""Colour in full resolution, a key frame every ten frames, no frame that refers to a later one (docs/howto/data.md), no
lookahead: with one the same frames are not always the same bytes."""
INFO = {"video.codec": "h264", "video.pix_fmt": PIXELS}


class VideoWriter:
    """Encodes frames one after the other into one file, which is there once it is closed.

    As a dataset wants it, or by other `options` of the encoder and in another format of `pixels`.
    """

    def __init__(
        self,
        path: Path,
        fps: int,
        height_px: int,
        width_px: int,
        options: dict[str, str] = OPTIONS,
        pixels: str = PIXELS,
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._partial = path, path.with_name(path.stem + ".partial.mp4")
        self._container = av.open(str(self._partial), "w")
        self._stream: Any = self._container.add_stream(CODEC, rate=fps, options=options)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width_px, height_px, pixels
        self._stream.codec_context.time_base = self._tick = Fraction(1, fps)
        self.frames = 0

    def write(self, frames: Iterable[NDArray[np.uint8]]) -> None:
        """Appends RGB frames, each (height, width, 3)."""
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = self.frames, self._tick
            self._container.mux(self._stream.encode(frame))
            self.frames += 1

    def close(self) -> None:
        """Finishes the file and gives it its name."""
        self._container.mux(self._stream.encode())
        self._container.close()
        self._partial.replace(self._path)

    def discard(self) -> None:
        """Leaves nothing behind."""
        self._container.close()
        self._partial.unlink(missing_ok=True)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """One RGB frame (height, width, 3) as a PNG."""
    encoder: Any = av.CodecContext.create("png", "w")
    encoder.height, encoder.width = pixels.shape[:2]
    encoder.pix_fmt, encoder.time_base = "rgb24", Fraction(1, 1)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    return b"".join(bytes(packet) for packet in packets)
