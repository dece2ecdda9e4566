"""What becomes of a plan: proposed, stretched or refused. The checks of the splice, of every kind of plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge.arms import load_arm
from edge.errors import SafetyStop
from edge.inference.records import PlanRequest
from edge.log.recorder import Recorder
from edge.log.trace import read_trace, violations
from edge.plan.checks import SWING_RAD, ChunkRefusal
from edge.plan.replanner import ControlSettings
from edge.plan.shaping import GoalShaper, ShapedChunk
from edge.plan.splicer import MAX_REFUSALS, Splicer
from edge.plan.timeline import Timeline
from edge.plan.trajectory import IntArray, Knots
from edge.run.controller import Controller
from firmware_bridge.codes import DeviceState
from firmware_bridge.constants import SPLICE_POSITION_RAD, SPLICE_VELOCITY_RAD_S
from tests.edge.run.test_controller import SHAPE, ScriptedPlanner
from tests.support import FRANKA, HOME, Rig

STEP_S, STEP_US, LEAD_US = 0.1, 100_000, 30_000
HELD = tuple(round(1e6 * q) for q in HOME)
STILL = np.zeros((15, 7))
JOIN = Timeline._join
JUMPS = {
    "splice position of joint 3": (SPLICE_POSITION_RAD, 0.0),
    "splice velocity of joint 3": (0.0, SPLICE_VELOCITY_RAD_S),
}


def under_way() -> Splicer:
    """An arm that stands still along a plan of 15 steps that begins at 60 ms, 0.3 s of them executed."""
    splicer = Splicer(FRANKA, STEP_S, LEAD_US)
    assert isinstance(splicer.propose(0, 0, STILL, HELD, STEP_US, 0.0), Knots)
    splicer.accept()
    splicer.reported(360_000)
    return splicer


def jumping(position_rad: float, velocity_rad_s: float) -> Callable[[Timeline, int, IntArray, int], Knots]:
    """Knots that do not begin where the plan in force is, in one joint, by a hair more than is allowed."""

    def join(timeline: Timeline, splice: int, rises_urad: IntArray, spacing_us: int) -> Knots:
        knots = JOIN(timeline, splice, rises_urad, spacing_us)
        q, dq = knots.q_urad.copy(), knots.dq_urad_s.copy()
        q[:, 2] += round(1.001e6 * position_rad)
        dq[0, 2] += round(1.001e6 * velocity_rad_s)
        return replace(knots, q_urad=q, dq_urad_s=dq)

    return join


def test_a_chunk_joins_the_plan_in_force() -> None:
    splicer = under_way()
    knots = splicer.propose(3, 2, STILL, HELD, STEP_US, 400_000.0)
    assert isinstance(knots, Knots) and (knots.first, knots.last) == (5, 18) and splicer.proposed is knots
    assert not splicer.can_send(400_000.0), "one change at a time"


SO101 = load_arm("so101")
LOW, HIGH = np.array(SO101.operating.position_min_rad), np.array(SO101.operating.position_max_rad)


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("joint", range(5))
def test_from_outside_its_limits_a_joint_moves_inward_and_never_further_out(joint: int, side: int) -> None:
    pose = np.array(SO101.home_rad)
    pose[joint] = LOW[joint] - 0.1 if side < 0 else HIGH[joint] + 0.1
    held = tuple(round(1e6 * q) for q in pose)

    def answer(step_rad: float, goals: bool) -> Knots | ShapedChunk | ChunkRefusal:
        splicer, rows = Splicer(SO101, STEP_S, LEAD_US), np.zeros((15, 6))
        rows[:, joint] = -side * step_rad
        if goals:
            return splicer.propose_goals(0, 0, pose + np.cumsum(rows, axis=0), held, STEP_US, 0.0)
        return splicer.propose(0, 0, rows, held, STEP_US, 0.0)

    assert isinstance(answer(0.02, goals=False), Knots) and isinstance(answer(0.0, goals=False), Knots)
    further = answer(-0.002, goals=False)
    assert isinstance(further, ChunkRefusal) and (further.reason, further.joint) == ("position", joint)
    inward = answer(0.02, goals=True)
    assert isinstance(inward, ShapedChunk)
    outward = answer(-0.001, goals=True)  # goals are held to the limits: this one moves inward as well
    assert isinstance(inward, ShapedChunk) and isinstance(outward, ShapedChunk)
    for chunk in (inward, outward):
        q = chunk.knots.q_rad[:, joint]
        beyond = np.maximum(np.maximum(LOW[joint] - q, q - HIGH[joint]), 0.0)
        assert (np.diff(beyond) < SWING_RAD).all() and beyond[0] == pytest.approx(0.1) and beyond[-1] < 0.005


@pytest.mark.parametrize("reason", JUMPS)
def test_a_chunk_that_leaves_the_plan_in_force_with_a_jump_is_refused(
    reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    splicer = under_way()
    monkeypatch.setattr(Timeline, "_join", jumping(*JUMPS[reason]))
    refusal = splicer.propose(3, 2, STILL, HELD, STEP_US, 400_000.0)
    assert isinstance(refusal, ChunkRefusal) and str(refusal).startswith(f"{reason} at knot 0: jump of")
    assert splicer.proposed is None


@pytest.mark.parametrize("jump", [*JUMPS.values(), (0.0, 0.0)])
def test_a_plan_is_stretched_only_without_a_jump(jump: tuple[float, float], monkeypatch: pytest.MonkeyPatch) -> None:
    splicer = under_way()
    monkeypatch.setattr(Timeline, "_join", jumping(*jump))
    monkeypatch.setattr("edge.plan.pace.gentle", lambda timeline, knots: True)
    stretched = splicer.stretch_for_late_inference(8, 100_000.0, 900_000.0, 400_000.0)
    assert (stretched is None) is (jump != (0.0, 0.0)) and splicer.proposed is stretched


def test_five_refusals_in_a_row_end_the_run_and_a_commit_begins_the_count_again() -> None:
    splicer = under_way()
    for _ in range(2):
        for count in range(MAX_REFUSALS - 1):
            splicer.refused(f"number {count}")
        assert isinstance(splicer.propose(3, 2, STILL, HELD, STEP_US, 400_000.0), Knots)
        splicer.accept()
    for count in range(MAX_REFUSALS - 1):
        splicer.refused(f"number {count}")
    with pytest.raises(SafetyStop, match="5 chunks in a row were refused, the last: one too many"):
        splicer.refused("one too many")


def test_goals_join_the_plan_in_force_and_are_the_one_change_that_waits() -> None:
    splicer = under_way()
    goals = HOME + 0.05 * np.linspace(0.1, 1.0, 15)[:, None]
    chunk = splicer.propose_goals(3, 2, goals, HELD, STEP_US, 400_000.0)
    assert isinstance(chunk, ShapedChunk) and splicer.proposed is chunk.knots
    assert (chunk.knots.first, chunk.knots.last) == (5, 18), "goal 2 is that of the first step after the splice"
    assert np.abs(chunk.knots.q_rad[1:] - goals[2:]).max() == chunk.deviation.max_rad.max()
    splicer.accept()
    assert splicer.timeline.last == 18


def test_goals_begin_where_the_arm_is_held() -> None:
    splicer = Splicer(FRANKA, STEP_S, LEAD_US)
    chunk = splicer.propose_goals(0, 0, HOME + 0.02 * np.ones((15, 7)), HELD, STEP_US, 0.0)
    assert isinstance(chunk, ShapedChunk)
    np.testing.assert_array_equal(chunk.knots.q_urad[0], HELD)
    assert splicer.timeline.due_us(0) == 2 * LEAD_US


def test_goals_that_are_refused_change_nothing() -> None:
    splicer = under_way()
    refused = splicer.propose_goals(3, 2, np.full((15, 7), np.nan), HELD, STEP_US, 400_000.0)
    assert isinstance(refused, ChunkRefusal) and splicer.proposed is None


def test_a_slow_plan_comes_back_to_its_time_in_two_chunks_at_least() -> None:
    splicer = Splicer(FRANKA, STEP_S, LEAD_US)
    assert isinstance(splicer.propose_goals(0, 0, np.tile(HOME, (15, 1)), HELD, 3 * STEP_US, 0.0), ShapedChunk)
    splicer.accept()
    spacings = []
    for splice in (5, 10):
        chunk = splicer.propose_goals(splice, 0, np.tile(HOME, (15, 1)), HELD, STEP_US, 0.0)
        assert isinstance(chunk, ShapedChunk)
        splicer.accept()
        spacings.append(chunk.knots.spacing_us)
    assert spacings == [150_000, 100_000]


@pytest.mark.parametrize("steps", [48, 49, 50, 52, 100])
def test_increments_are_sent_as_far_as_the_wire_reaches(steps: int) -> None:
    splicer = Splicer(FRANKA, STEP_S, LEAD_US)
    knots = splicer.propose(0, 0, np.full((steps, 7), 1e-4), HELD, STEP_US, 0.0)
    assert isinstance(knots, Knots) and len(knots.q_urad) == min(steps + 1, 50)


@pytest.mark.parametrize("name", ["franka", "franka_hand", "panda", "so101", "yam"])
def test_a_policy_that_changes_its_mind_leaves_the_limiter_nothing_to_do(tmp_path: Path, name: str) -> None:
    """Every chunk turns around, smoothly and within limits, but for the jump in acceleration at its splice."""
    arm, trace = load_arm(name), tmp_path / "trace.csv"
    limits = arm.operating
    rig = Rig(trace, arm).armed()
    most = 0.4 * STEP_S**2 * np.array(limits.acceleration_rad_s2)
    inward = np.sign(np.add(limits.position_min_rad, limits.position_max_rad) / 2 - np.array(arm.home_rad))
    turned: list[int] = []

    def script(request: PlanRequest) -> np.ndarray:
        turned.append(request.id)
        wanted = most * inward * (1 if len(turned) % 2 else -1)
        last = request.prefix_rad[-1] if len(request.prefix_rad) else np.zeros(arm.dof)
        ramp = np.minimum(np.arange(1, 16 - len(request.prefix_rad)) / 4, 1.0)[:, None]
        return np.vstack([request.prefix_rad.reshape(-1, arm.dof), last + ramp * (wanted - last)])

    controller = Controller(
        rig.client, ScriptedPlanner(rig, script, lambda _: 40_000), arm, SHAPE, STEP_S, ControlSettings(5, LEAD_US),
        Recorder(10_000, arm.dof), 40_000,
    )  # fmt: skip
    for tick in range(1000):
        controller.step(rig.device.now_us * 1000, tick + 2)
        rig.device.tick(4)
    assert rig.device.state is DeviceState.STREAMING and len(turned) > 5 and 0 < controller.splicer.moved_rad < 0.02
    assert (controller.counters.refused, controller.counters.interventions) == ([], 0)
    rig.close()
    assert violations(read_trace(trace), limits, arm.edges) == []


def test_knots_that_can_be_followed_or_have_nothing_near_stay_as_they_are() -> None:
    splicer, kept = under_way(), JOIN(Timeline(STEP_US, 7), 0, np.zeros((14, 7), dtype=np.int64), STEP_US)
    timeline, shaper = splicer.timeline, GoalShaper(FRANKA)
    assert shaper.followable(timeline, kept) is kept
    jumps = timeline.propose(3, 2, np.tile(0.004 * np.eye(7)[1], (15, 1)), STEP_US)
    shaped = shaper.followable(timeline, jumps)
    away = np.abs(shaped.q_rad - jumps.q_rad).max(axis=0)
    assert away[1] > 1e-4 and not np.delete(away, 1).any(), "the joint that jumps, and no other"
    assert FRANKA.goals is not None
    strict = replace(FRANKA, goals=replace(FRANKA.goals, deviation_rad=(1e-6,) * 7))
    assert GoalShaper(strict).followable(timeline, jumps) is not shaped
    np.testing.assert_array_equal(GoalShaper(strict).followable(timeline, jumps).q_urad, jumps.q_urad)
