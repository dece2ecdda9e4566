"""The frames of a log: every one as a JPEG, and each from which a chunk was computed as a PNG, with its hash.

All are `foxglove.CompressedImage`, in JSON as the log's other messages. A JPEG is for people; what is computed again is
computed from the PNG alone. Where a log is to be small, `foxglove.CompressedVideo` takes the place of the JPEGs.
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge.inference.film import FrameHead
from edge.inference.layout import parse_table
from edge.log.frame_video import VideoDecoder, VideoEncoder
from edge.log.mcap_log import CAMERAS, LogError, LogReader, LogWriter
from edge.log.topics import STAMP, field_type
from edge.registry import missing
from firmware_bridge.reading import Between, Sized, typed

SCHEMA, VIDEO_SCHEMA = "foxglove.CompressedImage", "foxglove.CompressedVideo"
H264 = "h264"
Kept = Literal["jpeg", "h264"]
"""What frames are kept as that no chunk was computed from."""
USED = "/used"
"""Ends the topic of the frames of chunks."""
JPEG_QUALITY = 90
PNG_BEGIN, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND"
PNG_LEFT = 1
"""The filter of every row: each value less the one of the pixel to its left (PNG, ISO/IEC 15948, section 9)."""
MOST_PIXELS = 64 << 20

DATA = "the whole image file"
VIDEO_DATA = "one frame in Annex B; a key frame has what a decoder needs to begin with it"

Text = Annotated[str, Sized(0, 400)]
Whole = Annotated[int, Between(-(1 << 62), 1 << 62)]


def topic_of(camera: str, used: bool) -> str:
    return CAMERAS + camera + (USED if used else "")


def schema(name: str = SCHEMA) -> bytes:
    """JSON Schema of every message with a frame."""
    image = name == SCHEMA
    integer = {"type": "integer"}
    properties: dict[str, Any] = {
        "timestamp": {**field_type(STAMP), "description": "of the capture, Unix time"},
        "frame_id": {"type": "string", "description": "name of the camera"},
        "data": {"type": "string", "contentEncoding": "base64", "description": DATA if image else VIDEO_DATA},
        "format": {"type": "string", "description": "jpeg or png" if image else H264},
        "host_ns": {**integer, "description": "host time of the capture, monotonic, ns"},
        "sequence": {**integer, "description": "of the camera's frames, from 0"},
        "request": {**integer, "description": "id of the request whose chunk was computed from it; 0 for none"},
        "part": {**integer, "description": "number in the observation, from 0 for the oldest"},
        "sha256": {"type": "string", "description": "of its pixels, RGB uint8 row by row; empty but for a PNG"},
    }
    whole = {"type": "object", "title": name, "properties": properties, "required": list(properties)}
    return json.dumps(whole).encode()


def pixel_hash(pixels: NDArray[np.uint8]) -> str:
    """SHA-256 of an RGB picture (height, width, 3), row by row."""
    return sha256(np.ascontiguousarray(pixels).data).hexdigest()


def check_video(sizes_px: Sequence[tuple[int, int]]) -> None:
    """Raises `LogError` where frames of these sizes cannot be kept as H.264."""
    try:
        VideoEncoder(2, 2)
    except ImportError as error:
        raise LogError(missing("--log-frames h264", error)) from None
    except ValueError:
        raise LogError("--log-frames h264: this PyAV has no encoder for it (libx264); leave the option out") from None
    odd = [size for size in sizes_px if size[0] % 2 or size[1] % 2]
    if odd:
        height, width = odd[0]
        raise LogError(f"--log-frames h264: frames of {width}x{height}; H.264 wants even sides, leave the option out")


class FrameWriter:
    """Writes the frames of these cameras into a log."""

    def __init__(self, log: LogWriter, cameras: Sequence[str], kept: Kept = "jpeg") -> None:
        self._log, self._cameras, self._kept = log, tuple(cameras), kept
        self._encoders: dict[int, VideoEncoder] = {}
        passing = VIDEO_SCHEMA if kept == H264 else SCHEMA
        self._channels = {
            topic: log.add_channel(topic, name, schema(name))
            for camera in cameras
            for topic, name in ((topic_of(camera, False), passing), (topic_of(camera, True), SCHEMA))
        }
        self.passing = self.used = 0
        """How many of either kind were written."""

    def write(self, head: FrameHead, pixels: NDArray[np.uint8]) -> None:
        """One frame: of a chunk where it has a request, else as it passed by."""
        camera, used = self._cameras[head.camera], head.request > 0
        wall_ns = self._log.wall_ns(head.captured_ns)
        format = "png" if used else self._kept
        data = self._next(head.camera, pixels) if format == H264 else encoded(pixels, format)
        content = {
            "timestamp": {"sec": wall_ns // 1_000_000_000, "nsec": wall_ns % 1_000_000_000},
            "frame_id": camera,
            "data": b64encode(data).decode("ascii"),
            "format": format,
            "host_ns": head.captured_ns,
            "sequence": head.sequence,
            "request": head.request,
            "part": head.part,
            "sha256": pixel_hash(pixels) if used else "",
        }
        self._log.add_message(self._channels[topic_of(camera, used)], content, wall_ns)
        if used:
            self.used += 1
        else:
            self.passing += 1

    def _next(self, camera: int, pixels: NDArray[np.uint8]) -> bytes:
        if camera not in self._encoders:
            self._encoders[camera] = VideoEncoder(*pixels.shape[:2])
        return self._encoders[camera].encode(pixels)


def encoded(pixels: NDArray[np.uint8], format: str) -> bytes:
    """An RGB picture (height, width, 3) as an image file, "jpeg" or "png"."""
    if format == "png":
        return packed_png(pixels)
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, format, quality=JPEG_QUALITY)
    return file.getvalue()


def packed_png(pixels: NDArray[np.uint8]) -> bytes:
    """An RGB picture (height, width, 3) as a PNG, in a quarter of the time that Pillow takes: it tries all filters.

    Run lengths and Huffman codes alone: a small file of a drawn picture, and no search in a noisy one.
    """
    height, width, _ = pixels.shape
    rows = np.ascontiguousarray(pixels).reshape(height, 3 * width)
    lines = np.empty((height, 1 + 3 * width), np.uint8)
    lines[:, 0], lines[:, 1:4] = PNG_LEFT, rows[:, :3]
    np.subtract(rows[:, 3:], rows[:, :-3], out=lines[:, 4:])
    packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB
    parts = ((b"IHDR", head), (b"IDAT", packer.compress(lines.data) + packer.flush()), (PNG_END, b""))
    return PNG_BEGIN + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(name)))
        for name, data in parts
    )


def decoded(data: bytes) -> NDArray[np.uint8]:
    """The RGB picture (height, width, 3) in a JPEG or PNG. Raises `ValueError`."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"a picture of {image.width}x{image.height}")
            return np.array(image.convert("RGB"), np.uint8)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"no picture: {error}") from None


