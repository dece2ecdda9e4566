"""The commanded trajectory: delays, prefixes, splices without jumps."""

from __future__ import annotations

import numpy as np
import pytest

from edge.plan.replanner import LatencyEstimate
from edge.plan.timeline import Timeline, soft_start
from edge.plan.trajectory import segment_accelerations, spline_velocities

STEP_US = 100_000


def test_the_estimate_is_the_largest_of_the_last_ten_latencies_and_the_lead() -> None:
    latency = LatencyEstimate(lead_us=30_000)
    assert latency.needed_us == 30_000
    latency.add(150_000)
    for _ in range(9):
        latency.add(10_000)
    assert (latency.largest_us, latency.needed_us) == (150_000, 180_000)
    latency.add(10_000)
    assert latency.needed_us == 40_000


def timeline_with_a_chunk() -> Timeline:
    timeline = Timeline(STEP_US, joints=2)
    timeline.begin(5_000_000, np.array([100_000, -200_000]))
    increments = 0.02 * np.sin(0.3 * np.arange(1, 16))[:, None] * np.array([1.0, -0.5])
    timeline.accept(timeline.propose(0, 0, increments, STEP_US))
    return timeline


def test_the_first_chunk_starts_at_rest_where_the_arm_is() -> None:
    timeline = timeline_with_a_chunk()
    assert timeline.last == 15
    assert timeline.q_urad(0).tolist() == [100_000, -200_000]
    assert timeline.dq_urad_s(0).tolist() == [0, 0]
    assert timeline.due_us(15) == 6_500_000
    assert timeline.step_at(5_250_000) == 2
    assert timeline.buffered_us(6_000_000) == 500_000


def test_increments_come_back_as_they_were_committed() -> None:
    timeline = timeline_with_a_chunk()
    wanted = 0.02 * np.sin(0.3 * np.arange(4, 7))[:, None] * np.array([1.0, -0.5])
    assert timeline.increments_rad(3, 3) == pytest.approx(wanted, abs=2e-6)


@pytest.mark.parametrize("delay", [1, 3, 6])
def test_a_splice_keeps_the_commanded_position_and_velocity(delay: int) -> None:
    timeline = timeline_with_a_chunk()
    observed = 4
    knots = timeline.propose(observed, delay, np.full((15, 2), 0.01), STEP_US)
    assert knots.first == observed + delay
    assert knots.last == observed + 15
    assert knots.q_urad[0].tolist() == timeline.q_urad(knots.first).tolist()
    assert knots.dq_urad_s[0].tolist() == timeline.dq_urad_s(knots.first).tolist()
    assert np.diff(knots.q_urad, axis=0) == pytest.approx(10_000, abs=1)


def test_a_chunk_that_repeats_the_plan_changes_nothing_but_the_horizon() -> None:
    timeline = timeline_with_a_chunk()
    same = np.vstack([timeline.increments_rad(5, 10), np.zeros((5, 2))])
    knots = timeline.propose(5, 2, same, STEP_US)
    before = [timeline.q_urad(knot).tolist() for knot in range(7, 16)]
    timeline.accept(knots)
    assert np.abs(np.array(before) - [timeline.q_urad(knot) for knot in range(7, 16)]).max() <= 2
    assert timeline.last == 20


def test_a_stretched_plan_keeps_its_path_and_its_speed_at_the_splice() -> None:
    timeline = timeline_with_a_chunk()
    path = [timeline.q_urad(knot).tolist() for knot in range(16)]
    stretched = timeline.retime(6, 250_000)
    assert stretched.first == 6 and stretched.last == 15
    assert stretched.dq_urad_s[0].tolist() == timeline.dq_urad_s(6).tolist()
    timeline.accept(stretched)
    assert [timeline.q_urad(knot).tolist() for knot in range(16)] == path
    assert [timeline.due_us(knot) for knot in (5, 6, 7, 15)] == [5_500_000, 5_600_000, 5_850_000, 7_850_000]
    assert [timeline.spacing_us(step) for step in (0, 5, 6, 14, 99)] == [100_000, 100_000, 250_000, 250_000, 250_000]
    assert [timeline.step_at(at) for at in (4_999_999, 5_000_000, 5_849_999, 5_850_000)] == [-1, 0, 6, 7]
    assert [timeline.first_due(at) for at in (5_000_000, 5_600_001, 7_850_000, 7_850_001)] == [0, 7, 15, 16]


def test_rounding_to_microradians_does_not_add_up() -> None:
    timeline = timeline_with_a_chunk()
    for step in range(5, 200, 5):
        timeline.accept(timeline.propose(step, 1, np.full((15, 2), 1.0004e-3), STEP_US))
    travelled = timeline.q_urad(200) - timeline.q_urad(20)
    chunks = 180 / 5
    assert np.abs(travelled - 180 * 1000.4).max() <= 0.5 * chunks + 1, "at most half a microradian a splice"


def test_the_spline_has_no_jump_in_acceleration_between_knots() -> None:
    rng = np.random.default_rng(0)
    q = rng.normal(size=(12, 3))
    dq = spline_velocities(q, 0.1, np.array([0.3, -0.2, 0.0]))
    start, end = segment_accelerations(q, dq, 0.1)
    assert dq[0].tolist() == [0.3, -0.2, 0.0]
    assert end[:-1] == pytest.approx(start[1:], abs=1e-9)
    assert end[-1] == pytest.approx(0.0, abs=1e-9)


def test_the_spline_follows_a_straight_line_exactly() -> None:
    q = np.linspace(0, 1, 8)[:, None]
    assert spline_velocities(q, 0.1, np.array([10 / 7])) == pytest.approx(10 / 7)


def test_a_start_from_standstill_does_not_jump_in_acceleration() -> None:
    """A steady speed from the first step on, as demonstrations have it: softened, it jumps by a fifth at most."""
    steady = np.full((15, 2), 0.012)
    first = []
    for increments in (steady, soft_start(steady)):
        timeline = Timeline(STEP_US, joints=2)
        timeline.begin(0, np.zeros(2, dtype=np.int64))
        knots = timeline.propose(0, 0, increments, STEP_US)
        start, _ = segment_accelerations(1e-6 * knots.q_urad, 1e-6 * knots.dq_urad_s, 0.1)
        first.append(float(np.abs(start[0]).max()))
    assert first[0] > 4.0 and first[1] < 0.2 * first[0]
    assert np.array_equal(soft_start(steady)[2:], steady[2:]) and np.all(steady == 0.012)
