"""Demonstrations in the policy's terms, cut into training windows; one dataset or several."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export.families.action_prior.config import PolicyConfig
from export.families.action_prior.embodiment import Embodiment, SlotStatistics
from export.families.action_prior.policy import Observation, Window
from export.training.instructions import InstructionTokens
from export.training.lerobot import DatasetError, DatasetInfo, read_frames, read_info, read_rows
from export.training.mapping import EmbodimentMapping, choose_mapping
from export.training.readings import read_as
from export.training.source import sha256_of
from export.training.steps import actions_of, states_of, step_rows

__all__ = ["DatasetError", "Demonstrations", "Windows", "fit_embodiment", "fit_embodiments", "read_demonstrations"]

DISTURBED = "(disturbed)"
"""The task of recorded steps that no policy is to imitate; see docs/notebook/lift.md."""


@dataclass(frozen=True)
class Demonstrations:
    """One dataset in memory, one row per policy step.

    `states` and `actions` are in the policy's units, a column per slot of `state_slots` and `action_slots`; `frames` is
    uint8 (steps, cameras, height, width, 3), or None where trajectories alone were asked for. A segment is a stretch of
    an episode under one instruction.
    """

    embodiment: str
    step_s: float
    joints: tuple[str, ...]
    instructions: tuple[str, ...]
    state_slots: tuple[int, ...]
    action_slots: tuple[int, ...]
    states: NDArray[np.float32]
    actions: NDArray[np.float32]
    instruction: NDArray[np.int32]
    segment: NDArray[np.int64]
    episode: NDArray[np.int64]
    frames: NDArray[np.uint8] | None
    cameras: tuple[str, ...] = ()
    """Their names, in the order of `frames`."""
    remark: str = ""
    """What the user should know of how it was read."""


def read_demonstrations(
    folder: Path,
    mappings: Sequence[EmbodimentMapping] = (),
    config: PolicyConfig | None = None,
    units: str | None = None,
    cameras: Sequence[str] = (),
    calibration: Path | None = None,
) -> Demonstrations:
    """Reads a LeRobot v3 dataset through the mapping for its robot; with `config`, also the frames its policy sees.

    units    of `export.training.readings.UNITS`, for a recording whose values fit more than one
    cameras  their names in the policy's order; by default the mapping's, or the dataset's own order
    calibration  of the arm that has recorded, by whose sweeps its normalised values are read

    Raises `DatasetError`.
    """
    info = read_info(folder)
    mapping = choose_mapping(info, mappings)
    stride = mapping.stride(info)
    for name in mapping.columns:
        info.feature(name, str(mapping.file))
    rows = read_rows(info, mapping.columns)
    mapping, remark = read_as(info, rows, mapping, units, calibration)
    begin = step_rows(rows, stride)
    if not begin.size:
        raise DatasetError(f"{info.file}: no episode is as long as one step of {mapping.step_s * 1e3:g} ms")
    frames, columns = None, tuple[str, ...]()
    if config is not None:
        columns = camera_columns(info, mapping, config.cameras, cameras)
        frames = np.stack([read_frames(info, rows, name, begin, config.frame_px) for name in columns], axis=1)
    episode, instruction = rows.episode[begin], rows.task[begin]
    changed = (np.diff(episode, prepend=episode[:1]) != 0) | (np.diff(instruction, prepend=instruction[:1]) != 0)
    return Demonstrations(
        embodiment=mapping.name,
        step_s=mapping.step_s,
        joints=mapping.joints,
        instructions=rows.tasks,
        state_slots=tuple(slot for group in mapping.states for slot in group.slots),
        action_slots=tuple(slot for group in mapping.actions for slot in group.slots),
        states=states_of(info, rows, mapping, begin).astype(np.float32),
        actions=actions_of(info, rows, mapping, begin, stride).astype(np.float32),
        instruction=instruction.astype(np.int32),
        segment=np.cumsum(changed),
        episode=episode,
        frames=frames,
        cameras=tuple(map(camera_name, columns)),
        remark=remark,
    )


def camera_name(column: str) -> str:
    """What a camera is called, from its column in a dataset: "front" of "observation.images.front"."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", column.removeprefix("observation.images.").removeprefix("observation."))


def camera_columns(
    info: DatasetInfo, mapping: EmbodimentMapping, count: int, names: Sequence[str] = ()
) -> tuple[str, ...]:
    """The columns of a policy's cameras, in its order. Raises `DatasetError` for a dataset that has others."""
    columns = mapping.cameras if mapping.cameras is not None else info.cameras()
    have = ", ".join(columns) or "none"
    if names:
        by_name = {camera_name(column): column for column in columns}
        missing = [name for name in names if name not in by_name]
        if missing:
            raise DatasetError(
                f"{info.file}: has no camera '{missing[0]}', which the policy sees; it has {have}; "
                "name the right ones under cameras in the mapping, or rename them in the dataset"
            )
        columns = tuple(by_name[name] for name in names)
    if len(columns) != count:
        raise DatasetError(
            f"{info.file}: the policy sees {count} camera(s), the dataset has {have}; "
            "name the right ones under cameras in the mapping"
        )
    return columns


def share_instructions(datasets: Sequence[Demonstrations]) -> list[Demonstrations]:
    """The same datasets, with one list of instructions that all of them count by."""
    texts = tuple(dict.fromkeys(text for data in datasets for text in data.instructions))
    index = {text: number for number, text in enumerate(texts)}
    return [
        replace(
            data,
            instructions=texts,
            instruction=np.array([index[text] for text in data.instructions], np.int32)[data.instruction],
        )
        for data in datasets
    ]


