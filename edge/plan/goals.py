"""Joint goals as a chunk of increments."""

from __future__ import annotations

import numpy as np

from edge.plan.trajectory import FloatArray


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
