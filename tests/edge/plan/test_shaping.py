"""Goals of every kind become knots that host and compiled core accept, as near to the goals as the limits allow."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from bench.goal_kinds import KINDS, Situation, at_rest, joints_of, minimum_jerk, under_way
from edge.arms import ArmProfile
from edge.errors import InputError
from edge.plan.checks import ChunkRefusal, check_chunk
from edge.plan.shaping import PACES, GoalShaper, ShapedChunk
from edge.plan.timeline import MOST_STEPS, Timeline
from edge.plan.trajectory import from_micro, segment_accelerations
from tests.goal_chunks import ARMS, SHAPERS, Core, Rows

RATES = (30, 50)
SO101 = ARMS["so101"]
HOME = np.array(SO101.home_rad)


def accepted(arm: ArmProfile, timeline: Timeline, splice: int, goals_rad: Rows, spacing_us: int) -> ShapedChunk:
    """The chunk that host and core have accepted; it keeps within limits between its knots too, as sampled."""
    chunk = SHAPERS[arm.name].shape(timeline, splice, goals_rad, spacing_us)
    assert isinstance(chunk, ShapedChunk), str(chunk)
    assert check_chunk(chunk.knots, timeline, arm.operating) is None
    np.testing.assert_array_less(sampled_excess(chunk, arm), 1e-9)
    return chunk


def sampled_excess(chunk: ShapedChunk, arm: ArmProfile) -> Rows:
    """Most that positions and velocities at 32 points of each segment are beyond the operating limits, per joint."""
    knots, limits, h = chunk.knots, arm.operating, chunk.knots.spacing_s
    q, dq = knots.q_rad, knots.dq_rad_s
    start, end = segment_accelerations(q, dq, h)
    worst = np.full(arm.dof, -np.inf)
    for t in h * np.linspace(0, 1, 33):
        velocity = dq[:-1] + start * t + (end - start) * t**2 / (2 * h)
        at = q[:-1] + dq[:-1] * t + start * t**2 / 2 + (end - start) * t**3 / (6 * h)
        beyond = np.maximum(at - np.array(limits.position_max_rad), np.array(limits.position_min_rad) - at)
        fast = np.abs(velocity) - np.array(limits.velocity_rad_s)
        worst = np.maximum(worst, np.maximum(beyond, fast).max(axis=0))
    return worst


@pytest.mark.parametrize("hz", RATES)
@pytest.mark.parametrize("name", ARMS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_policies_give_is_accepted_by_host_and_core(kind: str, name: str, hz: int) -> None:
    arm = ARMS[name]
    joints = joints_of(arm)
    at = KINDS[kind](SHAPERS[name], arm, hz, np.random.default_rng(hz))
    core = core_of(arm, at)
    chunk = accepted(arm, at.timeline, at.splice, at.goals_rad, at.spacing_us)
    assert core.refusal(at.timeline, chunk.knots) is None
    assert len(chunk.knots.q_urad) == 50, "the wire's most"
    assert arm.goals is not None
    assert (chunk.deviation.rms_rad <= 1.0001 * np.array(arm.goals.deviation_rad)).all()
    away = np.abs(chunk.knots.q_rad[1:] - np.clip(at.goals_rad[:49], *bounds(arm)))
    np.testing.assert_allclose(away.max(axis=0), chunk.deviation.max_rad)
    if kind == "white noise of 0.25 degree":
        assert chunk.changed and chunk.slowed == 1.0
        assert np.degrees(chunk.deviation.rms_rad[joints].max()) < 0.3
    elif "disagree" in kind and chunk.slowed == 1.0:
        end = np.abs(chunk.knots.q_rad[-1] - at.goals_rad[48])
        assert end.max() < 1e-3, "it has come to the new goals"


def core_of(arm: ArmProfile, at: Situation) -> Core:
    """The core with what is committed."""
    core = Core(arm)
    for chunk in at.committed:
        assert core.refusal(at.timeline, chunk.knots) is None
    return core


def bounds(arm: ArmProfile) -> tuple[Rows, Rows]:
    return np.array(arm.operating.position_min_rad), np.array(arm.operating.position_max_rad)


@pytest.mark.parametrize("name", ARMS)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if "disagree" in kind])
def test_a_splice_changes_the_acceleration_by_no_more_than_the_device_follows_in_a_tick(kind: str, name: str) -> None:
    arm = ARMS[name]
    at = KINDS[kind](SHAPERS[name], arm, 30, np.random.default_rng(0))
    chunk = accepted(arm, at.timeline, at.splice, at.goals_rad, at.spacing_us)
    after, _ = segment_accelerations(chunk.knots.q_rad, chunk.knots.dq_rad_s, chunk.knots.spacing_s)
    jump = np.abs(after[0] - at.timeline.acceleration_rad_s2(at.splice))
    changed = chunk.deviation.max_rad > 2e-6
    assert (jump[changed] <= 1e-3 * np.array(arm.operating.jerk_rad_s3)[changed]).all()


@pytest.mark.parametrize("hz", [10, 20, 30, 50])
@pytest.mark.parametrize("name", ARMS)
def test_goals_that_pass_come_out_unchanged(name: str, hz: int) -> None:
    arm = ARMS[name]
    slow = 0.15 * np.array(arm.operating.velocity_rad_s) * (1 - 2 * (np.array(arm.home_rad) > 0))
    at = under_way(SHAPERS[name], arm, hz, 10, slow, 49 / hz)
    chunk = accepted(arm, at.timeline, 10, at.goals_rad, at.spacing_us)
    assert not chunk.changed and chunk.slowed == 1.0 and chunk.clamped == 0
    np.testing.assert_allclose(chunk.knots.q_rad[1:], at.goals_rad, atol=1e-6)


def test_a_joint_that_passes_is_left_alone_beside_one_that_does_not() -> None:
    goals = HOME + minimum_jerk(49, 1 / 30, np.radians([20.0, 0, 0, 0, 0, 0]), 1.6)
    goals[:, 3] += np.radians(0.5) * np.random.default_rng(0).standard_normal(49)
    chunk = accepted(SO101, at_rest(SO101, 33_333), 0, goals, 33_333)
    assert chunk.changed and chunk.deviation.max_rad[3] > 1e-3
    assert (np.delete(chunk.deviation.max_rad, 3) < 1e-6).all()


def test_what_needs_more_than_the_bound_is_slower_and_then_refused() -> None:
    def swing(degrees: float) -> object:
        goals = HOME + minimum_jerk(49, 1 / 30, np.radians([degrees, 0, 0, 0, 0, 0]), 0.7)
        return SHAPERS["so101"].shape(at_rest(SO101, 33_333), 0, goals, 33_333)

    slower = swing(90.0)
    assert isinstance(slower, ShapedChunk) and 1.2 < slower.slowed < 2.0
    assert slower.deviation.rms_rad[0] <= 0.05
    spacing_us = slower.knots.spacing_us
    goals = np.tile(HOME, (49, 1))
    goals[::2, 0] += 0.5  # half a radian, to and fro in every step
    refused = SHAPERS["so101"].shape(at_rest(SO101, 33_333), 0, goals, 33_333)
    assert spacing_us > 33_333 and isinstance(refused, ChunkRefusal)
    assert str(refused).startswith("deviation of joint 1: 0.")
    assert str(refused).endswith("rad rms from the goals, in 4 times their time; the profile allows 0.05")


def test_goals_beyond_a_limit_are_clamped_counted_and_then_refused() -> None:
    high = np.array(SO101.operating.position_max_rad)
    goals = HOME + minimum_jerk(49, 1 / 10, (high - HOME) * (np.arange(6) == 1) + 0.1 * (np.arange(6) == 1), 4.0)
    beyond = int((goals > high).sum())
    chunk = accepted(SO101, at_rest(SO101, 100_000), 0, goals, 100_000)
    assert chunk.clamped == beyond > 0
    assert chunk.knots.q_rad[-1, 1] == pytest.approx(high[1], abs=1e-3)
    refused = SHAPERS["so101"].shape(at_rest(SO101, 100_000), 0, goals + 0.03 * (np.arange(6) == 1), 100_000)
    assert isinstance(refused, ChunkRefusal) and refused.reason == "goal beyond limit" and refused.joint == 1


def test_a_gripper_that_closes_further_than_it_goes_holds() -> None:
    goals = HOME + minimum_jerk(49, 1 / 30, np.array([0, 0, 0, 0, 0, -5.0]), 1.0)
    chunk = accepted(SO101, at_rest(SO101, 33_333), 0, goals, 33_333)
    assert chunk.clamped > 0
    assert chunk.knots.q_rad[-1, 5] == pytest.approx(SO101.operating.position_min_rad[5], abs=1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_before_anything_is_clamped(bad: float) -> None:
    goals = np.tile(HOME, (49, 1))
    goals[7, 5] = bad  # the gripper, whose goals are clamped without a bound
    refused = SHAPERS["so101"].shape(at_rest(SO101, 33_333), 0, goals, 33_333)
    assert isinstance(refused, ChunkRefusal) and refused.reason == "not finite"
    assert (refused.joint, refused.knot) == (5, 7)


@pytest.mark.parametrize("steps", [1, 2, 3, 25, 48, 49, 50, 100])
def test_a_chunk_of_any_length_is_sent_as_far_as_the_wire_reaches(steps: int) -> None:
    rng = np.random.default_rng(steps)
    goals = HOME + np.radians(0.3) * rng.standard_normal((steps, 6))
    timeline = at_rest(SO101, 33_333)
    chunk = accepted(SO101, timeline, 0, goals, 33_333)
    assert len(chunk.knots.q_urad) == 1 + min(steps, MOST_STEPS)
    assert Core(SO101).refusal(timeline, chunk.knots) is None


def test_the_same_goals_give_the_same_knots_whatever_came_before() -> None:
    rng = np.random.default_rng(0)
    chunks = HOME + np.radians(0.5) * rng.standard_normal((20, 49, 6))

    def all_of(order: range) -> list[Rows]:
        shaper = GoalShaper(SO101)
        found = {}
        for index in order:
            chunk = shaper.shape(at_rest(SO101, 33_333), 0, chunks[index], 33_333)
            assert isinstance(chunk, ShapedChunk)
            found[index] = chunk.knots.q_urad
        return [found[index] for index in range(20)]

    for one, other in zip(all_of(range(20)), all_of(range(19, -1, -1))):
        np.testing.assert_array_equal(one, other)


def test_paces_are_within_five_per_cent_of_each_other() -> None:
    assert PACES[0] == 1.0 and PACES[-1] == 4.0
    assert all(1.0 < after / before <= 1.05 for before, after in pairwise(PACES))


def test_an_arm_without_bounds_is_refused_with_what_to_add() -> None:
    with pytest.raises(InputError, match=r"'so101' has no table \[goals\].*add-an-arm"):
        GoalShaper(replace(SO101, goals=None))


def test_an_arm_with_a_low_limit_of_jerk_keeps_to_it() -> None:
    """Where the acceleration may not change from one limit to the other within a step."""
    limits = replace(SO101.operating, jerk_rad_s3=(100.0,) * 6)
    arm = replace(SO101, operating=limits)
    goals = HOME + minimum_jerk(49, 1 / 30, np.radians([40.0, 0, 0, 0, 0, 0]), 0.8)
    goals += np.radians(0.1) * np.random.default_rng(0).standard_normal(goals.shape)
    chunk = GoalShaper(arm).shape(at_rest(arm, 33_333), 0, goals, 33_333)
    assert isinstance(chunk, ShapedChunk)
    h = chunk.knots.spacing_s
    start, end = segment_accelerations(chunk.knots.q_rad, chunk.knots.dq_rad_s, h)
    assert np.abs((end - start) / h).max() < 100.5
    assert np.abs(start[0]).max() < 0.3, "and leaves rest without a jump"


def test_a_splice_at_the_velocity_limit_can_be_left() -> None:
    """The plan in force accelerates up to the limit; the next goals are anywhere."""
    fast = np.array([1.9, 0, 0, 0, 0, 0])
    for splice in range(1, 40, 3):
        at = under_way(SHAPERS["so101"], SO101, 30, splice, fast, 1.25)
        chunk = SHAPERS["so101"].shape(at.timeline, splice, at.goals_rad + 0.05, at.spacing_us)
        assert isinstance(chunk, ShapedChunk), (splice, str(chunk), from_micro(at.timeline.dq_urad_s(splice)))
        assert core_of(SO101, at).refusal(at.timeline, chunk.knots) is None


def test_a_goal_that_is_near_enough_only_in_between_is_found() -> None:
    """A single goal is where a joint's own motion takes it: too near in a short time, too far in a long one."""
    at = under_way(SHAPERS["so101"], SO101, 10, 5, np.radians(60.0) * (np.arange(SO101.dof) == 0), 1.4)
    q, dq = from_micro(at.timeline.q_urad(at.splice)), from_micro(at.timeline.dq_urad_s(at.splice))
    ddq = at.timeline.acceleration_rad_s2(at.splice)
    later_s = 2.4 * at.spacing_us * 1e-6
    there = q + dq * later_s + ddq * later_s**2 / 3  # its acceleration falls to nothing on the way
    chunk = accepted(SO101, at.timeline, at.splice, there[None], at.spacing_us)
    assert 1.9 < chunk.slowed < 2.4
    longest_s = PACES[-1] * at.spacing_us * 1e-6
    assert SO101.goals is not None
    assert abs(q + dq * longest_s + ddq * longest_s**2 / 3 - there)[0] > 2 * SO101.goals.deviation_rad[0]


@pytest.mark.parametrize("name", ARMS)
def test_a_curve_that_comes_to_rest_at_a_limit_stays_inside_between_its_knots(name: str) -> None:
    """Where it turns moves with what holds it: at any spacing the rounds must end, or more be kept back."""
    arm = ARMS[name]
    low, high = bounds(arm)
    for spacing_us in range(50_000, 400_000, 3_500):
        for limit in (low, high):
            goals = np.tile(np.where(np.arange(arm.dof) == arm.dof - 1, limit, np.array(arm.home_rad)), (11, 1))
            chunk = SHAPERS[name].shape(at_rest(arm, spacing_us), 0, goals, spacing_us)
            assert isinstance(chunk, ShapedChunk) or chunk.reason == "deviation", (spacing_us, str(chunk))