def fit_embodiment(data: Demonstrations, index: int, quantile: float) -> Embodiment:
    """Slots and robust statistics of a dataset's arm."""
    return fit_embodiments([data], quantile, index)[0]


def fit_embodiments(datasets: Sequence[Demonstrations], quantile: float, first: int = 0) -> tuple[Embodiment, ...]:
    """One embodiment per name, in the order of the datasets, with the statistics of all its datasets together.

    Raises `DatasetError` where two datasets of one embodiment fill other slots or step otherwise.
    """
    embodiments: list[Embodiment] = []
    for name in dict.fromkeys(data.embodiment for data in datasets):
        same = [data for data in datasets if data.embodiment == name]
        one = same[0]
        for other in same[1:]:
            for what in ("step_s", "joints", "state_slots", "action_slots"):
                if getattr(other, what) != getattr(one, what):
                    raise DatasetError(f"two datasets of '{name}' differ in {what}; use one mapping for both")
        actions = np.concatenate([data.actions for data in same])
        states = np.concatenate([data.states for data in same])
        embodiments.append(
            Embodiment(
                name=name,
                index=first + len(embodiments),
                step_s=one.step_s,
                joints=one.joints,
                actions=SlotStatistics.fit(actions, one.action_slots, quantile, centred=True),
                states=SlotStatistics.fit(states, one.state_slots, quantile, centred=False),
            )
        )
    return tuple(embodiments)


def given_before(data: Demonstrations, most: int) -> NDArray[np.int64]:
    """How many steps from each on nobody demonstrated and a demonstration follows, (steps,); 0 for more than `most`.

    An arm that was held, or carried off, and an expert that goes on from there: the steps of the disturbance are what
    a robot has committed while it plans, right or wrong, and the demonstration is how to go on from them.
    """
    last = np.searchsorted(data.segment, data.segment, side="right")
    follows = np.minimum(last, len(last) - 1)
    told, count = _instructed(data)[data.instruction], last - np.arange(len(last))
    leads = ~told & (last < len(last)) & told[follows] & (data.episode[follows] == data.episode) & (count <= most)
    return np.where(leads, count, 0)


def _instructed(data: Demonstrations) -> NDArray[np.bool_]:
    """Which of the tasks tell what to do."""
    return np.array([text != DISTURBED for text in data.instructions])


class Windows:
    """All windows of one dataset, one per step, as batches of tensors (a `Source`)."""

    def __init__(self, data: Demonstrations, embodiment: Embodiment, config: PolicyConfig) -> None:
        self.data, self.embodiment, self.config = data, embodiment, config
        self._states = embodiment.states.spread_into(data.states, config.state_slots)
        self._actions = embodiment.actions.spread_into(data.actions, config.action_slots)
        self._first = np.searchsorted(data.episode, data.episode)
        self.episode, self.bounds = data.episode, np.array([0, len(data.episode)])
        self.given = given_before(data, config.max_delay)
        leads_to = np.arange(len(data.episode)) + self.given
        self.instruction, self._segment = data.instruction[leads_to], data.segment[leads_to]
        self._slots = np.zeros(config.action_slots, dtype=bool)
        self._slots[list(embodiment.actions.slots)] = True

    def __len__(self) -> int:
        return len(self._states)

    def demonstrated(self) -> NDArray[np.int64]:
        """The steps that show what to do. Those whose task is `DISTURBED` show what went wrong; the last of them are
        here, as what was committed before the demonstration begins (`given`)."""
        return np.flatnonzero(_instructed(self.data)[self.instruction])

    def whole(self) -> NDArray[np.int64]:
        """Those of them whose chunk ends before the next instruction, or the end of the episode, cuts it short."""
        ends = np.searchsorted(self._segment, self._segment, side="right")
        rows = self.demonstrated()
        return rows[rows + self.config.horizon <= ends[rows]]

    def contents(self) -> dict[str, str]:
        """As `Source.contents`."""
        data = self.data
        normalisation = json.dumps([self.embodiment.describe(), self.embodiment.statistics()], sort_keys=True)
        found = {
            "states": sha256_of(data.states),
            "actions": sha256_of(data.actions),
            "instructions": sha256_of(data.instructions),
            "instruction of every step": sha256_of(data.instruction),
            "episodes": sha256_of(data.episode),
            "segments": sha256_of(data.segment),
            "slots": sha256_of(np.array([*data.state_slots, -1, *data.action_slots])),
            "to normalise by": sha256_of([normalisation]),
        }
        return found if data.frames is None else {**found, "frames": sha256_of(data.frames)}

    def window(self, steps: NDArray[np.int64], device: torch.device) -> Window:
        """Windows at `steps` (batch,): what follows within the same instruction, what came before in the episode.

        Before an episode the arm stood still: its history is filled up with its first state and no action, as the
        runtime fills it before the first chunk.
        """
        segment = self._segment
        future = steps[:, None] + np.arange(self.config.horizon)
        past = steps[:, None] - np.arange(self.config.history, 0, -1)
        inside = future < len(self)
        future = np.minimum(future, len(self) - 1)
        valid = inside & (segment[future] == segment[steps][:, None])
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
            given=tensor(self.given[steps]),
        )

    def frames(self, steps: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Raw frames at `steps`, (batch, cameras, height, width, 3). The dataset must have been read with frames."""
        assert self.data.frames is not None
        return self.data.frames[steps]

    def observation(self, steps: NDArray[np.int64], text: InstructionTokens, device: torch.device) -> Observation:
        """What the policy sees at `steps`. The dataset must have been read with frames."""
        tokens, mask = text.of(self.instruction[steps])
        frames = torch.from_numpy(self.frames(steps))
        return Observation(frames.to(device), tokens.to(device), mask.to(device))
