"""A person takes the arm over through a leader and hands it back, against the real firmware on a simulated clock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge.inference.records import Outcome, PlanResult
from edge.log.records import Kind
from edge.log.taps import tapped_planner
from edge.plan.trajectory import FloatArray, from_micro
from edge.run.commands import Command
from edge.run.motion import Motion
from edge.run.replay import Replay
from edge.run.take_over import TakeOver
from tests.edge.log.support import LoggedRun
from tests.edge.run.test_supervision import Supervised


class Hand:
    """A leader arm that somebody moves."""

    def __init__(self) -> None:
        self.pose: FloatArray | None = None

    def __call__(self) -> FloatArray | None:
        return self.pose


@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.fixture
def run(tmp_path: Path, hand: Hand) -> Iterator[Supervised]:
    """An arm that is held at rest in the middle of a run, and a leader that stands where it does."""
    run = Supervised(tmp_path / "trace.csv")
    run.supervisor.take_over = TakeOver(run.controller, hand, run.told.append)
    run.go(1520)
    run.commands.put(Command.PAUSE)
    run.go(600)
    assert run.controller.motion is Motion.HELD
    hand.pose = stands(run)
    yield run
    assert run.end().limited.sum() == 0, "whatever the hand does, the plan is within the limits"


def stands(run: Supervised) -> FloatArray:
    assert run.controller.last_state is not None
    return from_micro(run.controller.last_state.measured_urad)


def test_the_arm_follows_the_leader_until_a_pause_and_then_the_policy_again(run: Supervised, hand: Hand) -> None:
    assert hand.pose is not None
    policy, asked = run.controller.planner, len(run.planner.requests)
    run.commands.put(Command.TAKE_OVER)
    run.go(400)
    for _ in range(10):  # a hand that goes 0.2 rad in a second
        hand.pose = hand.pose + np.array([0.02, 0, 0, 0.02, 0, 0, 0])
        run.go(100)
    run.go(1000)
    assert np.abs(stands(run) - hand.pose).max() < 0.005 and run.controller.motion is Motion.RUNNING
    assert len(run.planner.requests) == asked, "the policy was not asked"
    run.commands.put(Command.PAUSE)
    run.go(600)
    assert run.controller.motion is Motion.HELD and run.controller.planner is policy
    rests = stands(run)
    hand.pose = hand.pose + 0.1
    run.go(400)
    assert np.abs(stands(run) - rests).max() < 1e-4, "who has handed it back does not lead any more"
    run.commands.put(Command.START)
    run.go(1500)
    assert len(run.planner.requests) > asked + 1 and np.abs(stands(run) - rests).max() > 0.02


def test_a_leader_that_is_far_away_moves_nothing(run: Supervised, hand: Hand) -> None:
    assert hand.pose is not None
    rests = stands(run)
    hand.pose = hand.pose + np.array([0, 0, 0, 0, 0.9, 0, 0])
    run.commands.put(Command.TAKE_OVER)
    run.go(600)
    assert run.controller.motion is Motion.HELD and np.abs(stands(run) - rests).max() < 1e-4
    assert "the leader is +0.90 rad from the arm in fr3_joint5; bring it within" in run.told[-1]


@pytest.mark.parametrize("pose", [None, np.full(7, np.nan), np.zeros(6)])
def test_a_leader_without_a_pose_moves_nothing(run: Supervised, hand: Hand, pose: FloatArray | None) -> None:
    hand.pose = pose
    run.commands.put(Command.TAKE_OVER)
    run.go(300)
    assert run.controller.motion is Motion.HELD and "leader" in run.told[-1]


def test_a_leader_that_is_lost_gives_the_arm_back_at_rest(run: Supervised, hand: Hand) -> None:
    policy, pose = run.controller.planner, hand.pose
    assert pose is not None
    run.commands.put(Command.TAKE_OVER)
    run.go(400)
    hand.pose = pose + 0.05
    run.go(300)
    hand.pose = None
    run.go(1000)
    assert run.controller.motion is Motion.HELD and run.controller.planner is policy
    assert any("the leader was lost" in text for text in run.told)


def test_a_hand_that_jumps_is_followed_within_the_limits(run: Supervised, hand: Hand) -> None:
    assert hand.pose is not None
    run.commands.put(Command.TAKE_OVER)
    run.go(300)
    hand.pose = hand.pose + np.array([0.6, 0, -0.4, 0, 0, 0.5, 0])
    run.go(3000)
    assert np.abs(stands(run) - hand.pose).max() < 0.01


def test_no_leader_is_said(tmp_path: Path) -> None:
    run = Supervised(tmp_path / "trace.csv")
    run.go(1000)
    run.commands.put(Command.PAUSE)
    run.go(600)
    run.commands.put(Command.TAKE_OVER)
    run.go(100)
    assert "there is no leader arm to take over with" in run.told[-1]
    run.end()


def test_a_take_over_is_marked_in_the_log_and_replays_identically() -> None:
    run = LoggedRun().go(1500)
    run.controller.pause()
    run.go(800)
    assert run.controller.last_state is not None
    pose = from_micro(run.controller.last_state.measured_urad)
    told: list[str] = []
    take_over = TakeOver(
        run.controller, lambda: pose + 0.05, told.append, lambda one: tapped_planner(one, run.rig.journal)
    )
    take_over.begin()
    for _ in range(10):
        run.go(100)
        take_over.step()
    run.controller.pause()
    for _ in range(8):
        run.go(100)
        take_over.step()
    run.controller.resume()
    run.go(1000).end()
    records = run.records
    outcomes = [PlanResult.unpack(one.body).outcome for one in records if one.kind is Kind.RESULT]
    led = [outcome is Outcome.LEADER for outcome in outcomes]
    assert told == [] and sum(led) > 5 and not led[0] and not led[-1], "policy, person, policy"
    verdict = Replay(iter(records)).run()
    run.close()
    assert verdict.difference is None and verdict.ended
