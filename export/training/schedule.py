"""How long a stage trains, how fast, and how its steps are computed and recorded."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import nn

from firmware_bridge.reading import OneLine


class TrainingError(OneLine):
    """A run that cannot go on; the message is one line that names the fix."""


class Diverged(TrainingError):
    """The loss is not finite."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast. `final_rate` is reached at the last step along a cosine."""

    steps: int
    batch: int
    warmup: int
    peak_rate: float
    final_rate: float
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    save_every: int = 500

    def rate(self, step: int) -> float:
        """Learning rate at `step`, counted from 0."""
        if step < self.warmup:
            return self.peak_rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(self.steps - self.warmup, 1)
        return self.final_rate + 0.5 * (self.peak_rate - self.final_rate) * (1 + math.cos(math.pi * min(progress, 1.0)))


@dataclass(frozen=True)
class Pretrained:
    """Parameters that already know something: they move at a fraction of the rate, and hardly at all at first.

    Behind a head that still is random, gradients say little; at the full rate they would undo what was learnt.
    """

    parameters: tuple[nn.Parameter, ...]
    rate_factor: float = 0.3
    warmup: int = 300

    def factor(self, step: int) -> float:
        """What the rate at `step` is multiplied by."""
        return self.rate_factor * min(1.0, (step + 1) / self.warmup)


@dataclass(frozen=True)
class Settings:
    """How steps are computed and what is written of them."""

    seed: int = 0
    weights: tuple[float, ...] | None = None
    """How often each dataset is drawn; None draws every window alike."""
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"
    tf32: bool = False
    """Whether a GPU may round FP32 products to TF32."""
    micro_batch: int = 0
    """Windows computed at a time by one process; 0 computes its share of a batch at once."""
    ema_decay: float = 0.99
    """Of the running average of the weights, once it is warm; 0 keeps none. As in openpi; the paper is silent."""
    keep: Literal["average", "last"] = "average"
    """Which weights the checkpoint gets, and validation judges."""
    log_every: int = 20
    tensorboard: bool = True
    validate_every: int = 0
    """Steps between validations; 0 holds no episodes out."""
    held_out: float = 0.1
    """Share of the episodes that validation keeps to itself."""
    held_out_last: int = 0
    """So many of the last episodes are held out in place of a drawn share: the same ones for every seed."""
    validation_seed: int | None = None
    """Draws held-out episodes, the windows that are judged, and their noise; None: the run's own seed."""
    validation_windows: int = 256
    stop_at_error: float | None = None
    """Training ends at the validation whose error per action, in normalised units, is at most this."""

    @property
    def judged_by(self) -> int:
        """The seed of all that validation draws."""
        return self.seed if self.validation_seed is None else self.validation_seed


def identity(schedule: Schedule, settings: Settings, about: dict[str, Any]) -> dict[str, Any]:
    """What two halves of one run must have in common. Parts, devices and processes may change: they only round."""
    free = ("save_every", "device", "tf32", "micro_batch", "tensorboard")
    stated = {**asdict(schedule), **asdict(settings), **about}
    return {name: value for name, value in stated.items() if name not in free}
