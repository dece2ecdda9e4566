"""A motion of the SO-101 that begins at rest, in chunks; and how far servos were from it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge.log.trace import Trace
from firmware_bridge.client import KnotChunk
from tests.support import chunk_from

SPACING_US = 100_000
KNOTS, STEPS = 15, 5
AMPLITUDE = np.array([0.75, 0.35, -0.35, -0.35, 0.75, -0.04])
RATE = 1.6
LAGS_MS = range(60)


class Motion:
    """`amplitude * sin(RATE t)^3` around `origin`: position, velocity and acceleration are zero at `zero_us`."""

    def __init__(
        self, origin_rad: NDArray[np.float64], zero_us: int, amplitude_rad: NDArray[np.float64] = AMPLITUDE
    ) -> None:
        self.origin_rad, self.zero_us, self.amplitude_rad = origin_rad, zero_us, amplitude_rad

    def chunk(self, number: int) -> KnotChunk:
        """Chunk 0 begins at `zero_us`; each replaces the one before after five steps."""
        start_us = self.zero_us + number * STEPS * SPACING_US
        times = RATE * (number * STEPS + np.arange(KNOTS)[:, None]) * SPACING_US * 1e-6
        q = self.origin_rad + self.amplitude_rad * np.sin(times) ** 3
        dq = 3 * self.amplitude_rad * RATE * np.sin(times) ** 2 * np.cos(times)
        return chunk_from(number + 1, start_us % 2**32, q, dq, SPACING_US)


def errors_degrees(
    trace: Trace, seen_us: NDArray[np.float64], seen_rad: NDArray[np.float64], lag_ms: float
) -> NDArray[np.float64]:
    """How far (n, J) what was seen at device times `seen_us` was from the set-points `lag_ms` earlier, while moving."""
    moving = trace.tick_us[trace.state == "STREAMING"]
    inside = (seen_us > moving[0]) & (seen_us < moving[-1])
    at_us = seen_us[inside] - 1000 * lag_ms
    wanted = np.stack([np.interp(at_us, trace.tick_us, joint) for joint in trace.q.T], axis=1)
    return np.degrees(np.abs(wanted - seen_rad[inside]))


def worst_degrees(
    trace: Trace, seen_us: NDArray[np.float64], seen_rad: NDArray[np.float64], share: float = 1.0
) -> tuple[float, int]:
    """The largest error (or the `share` quantile) and the one constant lag, in whole ms, at which it is least."""
    found = [(float(np.quantile(errors_degrees(trace, seen_us, seen_rad, lag), share)), lag) for lag in LAGS_MS]
    return min(found)
