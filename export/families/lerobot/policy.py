"""What a family makes of a folder: engines to be, how they are wired, and what the chunk is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from export.families.base import CheckpointError
from export.families.lerobot.folder import ACTION, STATE, Folder


@dataclass(frozen=True)
class Beside:
    """What some folders do not hold: folders of the tokenizer, of the vision-language model, and of the policy that an
    adapter changes or the base model that a policy was trained from."""

    tokenizer: Path | None = None
    vlm: Path | None = None
    base: Path | None = None


@dataclass(frozen=True)
class Static:
    """What is traced, and with `rows` repeated once for each; `whole` computes what the finished engine will."""

    module: nn.Module
    whole: nn.Module
    rows: torch.Tensor | None = None


@dataclass(frozen=True)
class Part:
    """One engine to be.

    inputs     examples by name, in the module's order
    reference  builds the network as it is stated, FP32, for the same inputs and outputs
    static     builds what is traced
    """

    name: str
    inputs: Mapping[str, torch.Tensor]
    outputs: tuple[str, ...]
    reference: Callable[[], nn.Module]
    static: Callable[[], Static]


@dataclass(frozen=True)
class Policy:
    """A folder's policy, checked, ready to become engines. Parts run in their order, one in memory at a time.

    links, feeds  where every input comes from, as a bundle's manifest has it: ports are `PART.NAME`
    horizon       rows of the chunk; row 0 is the goal that is sent at the observed step
    execute       of them before the next chunk
    observations  that the policy sees, the newest last
    steps         of a flow or of denoising; 1 for a single pass
    text          the manifest's table of that name, with the tokenizer's `document` and the size of its `vocabulary`
    relative      axes whose goals are relative to the observed state; without any, none is
    """

    folder: Folder
    parts: tuple[Part, ...]
    links: tuple[tuple[str, str], ...]
    feeds: Mapping[str, Mapping[str, Any]]
    result: str
    horizon: int
    execute: int
    observations: int = 1
    steps: int = 1
    prefix: Literal["none", "frozen", "guided"] = "none"
    text: Mapping[str, Any] | None = field(default=None)
    relative: tuple[bool, ...] = ()

    @property
    def action_range(self) -> torch.Tensor:
        """Largest less smallest action of the training data, in the robot's units (axes,). Raises `CheckpointError`."""
        low, high = training_range(self.folder, ACTION)
        return high - low


def training_range(folder: Folder, feature: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Between which values a feature was, two of (axes,). Raises `CheckpointError` where the folder does not say."""
    if feature == ACTION:
        found = folder.outputs.bounds(ACTION, folder.action_width)
    else:
        found = folder.inputs.bounds(STATE, folder.state_width)
    if found is None:
        raise CheckpointError(
            f"{folder.path}: no statistics of '{feature}', which say what its numbers mean; "
            "train with a dataset that has them"
        )
    return found


def frame_port(camera: str) -> str:
    """The name of the input that takes a camera's frames."""
    return f"frame_{camera}"


def checked_execute(folder: Folder, wanted: int, horizon: int) -> int:
    """What a folder says, but at most three quarters of a chunk: LeRobot stands still until the next one is computed,
    and here the rest of a chunk covers that time."""
    if horizon < 2:
        raise CheckpointError(
            f"{folder.config_file}: chunks of {horizon} step leave nothing to join to; train longer ones"
        )
    return min(wanted, max(1, 3 * horizon // 4))
