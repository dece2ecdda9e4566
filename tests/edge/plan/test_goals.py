"""Joint goals as increments."""

from __future__ import annotations

from itertools import product

import numpy as np

from edge.plan.goals import GoalKind, absolute_goals, increments_to

START = np.array([0.5, -1.0])


def test_a_path_that_begins_at_the_arm_is_followed_exactly() -> None:
    goals = START + np.outer(np.linspace(0.01, 0.1, 10), [1.0, -2.0])
    increments = increments_to(goals, START, np.zeros((0, 2)))
    np.testing.assert_allclose(START + np.cumsum(increments, axis=0), goals, atol=1e-12)


def test_committed_steps_are_kept_and_a_distance_is_spread_over_the_rest() -> None:
    goals = START + np.outer(np.linspace(0.01, 0.1, 10), [1.0, -2.0])
    prefix = np.array([[0.002, 0.0], [0.004, 0.0]])  # less than the path asks for: the arm lags behind
    increments = increments_to(goals, START, prefix)
    np.testing.assert_array_equal(increments[:2], prefix)
    np.testing.assert_allclose(START + increments.sum(axis=0), goals[-1], atol=1e-12)
    np.testing.assert_allclose(np.ptp(increments[2:], axis=0), 0.0, atol=1e-12)  # no jump of velocity at the splice


def test_what_is_not_finite_stays_so() -> None:
    goals = np.tile(START, (5, 1))
    goals[3, 1] = np.inf
    assert not np.isfinite(increments_to(goals, START, np.zeros((0, 2)))[3:, 1]).any()


KINDS = [GoalKind.POSITION, GoalKind.RELATIVE, GoalKind.INCREMENT]


def test_goals_of_each_kind_become_positions() -> None:
    chunk = np.array([[0.3, 0.01, 0.02], [0.4, 0.03, -0.01]])
    state, commanded = np.array([9.0, 1.0, 9.0]), np.array([7.0, 7.0, -2.0])
    goals = absolute_goals(chunk, KINDS, state, commanded)
    np.testing.assert_allclose(goals, [[0.3, 1.01, -1.98], [0.4, 1.03, -1.99]])


def test_of_mixed_kinds_what_is_not_finite_stays_in_its_axis() -> None:
    """No infinity of one axis reaches another, and none is lost in a product with zero."""
    for axis, bad in product(range(3), (np.nan, np.inf, -np.inf)):
        chunk = np.zeros((4, 3))
        chunk[1, axis] = bad
        finite = np.isfinite(absolute_goals(chunk, KINDS, np.ones(3), np.ones(3)))
        assert not finite[1, axis] and finite[:, np.arange(3) != axis].all()
