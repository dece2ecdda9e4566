"""A source that draws on demand, made into one that gives frames by itself at a steady rate."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from edge.cameras.base import Frame, FrameSource, SourceTraits


class PacedSource:
    """Draws a frame every `period_ns`. The source with these traits is opened where it is read: what draws belongs to
    one thread."""

    def __init__(
        self,
        open_source: Callable[[], FrameSource],
        traits: SourceTraits,
        period_ns: int,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._open = open_source
        self._source: FrameSource | None = None
        self._period_ns, self._clock_ns, self._sleep = period_ns, clock_ns, sleep
        self._due_ns = clock_ns()
        self.traits = replace(traits, period_ns=period_ns)

    def read(self) -> Frame:
        """The frame that is due next; what could not be drawn in time is left out. Raises `CameraLost`."""
        while (ahead_ns := self._due_ns - self._clock_ns()) > 0:
            self._sleep(ahead_ns / 1e9)
        self._due_ns += self._period_ns * (1 + -ahead_ns // self._period_ns)
        self._source = self._source or self._open()
        return self._source.read()

    def close(self) -> None:
        if self._source is not None:
            self._source.close()
