"""What a policy's numbers mean: increments towards goals, and goals of any kind as positions of the arm."""

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


def increments_to(goals_rad: FloatArray, start_rad: FloatArray, prefix_rad: FloatArray) -> FloatArray:
    """Increments (n, J) of the commanded positions that lead along `goals_rad` (n, J), one goal per step.

    The commanded positions begin at `start_rad` (J,) with the committed increments `prefix_rad` (d, J), d < n; goals of
    those steps count only as the path that the later ones continue. A distance between that path and the commanded
    positions is spread over the steps that are left, since a jump of velocity would be refused.
    """
    delay = len(prefix_rad)
    committed_rad = start_rad + prefix_rad.sum(axis=0)
    before_rad = goals_rad[delay - 1] if delay else committed_rad
    steps_rad = np.diff(np.vstack([before_rad, goals_rad[delay:]]), axis=0)
    increments: FloatArray = np.vstack([prefix_rad, steps_rad + (before_rad - committed_rad) / len(steps_rad)])
    return increments
