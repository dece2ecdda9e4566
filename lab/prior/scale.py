"""How large the experiment is."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Scale:
    """Episodes that are recorded, steps that are trained, episodes that are played.

    Each of the `training_episodes` is a demonstration of one of three tasks, in turn. `reach`, `lift` and `lift_other`
    are episodes of stage-1 trajectories: of the same arm and task, of the FR3 with a hand, of the SO-101.
    """

    name: str = "full"
    training_episodes: int = 150
    held_out_episodes: int = 45
    few_episodes: int = 30
    reach: int = 300
    lift: int = 80
    lift_other: int = 60
    scenes: int = 8000
    pointing_steps: int = 800
    pointing_batch: int = 64
    prior_steps: int = 800
    prior_batch: int = 128
    steps: int = 800
    batch: int = 64
    validate_every: int = 25
    validation_windows: int = 256
    episodes: int = 50
    durations_s: tuple[float, ...] = (5.0, 10.0)
    """Each episode lasts for the last of them, and is judged after each."""

    def to_plain(self) -> dict[str, Any]:
        return asdict(self)


FULL = Scale()
SMALL = Scale(
    name="small",
    pointing_steps=500,
    prior_steps=1000,
    prior_batch=32,
    steps=1200,
    batch=16,
    validate_every=40,
)
"""The same data and the same closed loop, smaller batches and more steps: three hours of two idle CPU cores."""
LONG = replace(SMALL, name="long", steps=2400, batch=64)
"""As `SMALL`, with eight times as much of stage 2, in which a run without a prior gets somewhere; made for a GPU."""
QUICK = Scale(
    name="quick",
    training_episodes=6,
    held_out_episodes=3,
    few_episodes=3,
    reach=2,
    lift=1,
    lift_other=1,
    scenes=8,
    pointing_steps=2,
    pointing_batch=8,
    prior_steps=2,
    prior_batch=8,
    steps=4,
    batch=8,
    validate_every=2,
    validation_windows=16,
    episodes=1,
    durations_s=(0.5, 1.0),
)
SCALES = {scale.name: scale for scale in (SMALL, FULL, LONG)}
"""Those whose figures are worth quoting."""
