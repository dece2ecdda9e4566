"""The history of a run: one pair per step, from reports and the committed trajectory."""

from __future__ import annotations

import numpy as np
import pytest

from edge.plan.timeline import Timeline
from edge.policy.history import StepHistory

STEP_US = 100_000


def under_way(length: int, until_us: int) -> StepHistory:
    """One joint that rises by 10 mrad a step along its plan; it is measured 2 mrad below, every 40 ms."""
    timeline, history = Timeline(STEP_US, 1), StepHistory(length, 1)
    history.rest([-2000])
    timeline.begin(0, np.array([0]))
    timeline.accept(timeline.propose(0, 0, np.full((15, 1), 0.01), STEP_US))
    for now_us in range(0, until_us + 1, 40_000):
        history.observe(now_us, [round(now_us / 10) - 2000])
        history.advance(timeline, float(now_us))
    return history


def test_pairs_come_back_in_order_after_the_rest_before_them() -> None:
    states, actions, mask = under_way(4, 360_000).read()
    assert mask.all()
    assert states[:, 0] == pytest.approx([-0.002, -0.002, 0.008, 0.018])
    assert actions[:, 0] == pytest.approx([0.0, 0.01, 0.01, 0.01])


def test_the_oldest_falls_out() -> None:
    states, actions, _ = under_way(4, 1_120_000).read()
    assert states[:, 0] == pytest.approx([0.068, 0.078, 0.088, 0.098])
    assert actions[:, 0] == pytest.approx([0.01] * 4)


def test_rest_is_a_full_history_of_standing_still() -> None:
    history = under_way(3, 360_000)
    history.rest([500_000])
    states, actions, mask = history.read()
    assert mask.all() and np.all(states == 0.5) and np.all(actions == 0)


def test_before_the_arm_has_been_seen_no_row_holds_a_pair() -> None:
    assert not StepHistory(3, 2).read()[2].any()


def test_what_was_read_does_not_change_any_more() -> None:
    history = under_way(4, 360_000)
    states, _, _ = history.read()
    before = states.copy()
    history.rest([0])
    assert np.array_equal(states, before)
