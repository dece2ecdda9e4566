"""How fast in time a plan is executed: as it was trained while inference keeps up, slower when it does not.

A chunk may be spliced `max_delay` steps after its observation at the latest, since longer prefixes were not trained.
When inference needs more time than that many steps take, the steps are stretched: the same path, slower.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

MOST_STRETCH = 8.0
"""Slower than this is no motion worth having: the plan then runs out, and the device stops."""
CHANGE = 2.0
"""Most that one chunk may stretch or shorten the steps of the one before it."""
TRIES = 4
MARGIN = 1.05


@dataclass(frozen=True)
class Pace:
    """The spacing of steps, in us; `step_us` is the trained one."""

    step_us: int

    @property
    def slowest_us(self) -> int:
        return round(MOST_STRETCH * self.step_us)

    def wanted_us(self, needed_us: float, steps: float) -> int:
        """The spacing at which `steps` steps last `needed_us`."""
        return min(self.slowest_us, max(self.step_us, math.ceil(needed_us / steps)))

    def eased(self, current_us: int, wanted_us: int) -> Iterator[int]:
        """Spacings to try for a new chunk, the shortest first and the current one last; a chunk never brakes."""
        for ratio in _ratios(current_us / max(wanted_us, self.step_us)):
            yield math.ceil(current_us / ratio)
        yield current_us

    def braked(self, current_us: int, wanted_us: int) -> Iterator[int]:
        """Spacings to try for what is committed already, the longest first; empty when its steps are long enough."""
        if wanted_us > current_us:
            for ratio in _ratios(min(MARGIN * wanted_us, self.slowest_us) / current_us):
                yield math.ceil(ratio * current_us)


def _ratios(wanted: float) -> Iterator[float]:
    """From `wanted`, or the most that is allowed at once, towards 1."""
    ratio = min(wanted, CHANGE)
    for _ in range(TRIES):
        if ratio <= 1.0:
            return
        yield ratio
        ratio = math.sqrt(ratio)
