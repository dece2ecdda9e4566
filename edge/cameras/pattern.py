"""A moving test pattern: shows that frames flow where no camera is at hand."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edge.cameras.base import Frame, SourceTraits

CYCLE_NS = 4_000_000_000


@dataclass(frozen=True)
class PatternCamera:
    """The test pattern, which has no options."""

    FORM: ClassVar[str] = "pattern:"

    def open(self, frame_px: tuple[int, int], clock_ns: Callable[[], int]) -> PatternSource:
        return PatternSource(frame_px, clock_ns)


class PatternSource:
    """Colour bars that wander across the image once in four seconds."""

    def __init__(self, frame_px: tuple[int, int], clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        height, width = frame_px
        bars = np.array(
            [
                [255, 255, 255],
                [255, 255, 0],
                [0, 255, 255],
                [0, 255, 0],
                [255, 0, 255],
                [255, 0, 0],
                [0, 0, 255],
                [0, 0, 0],
            ]
        )
        columns = bars[np.arange(width) * len(bars) // width].astype(np.uint8)
        self._image = np.broadcast_to(columns, (height, width, 3))
        self._clock_ns = clock_ns
        self._sequence = -1
        self.traits = SourceTraits(
            0, True, f"a test pattern of {width}x{height}, drawn on demand", "start the command again"
        )

    def read(self) -> Frame:
        now_ns = self._clock_ns()
        shift = now_ns % CYCLE_NS * self._image.shape[1] // CYCLE_NS
        self._sequence += 1
        return Frame(np.ascontiguousarray(np.roll(self._image, shift, axis=1)), now_ns, self._sequence)

    def close(self) -> None:
        pass
