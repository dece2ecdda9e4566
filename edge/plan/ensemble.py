"""Temporal ensembling: the goals of all chunks in force, averaged.

Zhao et al. (2023), Learning Fine-Grained Bimanual Manipulation with Low-Cost Hardware, arXiv:2304.13705.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge.plan.trajectory import FloatArray

MOST_CHUNKS = 16
"""That may be averaged."""
DECAY = 0.01
"""Of the weights, by chunk: the published one. The oldest chunk weighs most."""


class Ensemble:
    """The last `size` chunks of goals that were joined to the plan; 1 averages nothing."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._chunks: list[tuple[int, FloatArray]] = []

    def with_newest(self, step: int, goals_rad: FloatArray) -> FloatArray:
        """The goals (n, J) of a chunk observed at `step`, each averaged with those of the chunks in force."""
        if self._size == 1:
            return goals_rad
        return ensembled([*self._chunks, (step, goals_rad)], step)

    def joined(self, step: int, goals_rad: FloatArray) -> None:
        """The chunk is in force, with its own goals."""
        if self._size > 1:
            self._chunks = [*self._chunks, (step, goals_rad)][1 - self._size :]

    def clear(self) -> None:
        """Nothing is in force: steps are counted anew."""
        self._chunks = []


def ensembled(chunks: Sequence[tuple[int, FloatArray]], first: int, decay: float = DECAY) -> FloatArray:
    """Goals (m, J) for the steps from `first` on, as far as the newest chunk reaches.

    chunks  what is in force, oldest first: the step at which each was observed, and its absolute goals (n, J), one for
            each step from there on. A step's goals are averaged with the weights exp(-decay i), i = 0 for the oldest
            chunk that has one. Chunks that are not finite must have been refused before.
    """
    observed, newest = chunks[-1]
    steps = max(observed + len(newest) - first, 0)
    total, weight = np.zeros((steps, newest.shape[1])), np.zeros((steps, 1))
    older = np.zeros(steps, dtype=np.int64)
    for step, goals in chunks:
        rows = np.arange(max(step, first), min(step + len(goals), first + steps)) - first
        share = np.exp(-decay * older[rows])[:, None]
        total[rows] += share * goals[rows + first - step]
        weight[rows] += share
        older[rows] += 1
    return total / weight
