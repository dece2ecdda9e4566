"""Several datasets as one: their windows end to end, and how often each is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from export.families.action_prior.config import PolicyConfig
from export.families.action_prior.embodiment import Embodiment
from export.families.action_prior.policy import Observation, Window
from export.training.data import DatasetError, Demonstrations, Windows, read_demonstrations, share_instructions
from export.training.instructions import InstructionTokens
from export.training.mapping import EmbodimentMapping

Piece = TypeVar("Piece")
Batch = TypeVar("Batch", Window, Observation)


def read_all(
    folders: Sequence[Path],
    mappings: Sequence[EmbodimentMapping] = (),
    config: PolicyConfig | None = None,
    units: str | None = None,
    cameras: Sequence[str] = (),
    calibration: Path | None = None,
) -> list[Demonstrations]:
    """Several datasets that share one list of instructions, and the names and the order of their cameras.

    The first one's cameras are the policy's, where `cameras` does not name them. Raises `DatasetError`.
    """
    datasets: list[Demonstrations] = []
    for folder in folders:
        data = read_demonstrations(folder, mappings, config, units, cameras, calibration)
        datasets.append(data)
        cameras = cameras or data.cameras
    return share_instructions(datasets)


class Mixture:
    """The windows of several datasets, counted through from the first to the last (a `Source`)."""

    def __init__(
        self, datasets: Sequence[Demonstrations], embodiments: Sequence[Embodiment], config: PolicyConfig
    ) -> None:
        arms = {arm.name: arm for arm in embodiments}
        unknown = [data.embodiment for data in datasets if data.embodiment not in arms]
        if unknown:
            raise DatasetError(f"the prior was trained for {', '.join(arms)}, the data is of {unknown[0]}")
        if max(arm.index for arm in embodiments) >= config.embodiments:
            raise DatasetError(f"{len(arms)} embodiments, and the configuration has rows for {config.embodiments}")
        self.parts = [Windows(data, arms[data.embodiment], config) for data in datasets]
        self.bounds = np.cumsum([0, *(len(part) for part in self.parts)])
        """Where each part begins, and where the last one ends."""
        episodes = np.cumsum([0, *(int(part.episode[-1]) + 1 for part in self.parts)])
        self.episode = np.concatenate([part.episode + first for part, first in zip(self.parts, episodes)])
        """The episode of every window, no number twice."""
        self.given = np.concatenate([part.given for part in self.parts])

    def __len__(self) -> int:
        return int(self.bounds[-1])

    def demonstrated(self) -> NDArray[np.int64]:
        """The windows that show what to do, as in `Windows.demonstrated`."""
        return np.concatenate([part.demonstrated() + first for part, first in zip(self.parts, self.bounds)])

    def whole(self) -> NDArray[np.int64]:
        """The windows that nothing cuts short, as in `Windows.whole`."""
        return np.concatenate([part.whole() + first for part, first in zip(self.parts, self.bounds)])

    def contents(self) -> dict[str, str]:
        """As `Windows.contents`, with the number of the dataset."""
        return {
            f"{name} of dataset {number}": value
            for number, part in enumerate(self.parts, 1)
            for name, value in part.contents().items()
        }

    def window(self, rows: NDArray[np.int64], device: torch.device) -> Window:
        """Windows at `rows`, in their order."""
        pieces = self._pieces(rows, lambda part, steps: part.window(steps, device))
        return pieces[0] if len(pieces) == 1 else _joined(pieces, _order(self._part_of(rows)).to(device))

    def observation(self, rows: NDArray[np.int64], text: InstructionTokens, device: torch.device) -> Observation:
        """What the policy sees at `rows`; `text` holds the instructions that the datasets share."""
        pieces = self._pieces(rows, lambda part, steps: part.observation(steps, text, device))
        return pieces[0] if len(pieces) == 1 else _joined(pieces, _order(self._part_of(rows)).to(device))

    def frames(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Raw frames at `rows`, (batch, cameras, height, width, 3)."""
        pieces = self._pieces(rows, lambda part, steps: part.frames(steps))
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)[_order(self._part_of(rows)).numpy()]

    def _part_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(self.bounds, rows, side="right") - 1

    def _pieces(self, rows: NDArray[np.int64], of: Callable[[Windows, NDArray[np.int64]], Piece]) -> list[Piece]:
        part = self._part_of(rows)
        return [of(self.parts[index], rows[part == index] - self.bounds[index]) for index in np.unique(part)]


def _order(part: NDArray[np.int64]) -> torch.Tensor:
    """Which place of the pieces, laid end to end, belongs at each place of the batch."""
    return torch.from_numpy(np.argsort(np.argsort(part, kind="stable"), kind="stable"))


def _joined(pieces: list[Batch], order: torch.Tensor) -> Batch:
    """Batches of tensors as one."""
    kind = type(pieces[0])
    return kind(*(torch.cat([getattr(piece, field.name) for piece in pieces])[order] for field in fields(kind)))
