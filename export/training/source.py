"""What training asks of data, and which of its rows a step trains on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from export.families.action_prior.batch import Window
from export.families.action_prior.policy import Observation
from export.training.instructions import InstructionTokens
from export.training.schedule import Settings, TrainingError

Rows = NDArray[np.int64]
Sampler = Callable[[int], Rows]
"""The rows of a step's batch; the same ones for the same step, always."""
HELD_OUT_STREAM = 2
"""Keeps the draw of held-out episodes apart from those of batches (none) and of what happens to them (1)."""


class Source(Protocol):
    """Windows of one dataset or several, one per recorded step, numbered from 0."""

    episode: NDArray[np.int64]
    """The number of every row's episode; held-out episodes are held out whole."""
    given: NDArray[np.int64]
    """How many of every row's first actions nobody demonstrated, as in `Window.given`; such rows are not validated."""
    bounds: NDArray[np.int64]
    """Where each dataset begins, and where the last one ends."""

    def __len__(self) -> int: ...

    def demonstrated(self) -> Rows:
        """The steps that show what to do, not what went wrong."""

    def whole(self) -> Rows:
        """Those of them whose chunk nothing cuts short."""

    def contents(self) -> dict[str, str]:
        """SHA-256 of all that windows and observations are made of, whole, by what it is."""

    def window(self, rows: Rows, device: torch.device) -> Window:
        """Trajectories at these steps. No images are read for it: every process asks for all of a batch."""

    def observation(self, rows: Rows, text: InstructionTokens, device: torch.device) -> Observation:
        """Images and instructions at these steps."""


def identity_of(source: Source, candidates: Rows) -> dict[str, str]:
    """What names the data of a run: any value, frame or text that differs is another run's, and so are other rows."""
    return {f"data: {name}": value for name, value in {**source.contents(), "rows": sha256_of(candidates)}.items()}


def sha256_of(values: NDArray[Any] | Sequence[str]) -> str:
    """SHA-256 of an array, its type and shape included, or of texts."""
    if not isinstance(values, np.ndarray):
        return hashlib.sha256(json.dumps(list(values)).encode()).hexdigest()
    hashed = hashlib.sha256(f"{values.dtype.str} {values.shape}".encode())
    hashed.update(np.ascontiguousarray(values).data)
    return hashed.hexdigest()


@dataclass(frozen=True)
class Split:
    """Rows to train on and rows to validate on, of different episodes."""

    training: Rows
    held_out: Rows


def split(candidates: Rows, episode: NDArray[Any], settings: Settings) -> Split:
    """Holds out episodes as the settings want it, at least one where they validate; `episode` numbers those of all
    rows. Raises `TrainingError`."""
    if not settings.validate_every or (settings.held_out == 0 and not settings.held_out_last):
        return Split(candidates, candidates[:0])
    known = np.unique(episode[candidates])
    count = settings.held_out_last or max(1, round(settings.held_out * len(known)))
    if count >= len(known):
        raise TrainingError(f"{len(known)} episodes are too few to hold some out; record more, or do not validate")
    held = known[-count:]
    if not settings.held_out_last:
        rng = np.random.default_rng([settings.judged_by, 0, HELD_OUT_STREAM])
        held = rng.choice(known, count, replace=False)
    out = np.isin(episode[candidates], held)
    return Split(candidates[~out], candidates[out])


STILL = 0.05
"""In normalised units: an arm rests whose increments are all below."""
RESTING_STREAM, SCANNED = 5, 4096


def fewer_at_rest(source: Source, candidates: Rows, share: float, seed: int) -> Rows:
    """The candidates without most of those whose history and future are one rest: this share of them is left."""
    if share >= 1:
        return candidates
    cpu, resting = torch.device("cpu"), np.zeros(len(candidates), bool)
    for first in range(0, len(candidates), SCANNED):
        window = source.window(candidates[first : first + SCANNED], cpu)
        moves = torch.maximum(window.actions.abs().amax((1, 2)), window.past_actions.abs().amax((1, 2)))
        resting[first : first + SCANNED] = (moves < STILL).numpy()
    chance = np.random.default_rng([seed, 0, RESTING_STREAM]).random(len(candidates))
    return candidates[~resting | (chance < share)]


def uniform(candidates: Rows, batch: int, seed: int) -> Sampler:
    """Draws every batch from all candidates alike."""
    if not len(candidates):
        raise TrainingError("there is no window to train on; record longer episodes")
    return lambda step: np.random.default_rng([seed, step]).choice(candidates, batch)


def sampler_of(source: Source, candidates: Rows, batch: int, settings: Settings) -> Sampler:
    """Batches from `candidates`, which ascend: all alike, or from each dataset by its weight and alike within it.

    Raises `TrainingError` for weights that fit no dataset.
    """
    if settings.weights is None:
        return uniform(candidates, batch, settings.seed)
    ends = np.searchsorted(candidates, source.bounds)
    count, weights = len(ends) - 1, settings.weights
    if len(weights) != count or not all(weight >= 0 for weight in weights):
        raise TrainingError(f"--weights {list(weights)} for {count} datasets; give each one, none negative")
    shares = np.where(np.diff(ends) > 0, np.asarray(weights, float), 0.0)
    if not shares.sum() > 0:
        raise TrainingError("every dataset that has a window to draw has weight 0")

    def rows(step: int) -> Rows:
        generator = np.random.default_rng([settings.seed, step])
        part = generator.choice(count, batch, p=shares / shares.sum())
        low, high = ends[:-1][part], ends[1:][part]
        return candidates[low + (generator.random(batch) * (high - low)).astype(np.int64)]

    return rows
