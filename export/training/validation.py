"""The error of whole chunks on episodes that training never sees, with the same noise every time.

From nothing committed, as in a robot's first request, and as in all that follow (`export/training/committed.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from export.families.action_prior.batch import Window
from export.families.action_prior.config import PolicyConfig
from export.families.action_prior.embodiment import Embodiment
from export.families.action_prior.policy import ActionPrior
from export.training.committed import CommittedChunks
from export.training.processes import Processes
from export.training.schedule import Settings
from export.training.source import Rows, Source

PART = 64
"""Windows that are judged at a time."""
NOISE_STREAM = 3


@dataclass(frozen=True)
class Errors:
    """Sums over the actions of some windows: absolute errors in normalised units and in the data's own, and how many
    there are."""

    normalised: float
    own: float
    actions: float


@dataclass(frozen=True)
class Validation:
    """Judges `rows` every so many steps. `errors(rows, noise)` is of one part of them."""

    rows: Rows
    noise: torch.Tensor
    """(len(rows), horizon, action_slots); what a chunk starts from, as at run time."""
    every: int
    stop_at: float | None
    errors: Callable[[Rows, torch.Tensor], Errors]
    committed: CommittedChunks

    def due(self, step: int) -> bool:
        return (step + 1) % self.every == 0

    @torch.no_grad()
    def judge(self, processes: Processes) -> dict[str, float]:
        """Mean absolute errors per action: `validation_mae`, normalised, `validation_mae_rad`, in the data's own unit
        (radians, for joints); and the figures of `CommittedChunks`. Processes share the work and come to the same."""
        sums = [0.0, 0.0, 0.0]
        for part in range(processes.rank * PART, len(self.rows), processes.count * PART):
            found = self.errors(self.rows[part : part + PART], self.noise[part : part + PART])
            sums = [total + value for total, value in zip(sums, (found.normalised, found.own, found.actions))]
        normalised, own, actions = processes.add(sums)
        fresh = {"validation_mae": normalised / max(actions, 1.0), "validation_mae_rad": own / max(actions, 1.0)}
        return {**fresh, **self.committed.judge(processes)}

    def reached(self, error: float) -> bool:
        return self.stop_at is not None and error <= self.stop_at


def held_out_validation(
    policy: ActionPrior,
    windows: Source,
    held_out: Rows,
    embodiments: tuple[Embodiment, ...],
    settings: Settings,
    device: torch.device,
    latents: Callable[[Rows, Window], torch.Tensor],
) -> Validation | None:
    """Validation as the settings want it; `latents(rows, window)` gives z, or z', of some rows."""
    if not settings.validate_every:
        return None
    held_out = held_out[windows.given[held_out] == 0]
    rows = fixed_rows(held_out, settings.validation_windows, settings.judged_by)
    noise = fixed_noise(policy.config, len(rows), settings.judged_by).to(device)
    units = own_units(embodiments, policy.config).to(device)

    def errors(part: Rows, start: torch.Tensor) -> Errors:
        window = windows.window(part, device)
        return chunk_errors(policy, window, latents(part, window), start, units)

    count = max(1, settings.validation_windows // 4)
    start = fixed_noise(policy.config, count, settings.judged_by).to(device)
    committed = CommittedChunks(policy, windows, held_out, count, units, start, device, latents, settings.judged_by)
    return Validation(rows, noise, settings.validate_every, settings.stop_at_error, errors, committed)


def fixed_rows(held_out: Rows, count: int, seed: int) -> Rows:
    """So many of the held-out rows, or all if there are fewer, the same ones every time."""
    rng = np.random.default_rng([seed, 0, NOISE_STREAM])
    return np.sort(rng.choice(held_out, min(count, len(held_out)), replace=False))


def fixed_noise(config: PolicyConfig, count: int, seed: int) -> torch.Tensor:
    """What chunks start from, scaled as the robot scales it."""
    rng = np.random.default_rng([seed, 0, NOISE_STREAM, 1])
    noise = rng.standard_normal((count, config.horizon, config.action_slots), dtype=np.float32)
    return config.noise_scale * torch.from_numpy(noise)


def own_units(embodiments: tuple[Embodiment, ...], config: PolicyConfig) -> torch.Tensor:
    """What one normalised unit is of every embodiment's action slot, (embodiments, action_slots)."""
    scales = torch.zeros(config.embodiments, config.action_slots)
    for arm in embodiments:
        scales[arm.index, list(arm.actions.slots)] = torch.tensor(arm.actions.scale)
    return scales


def chunk_errors(
    policy: ActionPrior, window: Window, z: torch.Tensor, noise: torch.Tensor, units: torch.Tensor
) -> Errors:
    """Errors of the chunks that the decoder makes of z, nothing committed, over valid actions and slots in use."""
    nothing = torch.zeros_like(window.valid[:1])  # of every row: the decoder's modulations are computed once for all
    used = window.slots.float()
    chunk = policy.chunk(noise, z, torch.zeros_like(window.actions), nothing, used)
    away = (chunk - window.actions).abs().double() * window.valid[..., None] * window.slots[:, None]
    own = away * units[window.embodiment][:, None]
    actions = window.valid.sum(dim=1) * window.slots.sum(dim=1)
    return Errors(float(away.sum()), float(own.sum()), float(actions.sum()))
