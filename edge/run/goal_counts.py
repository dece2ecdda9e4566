"""What became of a policy's goals in a run: how far the knots were from them, what was clamped, how much slowed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.plan.shaping import ShapedChunk
from edge.plan.trajectory import FloatArray

DIGITS = 5


@dataclass
class GoalCounts:
    """`worst_rms_rad` and `worst_rad` are per joint (J,), of the chunk in which they were largest; None before one."""

    chunks: int = 0
    changed: int = 0
    slowed: int = 0
    clamped: int = 0
    most_slowed: float = 1.0
    worst_rms_rad: FloatArray | None = None
    worst_rad: FloatArray | None = None

    def add(self, chunk: ShapedChunk) -> None:
        """Takes one chunk that was made of goals."""
        self.chunks += 1
        self.changed += chunk.changed
        self.slowed += chunk.slowed > 1.0
        self.clamped += chunk.clamped
        self.most_slowed = max(self.most_slowed, chunk.slowed)
        rms, most = chunk.deviation.rms_rad, chunk.deviation.max_rad
        self.worst_rms_rad = rms if self.worst_rms_rad is None else np.maximum(self.worst_rms_rad, rms)
        self.worst_rad = most if self.worst_rad is None else np.maximum(self.worst_rad, most)

    def to_plain(self) -> dict[str, Any] | None:
        """For the report; None where no chunk was made of goals."""
        if self.worst_rms_rad is None or self.worst_rad is None:
            return None
        return {
            "chunks": self.chunks,
            "changed": self.changed,
            "slowed": self.slowed,
            "most_slowed": round(self.most_slowed, 3),
            "clamped_goals": self.clamped,
            "worst_rms_deviation": self.worst_rms_rad.round(DIGITS).tolist(),
            "worst_deviation": self.worst_rad.round(DIGITS).tolist(),
        }


def row(goals: dict[str, Any]) -> str:
    """The counts in a line of the table."""
    text = (
        f"{goals['changed']} of {goals['chunks']} chunks changed, at most {max(goals['worst_rms_deviation']):.4f} rms"
    )
    if goals["slowed"]:
        text += f", {goals['slowed']} slowed, up to {goals['most_slowed']:.2f} times"
    return text + (f", {goals['clamped_goals']} goals clamped" if goals["clamped_goals"] else "")
