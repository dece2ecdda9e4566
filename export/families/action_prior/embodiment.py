"""Which slots an arm uses, and the statistics that normalise them."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.reading import Between, Name, Sized, typed

Slots: TypeAlias = Annotated[tuple[Annotated[int, Between(0, 255)], ...], Sized(1, 256)]
Offset: TypeAlias = Annotated[float, Between(-1e4, 1e4)]
Scale: TypeAlias = Annotated[float, Between(1e-6, 1e4)]
SMALLEST_SCALE = 1e-4
"""A span below this is none: the value stands still nearly always."""


@dataclass(frozen=True)
class SlotStatistics:
    """`normalised = (value - offset) / scale` for the slots an embodiment uses, in their order."""

    slots: Slots
    offset: Annotated[tuple[Offset, ...], Sized(1, 256)]
    scale: Annotated[tuple[Scale, ...], Sized(1, 256)]

    def __post_init__(self) -> None:
        if len(set(self.slots)) != len(self.slots):
            raise ValueError("slots name one slot twice")
        if not len(self.slots) == len(self.offset) == len(self.scale):
            raise ValueError(f"{len(self.slots)} slots have {len(self.offset)} offsets and {len(self.scale)} scales")

    @staticmethod
    def fit(values: NDArray[np.float32], slots: tuple[int, ...], quantile: float, centred: bool) -> SlotStatistics:
        """Robust statistics of `values` (steps, slots): the span between two quantiles is read as a normal spread.

        `centred` fixes the offset at zero, so that standing still is zero whatever the data. A value that moves in
        fewer steps than the quantiles see, as a gripper's increments do, is scaled by its usual move when it moves.
        """
        low, high = np.quantile(values, [quantile, 1 - quantile], axis=0)
        spread = 2 * NormalDist().inv_cdf(1 - quantile)
        offset = np.zeros_like(low) if centred else (low + high) / 2
        scale = (high - low) / spread
        for column in np.flatnonzero(scale < SMALLEST_SCALE):
            moves = np.abs(values[:, column] - offset[column])
            moves = moves[moves > SMALLEST_SCALE]
            scale[column] = np.median(moves) if moves.size else SMALLEST_SCALE
        return SlotStatistics(slots, tuple(map(float, offset)), tuple(map(float, scale)))

    def spread_into(self, values: NDArray[np.floating[Any]], width: int) -> NDArray[np.float32]:
        """Normalises `values` (..., joints) into slots (..., width); unused slots are zero."""
        out = np.zeros((*values.shape[:-1], width), dtype=np.float32)
        out[..., list(self.slots)] = (values - np.array(self.offset)) / np.array(self.scale)
        return out

    def to_plain(self) -> dict[str, Any]:
        return {"slots": list(self.slots), "offset": list(self.offset), "scale": list(self.scale)}


@dataclass(frozen=True)
class _Described:
    """An arm's entry under "embodiments"."""

    index: Annotated[int, Between(0, 4095)]
    step_s: Annotated[float, Between(1e-3, 10)]
    joints: Annotated[tuple[Name, ...], Sized(1, 256)]
    action: Literal["joint_increment_rad"] = "joint_increment_rad"


@dataclass(frozen=True)
class _Statistics:
    """An arm's entry under "normalisation"."""

    actions: SlotStatistics
    states: SlotStatistics


@dataclass(frozen=True)
class Embodiment:
    """One arm as the policy knows it: its row of the soft prompts, the length of its steps, its slots."""

    name: str
    index: int
    step_s: float
    joints: tuple[str, ...]
    actions: SlotStatistics
    states: SlotStatistics

    def describe(self) -> dict[str, Any]:
        """The part of the checkpoint's "embodiments" entry (statistics go under "normalisation")."""
        return {
            "index": self.index,
            "step_s": self.step_s,
            "joints": list(self.joints),
            "action": "joint_increment_rad",
        }

    def statistics(self) -> dict[str, Any]:
        return {"actions": self.actions.to_plain(), "states": self.states.to_plain()}

    @staticmethod
    def from_plain(name: str, described: Any, statistics: Any) -> Embodiment:
        """Inverse of `describe` and `statistics`. Raises `ReadError`."""
        arm: _Described = typed(_Described, described, f"embodiments.{name}")
        numbers: _Statistics = typed(_Statistics, statistics, f"normalisation.{name}")
        return Embodiment(name, arm.index, arm.step_s, arm.joints, numbers.actions, numbers.states)
