"""What the runs learn from: recorded once, then read by every run from one file each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.bundle.files import replacing
from edge.errors import InputError
from export.families.action_prior.config import PolicyConfig
from export.families.action_prior.embodiment import Embodiment
from export.training.data import DatasetError, Demonstrations, fit_embodiments, read_demonstrations
from lab.prior.scale import Scale
from lab.prior.variants import FEW, MANY, REACH, Stage1

DEMONSTRATIONS = "demonstrations"
STAGE1 = "trajectories-"
GENERATED = "generated-"
SETS = {
    DEMONSTRATIONS: ("reach", "franka", 31),
    STAGE1 + REACH: ("reach", "franka", 32),
    STAGE1 + "lift-franka_hand": ("lift", "franka_hand", 33),
    STAGE1 + "lift-so101": ("lift", "so101", 34),
}
"""Task, arm and seed of what is recorded here; no two share an episode."""
SCENES_SEED = 35


def episodes_of(name: str, scale: Scale) -> int:
    """How many episodes of a set are recorded."""
    return {
        DEMONSTRATIONS: scale.training_episodes + scale.held_out_episodes,
        STAGE1 + REACH: scale.reach,
        STAGE1 + "lift-franka_hand": scale.lift,
        STAGE1 + "lift-so101": scale.lift_other,
    }[name]


def record_set(name: str, scale: Scale, config: PolicyConfig, folder: Path) -> None:
    """Records a set, or goes on where it was stopped, and leaves it in `folder/NAME.npz`."""
    from lab.experts.demonstrations import main as record

    task, arm, seed = SETS[name]
    arguments = ["--episodes", str(episodes_of(name, scale)), "--seed", str(seed), "--out", str(folder / name)]
    arguments += ["--task", task, "--arm", arm]
    record([*arguments, "--plain" if name == DEMONSTRATIONS else "--no-frames"])
    keep(read_demonstrations(folder / name, config=config if name == DEMONSTRATIONS else None), folder / f"{name}.npz")


def take_over(generated: Sequence[Path], folder: Path) -> None:
    """Takes trajectories of other arms (docs/howto/data.md) over into stage 1. Raises `InputError`."""
    for source in generated:
        target = folder / f"{STAGE1}{GENERATED}{source.name}.npz"
        if not target.exists():
            try:
                keep(read_demonstrations(source), target)
            except DatasetError as error:
                raise InputError(f"--generated: {error}") from None


def keep(data: Demonstrations, path: Path) -> None:
    """Writes whole or not at all."""
    values = {field.name: getattr(data, field.name) for field in fields(data)}
    plain = {name: value for name, value in values.items() if not isinstance(value, np.ndarray)}
    arrays: dict[str, Any] = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
    with replacing(path) as partial, partial.open("wb") as opened:
        np.savez(opened, plain=np.array(json.dumps(plain)), **arrays)


def kept(path: Path) -> Demonstrations:
    """Reads what `keep` wrote."""
    with np.load(path, allow_pickle=False) as archive:
        values: dict[str, Any] = {name: archive[name] for name in archive.files}
    plain = json.loads(str(values.pop("plain")))
    values |= {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()}
    return Demonstrations(**values)


def some_episodes(data: Demonstrations, episodes: NDArray[np.int64]) -> Demonstrations:
    """The rows of these episodes, in their order in the recording."""
    rows = np.isin(data.episode, episodes)
    frames = data.frames[rows] if data.frames is not None else None
    names = ("states", "actions", "instruction", "segment", "episode")
    return replace(data, frames=frames, **{name: getattr(data, name)[rows] for name in names})


def stage1_sets(folder: Path) -> dict[str, Demonstrations]:
    """All sets of trajectories that are there, by name."""
    paths = sorted(folder.glob(f"{STAGE1}*.npz"))
    return {path.stem.removeprefix(STAGE1): kept(path) for path in paths}


def chosen_sets(sets: dict[str, Demonstrations], stage1: Stage1) -> list[Demonstrations]:
    """What one prior learns from: the first episodes of every set, one at least."""
    chosen = []
    for name, data in sets.items():
        if name != REACH or stage1.same_task:
            known = np.unique(data.episode)
            chosen.append(some_episodes(data, known[: max(1, round(stage1.share * len(known)))]))
    return chosen


def demonstrations_for(data: Demonstrations, count: int, seed: int, scale: Scale) -> list[Demonstrations]:
    """Training episodes of a run and the held-out ones, the same for all runs.

    With few demonstrations each seed has other episodes; with many, every seed has all of them.
    """
    training = np.arange(scale.training_episodes)
    if count == FEW:
        training = np.roll(training, -seed * scale.few_episodes)[: scale.few_episodes]
    held_out = scale.training_episodes + np.arange(scale.held_out_episodes)
    return [some_episodes(data, training), some_episodes(data, held_out)]


def embodiments_of(
    sets: dict[str, Demonstrations], data: Demonstrations, config: PolicyConfig
) -> tuple[Embodiment, ...]:
    """The same for every run, whatever it learns from, so that errors are in the same unit everywhere."""
    return fit_embodiments([data, *sets.values()], config.normalisation_quantile)


def followed(data: Demonstrations) -> dict[str, int]:
    """How often each cube is the goal of an instruction that is followed."""
    _, first = np.unique(data.segment, return_index=True)
    texts = [data.instructions[number] for number in data.instruction[first]]
    return {colour: sum(colour in text.split() for text in texts) for colour in ("red", "green", "blue")}


def described(folder: Path, scale: Scale) -> dict[str, Any]:
    """What the data is, for the report."""
    data = kept(folder / f"{DEMONSTRATIONS}.npz")
    sizes = {name: [len(np.unique(one.episode)), len(one.states)] for name, one in stage1_sets(folder).items()}
    (few, held_out), (many, _) = (demonstrations_for(data, count, 0, scale) for count in (FEW, MANY))
    return {
        "stage1": sizes,
        "few": {"episodes": len(np.unique(few.episode)), "steps": len(few.states), "followed": followed(few)},
        "many": {"episodes": len(np.unique(many.episode)), "steps": len(many.states), "followed": followed(many)},
        "held_out": {"episodes": scale.held_out_episodes, "steps": len(held_out.states)},
    }
