"""Flow matching from noise (r = 0) to data (r = 1), with a committed prefix that stays clean."""

from __future__ import annotations

from collections.abc import Callable

import torch

VelocityField = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(x, r) -> velocity, with x (batch, horizon, slots) and r (batch, horizon)."""


def flow_schedule(steps: int) -> list[float]:
    """The times at which the field is evaluated: 0, 1/n, ..., (n-1)/n."""
    return [step / steps for step in range(steps)]


def target_time(r: torch.Tensor, steps: int) -> torch.Tensor:
    """Where the step that begins at r is said to end, for a decoder that is told (shape of r).

    One single step leads to the data, r = 1. Of several, each follows the velocity at its own time, as Euler's do:
    steps in between are never trained.
    """
    return torch.ones_like(r) if steps == 1 else r


def integrate(
    field: VelocityField,
    noise: torch.Tensor,
    prefix: torch.Tensor,
    committed: torch.Tensor,
    used: torch.Tensor,
    steps: int,
) -> torch.Tensor:
    """Euler integration to a chunk, shape (batch, horizon, slots).

    prefix    (batch, horizon, slots), actions that will have been executed when the chunk arrives
    committed bool (batch, horizon), True where `prefix` holds; these actions stay clean at r = 1 in every step
    used      float (batch, slots), 1 for the slots of this embodiment; the others stay zero, as in training, where
              the field was never asked about them
    """
    x = noise * used[:, None]
    for time in flow_schedule(steps):
        x = torch.where(committed[..., None], prefix, x)
        r = torch.where(committed, 1.0, time)
        x = x + field(x, r) * used[:, None] / steps
    return torch.where(committed[..., None], prefix, x)
