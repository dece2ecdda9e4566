"""Which slots an arm uses, and the statistics that normalise them."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

SMALLEST_SCALE = 1e-4
"""A span below this is none: the value stands still nearly always."""


@dataclass(frozen=True)
class SlotStatistics:
    """`normalised = (value - offset) / scale` for the slots an embodiment uses, in their order."""

    slots: tuple[int, ...]
    offset: tuple[float, ...]
    scale: tuple[float, ...]

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

    @staticmethod
    def from_plain(plain: dict[str, Any]) -> SlotStatistics:
        return SlotStatistics(tuple(plain["slots"]), tuple(plain["offset"]), tuple(plain["scale"]))


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
    def from_plain(name: str, described: dict[str, Any], statistics: dict[str, Any]) -> Embodiment:
        return Embodiment(
            name=name,
            index=int(described["index"]),
            step_s=float(described["step_s"]),
            joints=tuple(described["joints"]),
            actions=SlotStatistics.from_plain(statistics["actions"]),
            states=SlotStatistics.from_plain(statistics["states"]),
        )
