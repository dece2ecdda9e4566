"""Temporal ensembling, beside its published form written out step by step."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edge.plan.ensemble import DECAY, ensembled

Chunks = list[tuple[int, np.ndarray]]


def published(chunks: Chunks, step: int) -> np.ndarray:
    """The average of all chunks that have a goal for this step, the oldest first with the largest weight."""
    named = [goals[step - observed] for observed, goals in chunks if observed <= step < observed + len(goals)]
    weights = [math.exp(-DECAY * index) for index in range(len(named))]
    return sum(weight * goal for weight, goal in zip(weights, named)) / sum(weights)


@pytest.mark.parametrize("seed", range(20))
def test_each_step_is_the_weighted_mean_of_what_names_it(seed: int) -> None:
    draw = np.random.default_rng(seed)
    chunks, observed = [], 0
    for _ in range(draw.integers(1, 8)):
        observed += int(draw.integers(0, 12))
        chunks.append((observed, draw.standard_normal((int(draw.integers(3, 40)), 6))))
    first = observed + int(draw.integers(0, len(chunks[-1][1])))
    goals = ensembled(chunks, first)
    assert len(goals) == observed + len(chunks[-1][1]) - first
    for row, goal in enumerate(goals):
        np.testing.assert_allclose(goal, published(chunks, first + row), atol=1e-12)


def test_one_chunk_is_itself_and_one_that_is_over_gives_nothing() -> None:
    goals = np.arange(20.0).reshape(10, 2)
    np.testing.assert_array_equal(ensembled([(5, goals)], 7), goals[2:])
    assert ensembled([(5, goals)], 15).shape == (0, 2) == ensembled([(5, goals)], 99).shape
