"""Observations of a LeRobot dataset as a policy's engines take them: what INT8 is calibrated on, and judged by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from export.engines.chain import Values, draw_observations
from export.engines.wired import Samples
from export.families.base import CheckpointError
from export.families.lerobot.folder import PICTURES, STATE
from export.families.lerobot.policy import Policy
from export.families.vla.text import prompt_ids
from export.training.lerobot.errors import DatasetError
from export.training.lerobot.frames import read_frames
from export.training.lerobot.info import DatasetInfo, read_info
from export.training.lerobot.rows import Rows, read_rows

CALIBRATING = 0.75
"""Part of the episodes that are calibrated on; it is judged by the others."""


def recorded_observations(policy: Policy, dataset: Path, calibrate: int, verify: int, seed: int) -> Samples:
    """So many observations of each kind. Raises `CheckpointError`."""
    try:
        info = read_info(dataset)
        keys = _cameras(policy, info)
        rows = read_rows(info, [STATE])
        first, others = _choose(rows, dataset, calibrate, verify, seed)
        calibration = _observations(policy, info, rows, keys, first, seed + 1)
        verification = _observations(policy, info, rows, keys, others, seed)
    except DatasetError as error:
        raise CheckpointError(str(error)) from None
    return Samples(verification, calibration, f"recorded, {dataset.name}")


def _cameras(policy: Policy, info: DatasetInfo) -> dict[str, str]:
    """The dataset's column of each of the policy's cameras."""
    keys, folder = {}, policy.folder
    for camera in folder.cameras:
        names = [f"{start}{camera.name}" for start in PICTURES]
        key = next((name for name in names if name in info.features), None)
        if key is None:
            have = ", ".join(info.cameras())
            raise CheckpointError(f"{info.file}: no pictures of camera '{camera.name}' there, it has {have}")
        shape = info.features[key].shape
        if (camera.height, camera.width) not in (shape[:2], shape[1:]):  # colours come last, or first
            raise CheckpointError(
                f"{info.file}: '{key}' has {' x '.join(map(str, shape))} numbers, the policy was trained on "
                f"{camera.height} x {camera.width} pixels; name the dataset it was trained on"
            )
        keys[camera.name] = key
    return keys


def _choose(rows: Rows, dataset: Path, calibrate: int, verify: int, seed: int) -> list[NDArray[np.int64]]:
    """Rows to calibrate on, and rows of other episodes to judge by, both ascending."""
    rng, last = np.random.default_rng(seed), int(rows.episode[-1]) + 1
    border = int(np.searchsorted(rows.episode, round(CALIBRATING * last)))
    if not 0 < border < len(rows.episode):
        raise CheckpointError(
            f"{dataset}: too few episodes to calibrate on some and verify on others; name one with at least 2"
        )
    parts = (np.arange(border), np.arange(border, len(rows.episode)))
    wanted = zip(parts, (calibrate, verify))
    return [np.sort(rng.choice(part, min(count, len(part)), replace=False)) for part, count in wanted]


def _observations(
    policy: Policy, info: DatasetInfo, rows: Rows, keys: dict[str, str], chosen: NDArray[np.int64], seed: int
) -> list[Values]:
    """At the chosen rows; noise and committed goals are drawn, as nothing records them."""
    drawn = draw_observations(policy, len(chosen), seed)
    steps = [_step(rows, chosen, back) for back in reversed(range(policy.observations))]
    every = np.unique(np.concatenate(steps))
    seen = {
        camera.name: read_frames(info, rows, keys[camera.name], every, (camera.height, camera.width))
        for camera in policy.folder.cameras
    }
    for index, values in enumerate(drawn):
        at = [int(step[index]) for step in steps]
        places = np.searchsorted(every, at)
        states = rows.columns[STATE][at]
        ids = prompt_ids(policy.text, rows.tasks[rows.task[at[-1]]], states[-1]) if policy.text else []
        for port, feed in policy.feeds.items():
            if feed["kind"] == "frame":
                values[port] = _shaped(torch.from_numpy(seen[feed["camera"]][places]), values[port])
            elif feed["kind"] == "state":
                values[port] = _shaped(torch.from_numpy(states), values[port])
            elif feed["kind"] == "tokens":
                values[port] = torch.tensor([*ids, *[0] * (len(values[port]) - len(ids))])
            elif feed["kind"] == "token_mask":
                values[port] = torch.arange(len(values[port])) < len(ids)
    return drawn


def _step(rows: Rows, chosen: NDArray[np.int64], back: int) -> NDArray[np.int64]:
    """The rows so many steps earlier; an episode begins at rest."""
    earlier = np.maximum(chosen - back, 0)
    return np.where(rows.episode[earlier] == rows.episode[chosen], earlier, chosen)


def _shaped(found: torch.Tensor, example: torch.Tensor) -> torch.Tensor:
    return found.reshape(example.shape)
