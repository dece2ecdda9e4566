"""Goals of any kind as positions."""

from __future__ import annotations

from itertools import product

import numpy as np

from edge.plan.goals import GoalKind, absolute_goals

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
