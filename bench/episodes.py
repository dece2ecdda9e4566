"""What every count of successful episodes shares: unseen scenes, the object that is asked for, the interval.

Imports neither policy nor runtime: LeRobot's own code is counted by the same (`tools/lerobot/evaluate.py`).
"""

from __future__ import annotations

import math

from edge.errors import InputError
from edge.sim.scenes import Scene

FIRST_SCENE = 2_000_000
"""Unless told otherwise, scenes are `FIRST_SCENE`, `FIRST_SCENE` + 1, ...; no demonstration draws from these seeds."""
OBJECTS = 3
"""In every scene."""


def instruction(scene: Scene, episode: int, target: str | None = None) -> str:
    """What is asked in an episode: for each object in turn, or always for `target`. Raises `InputError`."""
    if target is None:
        return scene.instruction(episode)
    told = [scene.instruction(number) for number in range(OBJECTS)]
    named = [text for text in told if text.endswith(f" {target}")]
    if not named:
        raise InputError(
            f"--object {target!r}: the scene has no such object; one of these is asked for: {', '.join(told)}"
        )
    return named[0]


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """95 % confidence interval of a proportion (Wilson, 1927)."""
    z, p = 1.96, successes / trials
    centre = p + z * z / (2 * trials)
    half = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    low, high = (centre - half) / (1 + z * z / trials), (centre + half) / (1 + z * z / trials)
    return max(0.0, low), min(1.0, high)  # rounding alone makes -0 %
