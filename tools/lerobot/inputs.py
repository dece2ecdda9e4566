"""Observations to run a LeRobot policy on, the same wherever they are made: numpy only.

`fixtures` gives them to LeRobot's own code and keeps what it answered; the tests give them to the engines.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DOCUMENT, OUTPUTS = "fixture.json", "outputs.npz"


@dataclass(frozen=True)
class Inputs:
    """Which observations: everything they follow from.

    frames      pixels (height, width) of every picture, by the robot's own key
    state_low   the states are drawn between these, in the robot's units
    history     how many observations a policy sees, oldest first
    noise       shapes of the normal numbers the policy is given, by name
    tasks       instructions, in turns
    """

    seed: int
    count: int
    frames: dict[str, tuple[int, int]]
    state_low: list[float]
    state_high: list[float]
    history: int = 1
    noise: dict[str, tuple[int, ...]] = field(default_factory=dict)
    tasks: tuple[str, ...] = ("",)


@dataclass(frozen=True)
class Observation:
    """frames uint8 (history, height, width, 3) by key; states float32 (history, width); noise float32 by name."""

    frames: dict[str, NDArray[np.uint8]]
    states: NDArray[np.float32]
    noise: dict[str, NDArray[np.float32]]
    task: str


def observations(inputs: Inputs) -> Iterator[Observation]:
    """Pictures from flat to noisy, states all over their range."""
    low, high = np.array(inputs.state_low), np.array(inputs.state_high)
    for index in range(inputs.count):
        rng = np.random.default_rng([inputs.seed, index])
        frames = {
            key: np.stack([_picture(rng, height, width, index) for _ in range(inputs.history)])
            for key, (height, width) in inputs.frames.items()
        }
        states = (low + (high - low) * rng.random((inputs.history, len(low)))).astype(np.float32)
        noise = {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in inputs.noise.items()}
        yield Observation(frames, states, noise, inputs.tasks[index % len(inputs.tasks)])


def _picture(rng: np.random.Generator, height: int, width: int, index: int) -> NDArray[np.uint8]:
    """Sixteen patches of a colour each, and noise on them that grows from one observation to the next three."""
    patches = rng.integers(0, 256, (4, 4, 3))
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
    grain = rng.integers(-128, 128, (height, width, 3)) * (index % 4) // 4
    return np.clip(patches[rows][:, columns] + grain, 0, 255).astype(np.uint8)


def digest(inputs: Inputs) -> str:
    """SHA-256 of all the observations' numbers: another numpy might draw others."""
    made = hashlib.sha256()
    for seen in observations(inputs):
        for array in (*seen.frames.values(), seen.states, *seen.noise.values()):
            made.update(np.ascontiguousarray(array).tobytes())
    return made.hexdigest()


def write(folder: Path, inputs: Inputs, made_with: str, answers: dict[str, NDArray[Any]]) -> None:
    """The inputs and LeRobot's answers beside the policy's folder: `chunk` (count, rows, axes), and others by name."""
    document = {**inputs.__dict__, "made_with": made_with, "sha256": digest(inputs)}
    (folder / DOCUMENT).write_text(json.dumps(document, indent=1) + "\n")
    np.savez_compressed(folder / OUTPUTS, **answers)  # type: ignore[arg-type]  # numpy's stub


def read(folder: Path, answer: str = "chunk") -> tuple[Inputs, NDArray[np.float32]]:
    """The inputs of a fixture and LeRobot's answers (count, rows, axes). Raises `ValueError` when the inputs differ."""
    document: dict[str, Any] = json.loads((folder / DOCUMENT).read_text())
    document.pop("made_with")
    wanted = document.pop("sha256")
    document["frames"] = {key: tuple(size) for key, size in document["frames"].items()}
    document["noise"] = {name: tuple(shape) for name, shape in document["noise"].items()}
    document["tasks"] = tuple(document["tasks"])
    inputs = Inputs(**document)
    if digest(inputs) != wanted:
        raise ValueError(
            f"{folder}: this numpy draws other observations; make the fixtures again: make lerobot-fixtures"
        )
    with np.load(folder / OUTPUTS) as held:
        return inputs, held[answer]
