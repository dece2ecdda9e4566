"""The frames of a run on their way out of the process that takes them: to the log, and to the live page.

To the log through two rings: every frame as it comes, and each from which a chunk was computed. What finds no room is
dropped and counted; nobody waits. To the page only the newest of each camera, a few times a second.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from edge.cameras import Frame
from edge.inference.mailbox import Mailbox, SharedMemory
from edge.inference.ring import Ring
from firmware_bridge.layout import Item, Packed

SizePx = tuple[int, int]
"""Height and width of a camera's frames."""


class CameraView(NamedTuple):
    """What a run sees through one of its cameras."""

    name: str
    frame_px: SizePx


WAITING = 24
"""Frames of each camera that either ring holds: most of a second at 30 Hz, and many chunks."""
DRAWN_NS = 100_000_000
"""Between two frames of a camera that draws them on demand, for those who watch."""
SHOWN_NS = 200_000_000
"""Between two frames of a camera on the page."""


@dataclass(frozen=True)
class FrameHead(Packed):
    """What is said of a frame; its pixels follow, RGB uint8 (height, width, 3)."""

    camera: Annotated[int, Item("B", "number in the policy's order, from 0")]
    request: Annotated[int, Item("q", "of the chunk that was computed from it; 0 for none")]
    part: Annotated[int, Item("B", "number in the observation, from 0 for the oldest")]
    captured_ns: Annotated[int, Item("q", "host time of its capture, monotonic, ns")]
    sequence: Annotated[int, Item("q", "of the camera's frames, from 0")]
    height_px: Annotated[int, Item("H")]
    width_px: Annotated[int, Item("H")]


WRITTEN = np.dtype([(name, "<u8") for name in ("passing", "passing_left", "used", "used_left")])
HEAD_BYTES = FrameHead.size(0)


class FrameSink(Protocol):
    """Takes frames; never waits."""

    def seen(self, camera: int, frame: Frame) -> None:
        """A frame has come, in whatever thread."""

    def observed(self, request: int, frames: Sequence[Sequence[Frame]]) -> None:
        """The chunk of a request was computed from these frames: of each camera, the newest last."""


def told(sinks: Sequence[FrameSink], camera: int) -> Callable[[Frame], None] | None:
    """For `open_camera`: hands each frame of a camera on; None where nobody takes them."""

    def seen(frame: Frame) -> None:
        for sink in sinks:
            sink.seen(camera, frame)

    return seen if sinks else None


class FrameRings:
    """The way to the log, of cameras with frames of these sizes; the writer opens it by its descriptor."""

    def __init__(self, sizes_px: Sequence[SizePx], descriptor: int | None = None) -> None:
        self.sizes_px = tuple(sizes_px)
        capacity = sum(WAITING * Ring.stride(HEAD_BYTES + 3 * height * width) for height, width in sizes_px)
        size = Ring.size_of(capacity)
        self.memory = SharedMemory(2 * size + WRITTEN.itemsize, descriptor)
        self.passing = Ring(self.memory, capacity)
        """Every frame."""
        self.used = Ring(self.memory, capacity, size)
        """Those of chunks."""
        self.written = self.memory.view(2 * size, WRITTEN.itemsize).view(WRITTEN)
        """The writer's counts: what it wrote, and what it left out because the disk was full."""
        self._lock = threading.Lock()  # each camera has a thread, and a ring one producer

    def touch(self) -> None:
        """Every page once, before the loop runs."""
        self.memory.view(0, self.memory.size)[:] = 0

    def counts(self) -> dict[str, int]:
        """How many frames were written and dropped so far; `used` are those of chunks."""
        found = {name: int(self.written[name][0]) for name in WRITTEN.names or ()}
        return {
            "written": found["passing"],
            "dropped": self.passing.dropped + found["passing_left"],
            "used_written": found["used"],
            "used_dropped": self.used.dropped + found["used_left"],
        }

    def seen(self, camera: int, frame: Frame) -> None:
        with self._lock:
            self.passing.push(_packed(camera, 0, 0, frame))

    def observed(self, request: int, frames: Sequence[Sequence[Frame]]) -> None:
        for camera, of_camera in enumerate(frames):
            for part, frame in enumerate(of_camera):
                self.used.push(_packed(camera, request, part, frame))


def _packed(camera: int, request: int, part: int, frame: Frame) -> bytes:
    height, width = frame.image.shape[:2]
    head = FrameHead.body(camera, request, part, frame.captured_ns, frame.sequence, height, width)
    return head + frame.image.tobytes()


def unpacked(data: bytes) -> tuple[FrameHead, NDArray[np.uint8]]:
    """Head and pixels of what came through a ring."""
    head = FrameHead.unpack(data[:HEAD_BYTES])
    return head, np.frombuffer(data, np.uint8, offset=HEAD_BYTES).reshape(head.height_px, head.width_px, 3)


class NewestFrames:
    """The way to the page: of each camera the newest frame."""

    def __init__(self, sizes_px: Sequence[SizePx], descriptor: int | None = None) -> None:
        self.sizes_px = tuple(sizes_px)
        types = [np.dtype([("captured_ns", "<i8"), ("pixels", "u1", (*size, 3))]) for size in sizes_px]
        sizes = [Mailbox.size_of(kind) for kind in types]
        self.memory = SharedMemory(max(1, sum(sizes)), descriptor)
        self._boxes = [Mailbox(kind, self.memory, sum(sizes[:number])) for number, kind in enumerate(types)]
        self._next_ns = [0] * len(types)

    def seen(self, camera: int, frame: Frame) -> None:
        if frame.captured_ns < self._next_ns[camera]:
            return
        self._next_ns[camera] = frame.captured_ns + SHOWN_NS
        record = np.zeros(1, self._boxes[camera].dtype)
        record["captured_ns"], record["pixels"][0] = frame.captured_ns, frame.image
        self._boxes[camera].write(record)

    def observed(self, request: int, frames: Sequence[Sequence[Frame]]) -> None:
        """They have been seen already."""

    def newest(self, camera: int) -> tuple[int, NDArray[np.uint8]] | None:
        """When it was captured, host time in ns, and its pixels; None before the first, or while one is in flux."""
        found = self._boxes[camera].read(0)
        return None if found is None else (int(found[1]["captured_ns"][0]), found[1]["pixels"][0])


@dataclass(frozen=True)
class FrameOutlets:
    """Where the frames of a run go to: none, the log, the page, or both."""

    log: FrameRings | None = None
    page: NewestFrames | None = None

    @property
    def sinks(self) -> tuple[FrameSink, ...]:
        return tuple(sink for sink in (self.log, self.page) if sink is not None)

    @property
    def descriptors(self) -> dict[str, int]:
        """For a child: what opens them again."""
        found = {"log": self.log, "page": self.page}
        return {name: outlet.memory.descriptor for name, outlet in found.items() if outlet is not None}

    @staticmethod
    def opened(sizes_px: Sequence[SizePx], descriptors: dict[str, int]) -> FrameOutlets:
        """In a child: the inverse of `descriptors`."""
        return FrameOutlets(
            FrameRings(sizes_px, descriptors["log"]) if "log" in descriptors else None,
            NewestFrames(sizes_px, descriptors["page"]) if "page" in descriptors else None,
        )


NOWHERE = FrameOutlets()
