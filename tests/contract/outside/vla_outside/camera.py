"""`noise:?level=N`: a camera of random pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edge.cameras import Frame, FrameSource, SourceTraits
from edge.registry import option


@dataclass(frozen=True)
class NoiseCamera:
    FORM: ClassVar[str] = "noise:?level=N"
    level: int = option(255, least=1, most=255)

    def open(self, frame_px: tuple[int, int], clock_ns: Callable[[], int]) -> FrameSource:
        return NoiseSource(self.level, frame_px, clock_ns)


class NoiseSource:
    def __init__(self, level: int, frame_px: tuple[int, int], clock_ns: Callable[[], int]) -> None:
        self._level, self._shape, self._clock_ns, self._count = level, (*frame_px, 3), clock_ns, -1
        self._draw = np.random.default_rng(0)
        self.traits = SourceTraits(0, True, f"noise up to {level}", "start the command again")

    def read(self) -> Frame:
        self._count += 1
        pixels = self._draw.integers(0, self._level + 1, self._shape, dtype=np.uint8)
        return Frame(pixels, self._clock_ns(), self._count)

    def close(self) -> None:
        pass
