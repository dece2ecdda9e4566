"""What a policy's numbers mean: goals of any kind as positions of the arm."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import numpy as np

from edge.plan.trajectory import FloatArray


class GoalKind(Enum):
    """What an axis of a chunk gives for each step, in the arm's unit; its position is due at the end of the step."""

    POSITION = "position"
    INCREMENT = "increment"
    RELATIVE = "position_relative_to_state"


def absolute_goals(
    chunk: FloatArray, kinds: Sequence[GoalKind], state_rad: FloatArray, commanded_rad: FloatArray
) -> FloatArray:
    """Positions (n, J) that a chunk (n, J) names, row i for the end of step i after its observation.

    `kinds` has one entry per axis. Relative positions are added to `state_rad` (J,), the measured state of the chunk's
    own observation; increments add up from `commanded_rad` (J,), the commanded positions at its step.
    """
    of = np.array([kind.value for kind in kinds])
    base = np.where(of == GoalKind.RELATIVE.value, state_rad, 0.0)
    base = np.where(of == GoalKind.INCREMENT.value, commanded_rad, base)
    goals: FloatArray = base + np.where(of == GoalKind.INCREMENT.value, np.cumsum(chunk, axis=0), chunk)
    return goals
