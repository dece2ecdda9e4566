"""When the next chunk is requested after one that is slower than trained."""

from __future__ import annotations

import numpy as np
import pytest

from edge.bundle import ChunkShape
from edge.plan.replanner import ControlSettings, Pending, Replanner
from edge.plan.timeline import Timeline
from edge.plan.trajectory import Knots

STEP_US, SLOW_US, EXECUTE = 33_333, 50_000, 20


def slow_plan() -> Timeline:
    """A plan of 40 steps, half as fast again as trained."""
    timeline = Timeline(STEP_US, 6)
    timeline.begin(1_000_000, np.zeros(6, dtype=np.int64))
    still = np.zeros((41, 6), dtype=np.int64)
    timeline.accept(Knots(0, still, still, SLOW_US))
    return timeline


@pytest.mark.parametrize(
    ("goals_us", "next_step"),
    [(0, 1), (SLOW_US, EXECUTE), (40_000, 1)],
    ids=["inference was slow", "the goals are fast", "less is enough for the goals"],
)
def test_a_plan_is_hurried_only_where_another_chunk_can_be_faster(goals_us: int, next_step: int) -> None:
    replanner, timeline = Replanner(ChunkShape(50, 0, 25, 1), ControlSettings(EXECUTE, 30_000), STEP_US, 0), slow_plan()
    replanner.slowed_by_goals(goals_us)
    replanner.requested(Pending(1, 0, 1, 0), timeline)
    replanner.answered(1)
    due_at = next(step for step in range(1, 40) if replanner.due(timeline, 0, timeline.due_us(step)) is not None)
    assert due_at == next_step
