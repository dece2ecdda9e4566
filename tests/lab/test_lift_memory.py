"""Windows that live on a device are those of `export.training.data`, and shards are taken in whole."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from edge.sim.lift_phrases import DISTURBED, INSTRUCTIONS
from export.families.action_prior.config import lift
from export.training.data import Demonstrations, Windows
from export.training.instructions import word_tokenizer
from lab.lift.memory import Memory

ARMS = {"franka_hand": 8, "so101": 6}
LENGTHS = (22, 17, 25)


def _shard(folder: Path, arm: str, seed: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    count, axes = sum(LENGTHS), ARMS[arm]
    tasks = np.array([INSTRUCTIONS[seed % 3]] * count, dtype=object)
    tasks[8:11] = DISTURBED
    tasks[11:22] = INSTRUCTIONS[4]
    shard = {
        "lengths": np.array(LENGTHS),
        "states": draw.normal(size=(count, axes)).astype(np.float32),
        "actions": draw.normal(scale=0.1, size=(count, axes)).astype(np.float32),
        "tasks": tasks.astype(str),
        "frames": draw.integers(0, 256, (count, 2, 128, 128, 3), dtype=np.uint8),
        "objects_m": draw.normal(size=(count, 3, 3)).astype(np.float32),
        "targets": draw.integers(0, 3, count),
        "tool_m": draw.normal(size=(count, 3)).astype(np.float32),
        "attempts": np.array(4),
    }
    np.savez(folder / f"{arm}-{seed:06d}.npz", **shard)
    return shard


@pytest.fixture
def filled(tmp_path: Path) -> tuple[Memory, dict[str, dict[str, np.ndarray]]]:
    shards = {arm: _shard(tmp_path, arm, seed) for seed, arm in enumerate(ARMS)}
    memory = Memory(
        lift(), tuple(ARMS), INSTRUCTIONS, word_tokenizer(INSTRUCTIONS), torch.device("cpu"), capacity=150, seed=0
    )
    assert all(memory.add(tmp_path / f"{arm}-{seed:06d}.npz") for seed, arm in enumerate(ARMS))
    memory.fit()
    memory.settle()
    return memory, shards


def test_windows_are_those_of_a_dataset(filled: tuple[Memory, dict[str, dict[str, np.ndarray]]]) -> None:
    memory, shards = filled
    first = 0
    for index, (arm, shard) in enumerate(shards.items()):
        embodiment = memory.embodiments[index]
        texts = (*INSTRUCTIONS, DISTURBED)
        told = np.array([texts.index(text) for text in shard["tasks"]], np.int32)
        episode = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
        changed = (np.diff(episode, prepend=0) != 0) | (np.diff(told, prepend=told[:1]) != 0)
        data = Demonstrations(
            embodiment=arm, step_s=0.1, joints=embodiment.joints, instructions=texts,
            state_slots=embodiment.states.slots, action_slots=embodiment.actions.slots,
            states=shard["states"], actions=shard["actions"], instruction=told,
            segment=np.cumsum(changed), episode=episode, frames=None,
        )  # fmt: skip
        windows = Windows(data, embodiment, memory.config)
        steps = np.flatnonzero(windows.given == 0)  # memory begins no window with what disturbed it
        wanted = windows.window(steps, torch.device("cpu"))
        found = memory.window(torch.from_numpy(steps + first))
        for field in fields(wanted):
            assert torch.equal(getattr(found, field.name), getattr(wanted, field.name)), (arm, field.name)
        first += sum(LENGTHS)


def test_no_disturbance_and_no_held_out_episode_is_drawn(
    filled: tuple[Memory, dict[str, dict[str, np.ndarray]]],
) -> None:
    memory, shards = filled
    tasks = np.concatenate([shard["tasks"] for shard in shards.values()])
    rows = memory.draw_rows(4000, shown=True).numpy()
    assert DISTURBED not in tasks[rows]
    assert rows.min() >= LENGTHS[0], "episode 0 is held out"
    of_so101 = (rows >= sum(LENGTHS)).mean()
    assert 0.45 < of_so101 < 0.55, "both arms are drawn alike"
    assert not set(memory.held_out.numpy()) & set(rows)
    assert DISTURBED not in tasks[memory.held_out.numpy()]


def test_frames_are_kept_and_shifted_by_two_pixels_at_most(
    filled: tuple[Memory, dict[str, dict[str, np.ndarray]]],
) -> None:
    memory, shards = filled
    rows = torch.tensor([0, 30, sum(LENGTHS)])
    plain = memory.observation(rows, augment=False)
    assert np.array_equal(plain.frames[2], shards["so101"]["frames"][0])
    memory._frames[:] = torch.arange(128, dtype=torch.uint8)[:, None, None]  # every pixel says in which row it is
    light = (1 + 0.10) * (1 + 0.05)
    augmented = memory.observation(torch.arange(100), augment=True).frames
    away = (augmented[..., 0] - torch.arange(128.0)[:, None]).abs()
    assert augmented.dtype == torch.float32 and augmented.min() >= 0 and augmented.max() <= 255
    assert away.max() > 2
    assert away.max() < 2 * light + 127.5 * (light * 1.1 - 1) + 1


def test_what_does_not_fit_stays_where_it_is(tmp_path: Path) -> None:
    _shard(tmp_path, "so101", 1)
    memory = Memory(
        lift(), tuple(ARMS), INSTRUCTIONS, word_tokenizer(INSTRUCTIONS), torch.device("cpu"), capacity=10, seed=0
    )
    assert not memory.add(tmp_path / "so101-000001.npz")
    assert (tmp_path / "so101-000001.npz").exists()
