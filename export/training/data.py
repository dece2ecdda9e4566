"""Reads recorded demonstrations and cuts them into training windows."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export.policy.config import PolicyConfig
from export.policy.embodiment import ACTION_JOINTS, STATE_JOINTS, Embodiment, SlotStatistics
from export.policy.policy import Observation, Window
from export.training.instructions import InstructionTokens

DATASET_FORMAT = 1
COLUMNS = ("state_rad", "action_rad", "instruction", "segment", "episode")


class DatasetError(Exception):
    """A dataset that cannot be trained on; the message names the file, and the row where there is one."""


@dataclass(frozen=True)
class Demonstrations:
    """One dataset in memory. Arrays have one row per step; `frames` is None for trajectories alone."""

    embodiment: str
    step_s: float
    joints: tuple[str, ...]
    instructions: tuple[str, ...]
    state_rad: NDArray[np.float32]
    action_rad: NDArray[np.float32]
    instruction: NDArray[np.int16]
    segment: NDArray[np.int16]
    episode: NDArray[np.int32]
    frames: NDArray[np.uint8] | None


def read_demonstrations(folder: Path) -> Demonstrations:
    """Reads `dataset.json` and `episodes.npz`. Raises `DatasetError`."""
    try:
        description = json.loads((folder / "dataset.json").read_text())
        with np.load(folder / "episodes.npz", allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{folder}: cannot be read as a dataset: {error}") from None
    if description.get("format") != DATASET_FORMAT:
        raise DatasetError(
            f"{folder}/dataset.json: format {description.get('format')!r}; this version reads {DATASET_FORMAT}"
        )
    missing = [name for name in COLUMNS if name not in arrays]
    if missing:
        raise DatasetError(f"{folder}/episodes.npz: no column {', '.join(missing)}")
    steps, joints = len(arrays["episode"]), len(description["joints"])
    for name in ("state_rad", "action_rad"):
        if arrays[name].shape != (steps, joints):
            raise DatasetError(f"{folder}/episodes.npz: {name} has shape {arrays[name].shape}, not {(steps, joints)}")
        bad = np.flatnonzero(~np.isfinite(arrays[name]).all(axis=1))
        if bad.size:
            raise DatasetError(f"{folder}/episodes.npz: {name} is not finite in row {bad[0]}")
    return Demonstrations(
        embodiment=description["embodiment"],
        step_s=float(description["step_s"]),
        joints=tuple(description["joints"]),
        instructions=tuple(description["instructions"]),
        frames=arrays.get("frames"),
        **{name: arrays[name] for name in COLUMNS},
    )


def fit_embodiment(data: Demonstrations, index: int, quantile: float) -> Embodiment:
    """Slots and robust statistics of a dataset's arm."""
    return Embodiment(
        name=data.embodiment,
        index=index,
        step_s=data.step_s,
        joints=data.joints,
        actions=SlotStatistics.fit(data.action_rad, ACTION_JOINTS, quantile, centred=True),
        states=SlotStatistics.fit(data.state_rad, STATE_JOINTS, quantile, centred=False),
    )


class Windows:
    """All windows of one dataset, one per step, as batches of tensors."""

    def __init__(self, data: Demonstrations, embodiment: Embodiment, config: PolicyConfig) -> None:
        self.data, self.embodiment, self.config = data, embodiment, config
        self._states = embodiment.states.spread_into(data.state_rad, config.state_slots)
        self._actions = embodiment.actions.spread_into(data.action_rad, config.action_slots)
        self._segment = data.episode.astype(np.int64) * 1000 + data.segment
        self._first = np.searchsorted(data.episode, data.episode)
        self._slots = np.zeros(config.action_slots, dtype=bool)
        self._slots[list(embodiment.actions.slots)] = True

    def __len__(self) -> int:
        return len(self._states)

    def whole(self) -> NDArray[np.int64]:
        """The steps whose chunk ends before the next instruction, or the end of the episode, cuts it short."""
        ends = np.searchsorted(self._segment, self._segment, side="right")
        return np.flatnonzero(np.arange(len(self)) + self.config.horizon <= ends)

    def window(self, steps: NDArray[np.int64], device: torch.device) -> Window:
        """Windows at `steps` (batch,): what follows within the same instruction, what came before in the episode.

        Before an episode the arm stood still: its history is filled up with its first state and no action, as the
        runtime fills it before the first chunk.
        """
        future = steps[:, None] + np.arange(self.config.horizon)
        past = steps[:, None] - np.arange(self.config.history, 0, -1)
        inside = future < len(self)
        future = np.minimum(future, len(self) - 1)
        valid = inside & (self._segment[future] == self._segment[steps][:, None])
        first = self._first[steps][:, None]
        moving = past >= first
        past = np.maximum(past, first)

        def tensor(array: NDArray[Any]) -> torch.Tensor:
            return torch.from_numpy(array).to(device)

        return Window(
            states=tensor(self._states[future] * valid[..., None]),
            actions=tensor(self._actions[future] * valid[..., None]),
            valid=tensor(valid),
            slots=tensor(np.broadcast_to(self._slots, (len(steps), self._slots.size)).copy()),
            past_states=tensor(self._states[past]),
            past_actions=tensor(self._actions[past] * moving[..., None]),
            past_mask=tensor(np.ones(past.shape, dtype=bool)),
            embodiment=torch.full((len(steps),), self.embodiment.index, device=device),
        )

    def observation(self, steps: NDArray[np.int64], text: InstructionTokens, device: torch.device) -> Observation:
        """What the policy sees at `steps`. The dataset must have frames."""
        assert self.data.frames is not None
        tokens, mask = text.of(self.data.instruction[steps])
        frames = torch.from_numpy(self.data.frames[steps][:, None])
        return Observation(frames.to(device), tokens.to(device), mask.to(device))