@dataclass(frozen=True)
class LoggedFrame:
    """A frame of a log; see `schema`. `data` is the image file, or one frame of a video."""

    camera: str
    host_ns: int
    sequence: int
    request: int
    part: int
    sha256: str
    data: bytes
    format: str

    @property
    def used(self) -> bool:
        """Whether a chunk was computed from it, and it is kept without a loss."""
        return self.request > 0

    def pixels(self) -> NDArray[np.uint8]:
        """RGB (height, width, 3). Raises `ValueError` for one that is damaged, or not the one that was kept."""
        pixels = decoded(self.data)
        if self.used and pixel_hash(pixels) != self.sha256:
            raise ValueError("its pixels do not have the hash that was logged")
        return pixels


def frame_of(topic: str, data: bytes) -> LoggedFrame | None:
    """The frame in a message; None for a message of another kind. Raises `ValueError`."""
    if not topic.startswith(CAMERAS):
        return None
    content = parse_table(data)
    try:
        return LoggedFrame(
            camera=typed(Text, content["frame_id"], "frame_id"),
            data=b64decode(content["data"], validate=True),
            **{name: typed(Text, content[name], name) for name in ("sha256", "format")},
            **{name: typed(Whole, content[name], name) for name in ("host_ns", "sequence", "request", "part")},
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"a frame without {error}") from None


def read_frames(path: Path) -> Iterator[LoggedFrame]:
    """The frames of a log, in the order of writing. Raises `LogError`."""
    for topic, _, data in LogReader(path).messages():
        try:
            frame = frame_of(topic, data)
        except ValueError as error:
            raise LogError(f"{path}: a message of {topic}: {error}; record the run again") from None
        if frame is not None:
            yield frame


def passing_frames(
    path: Path, wanted: Callable[[LoggedFrame], bool], format: Literal["jpeg", "png"]
) -> Iterator[LoggedFrame]:
    """The frames that no chunk was computed from, as image files: those of a video decoded, and encoded as `format`.

    Raises `LogError`.
    """
    decoders: dict[str, VideoDecoder] = {}
    for frame in read_frames(path):
        if frame.used:
            continue
        if frame.format == H264:
            if frame.camera not in decoders:
                decoders[frame.camera] = _decoder(path)
            try:
                pixels = decoders[frame.camera].decode(frame.data)
            except ValueError as error:
                raise LogError(f"{path}: {CAMERAS}{frame.camera}: {error}; record the run again") from None
            if wanted(frame):
                yield replace(frame, data=encoded(pixels, format), format=format)
        elif wanted(frame):
            yield frame


def _decoder(path: Path) -> VideoDecoder:
    try:
        return VideoDecoder(MOST_PIXELS)
    except ImportError as error:
        raise LogError(missing(f"{path}: its frames as H.264", error)) from None
