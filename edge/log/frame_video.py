"""One camera's frames as H.264, a frame at a time: what a log holds of them where it is to be small.

Annex B without frames that refer to later ones, as `foxglove.CompressedVideo` wants it; every `KEY_FRAMES` a key frame,
with what a decoder needs to begin there. Needs PyAV, of the `data` extra.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEY_FRAMES = 30
OPTIONS = {"preset": "ultrafast", "tune": "zerolatency", "crf": "20", "g": str(KEY_FRAMES), "bf": "0", "threads": "1"}
"""The least time of a core: the log's writer is beside control and inference."""
TICK = Fraction(1, 30)
"""Of the encoder's own clock; a log has each frame's time beside it."""


class VideoEncoder:
    """Encodes RGB frames of one size, both sides even."""

    def __init__(self, height_px: int, width_px: int) -> None:
        import av

        self._av = av
        self._codec: Any = av.CodecContext.create("libx264", "w")
        self._codec.height, self._codec.width, self._codec.pix_fmt = height_px, width_px, "yuv420p"
        self._codec.time_base, self._codec.options = TICK, OPTIONS
        self._frames = 0

    def encode(self, pixels: NDArray[np.uint8]) -> bytes:
        """The next frame, RGB (height, width, 3)."""
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame.pts, frame.time_base = self._frames, TICK
        self._frames += 1
        return b"".join(bytes(packet) for packet in self._codec.encode(frame))


class VideoDecoder:
    """Decodes what an encoder has made, every frame of it in order; a picture has at most `most_pixels`."""

    def __init__(self, most_pixels: int) -> None:
        import av

        self._av = av
        self._codec: Any = av.CodecContext.create("h264", "r")
        self._codec.thread_count = 1
        self._codec.options = {"max_pixels": str(most_pixels)}

    def decode(self, data: bytes) -> NDArray[np.uint8]:
        """The next frame, RGB (height, width, 3). Raises `ValueError`."""
        try:
            frames = self._codec.decode(self._av.Packet(data)) if data else []
            if len(frames) != 1:
                raise ValueError(f"{len(frames)} pictures")
            pixels: NDArray[np.uint8] = frames[0].to_ndarray(format="rgb24")
        except (self._av.FFmpegError, ValueError) as error:
            raise ValueError(f"no frame of a video: {error}") from None
        return pixels
