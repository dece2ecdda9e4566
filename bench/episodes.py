"""What every count of successful episodes shares: unseen scenes, the object that is asked for, the interval.

Imports neither policy nor runtime: LeRobot's own code is counted by the same (`tools/lerobot/evaluate.py`).
"""

from __future__ import annotations

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
