"""The evaluation of a bundle: several durations of one run, and a push of the arm itself."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from bench.evaluate import EvaluationSettings, evaluate, lines, main
from bench.push import PUSH_M, PUSHES, pushing
from edge.errors import InputError
from edge.inference.records import Outcome, PlanRequest, PlanResult
from edge.run.proportion import wilson
from edge.sim.lockstep import LockstepOutcome, LockstepSettings, run_source
from edge.sim.scenes import ReachScene, open_scene
from lab.experts.expert_planner import EXPERT_SHAPE
from lab.experts.reach_expert import STEP_S, InverseKinematics
from tests.support import FRANKA

TASK = "reach the red cube"


class Still:
    """Keeps the arm where it is: whatever is committed, and nothing after."""

    def answer(self, request: PlanRequest) -> PlanResult:
        increments = np.zeros((EXPERT_SHAPE.horizon, FRANKA.dof))
        increments[: len(request.prefix_rad)] = request.prefix_rad
        return PlanResult.untimed(request.id, Outcome.CHUNK, increments)


@pytest.mark.parametrize("name", list(PUSHES))
def test_a_push_moves_the_arm_itself(name: str) -> None:
    """By 5 cm to that side within a second, commanded and measured alike, within limits, and nothing brings it back."""
    scene = open_scene(FRANKA, 4)
    assert isinstance(scene, ReachScene)
    above = InverseKinematics(scene.model, np.array(FRANKA.home_rad)).solve(scene.placement.goal_m("red"))
    scene.start = tuple(above)
    settings = LockstepSettings(TASK, 4.0, joining=pushing(scene, 1.0, name))
    outcome = run_source(EXPERT_SHAPE, STEP_S, FRANKA, scene, settings, lambda device: Still())
    assert outcome.stop is None and outcome.controller.counters.interventions == 0
    tips = np.array([scene.tip_m(axes) for axes in outcome.track.world])
    before, after = tips[outcome.track.time_s <= 1.0], tips[outcome.track.time_s >= 3.0]
    assert np.ptp(before[2:], axis=0).max() < 2e-3 > np.ptp(after, axis=0).max()
    np.testing.assert_allclose(after[-1] - before[-1], PUSH_M * np.array(PUSHES[name]), atol=4e-3)
    hold = outcome.verdict.hold if outcome.verdict is not None else None
    assert hold is not None and hold.reached_s == 0.0 and hold.held_s == 0.0
    assert hold.worst_m == pytest.approx(PUSH_M, abs=5e-3)


def test_one_run_is_judged_after_each_duration() -> None:
    """The expert has not lifted anything after a second, and holds it after six and at the end."""
    report = evaluate(EvaluationSettings(None, "franka_hand", 1, (1.0, 6.0, 7.0)))
    assert [count.succeeded for count in report.counts] == [0, 1, 1] and report.succeeded == 1
    assert json.loads(json.dumps(asdict(report)))["rows"][0]["refused"] == []
    hold = report.rows[0].verdict.hold
    assert hold is not None and hold.reached_s is not None and 1.0 < hold.reached_s < 6.0 and hold.held_s > 1.0
    assert [line.split(" after ")[1].split(":")[0] for line in lines(report)[:3]] == ["1 s", "6 s", "7 s"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (EvaluationSettings(None, "franka_hand", 1, (8.0, 2.0)), "ascending"),
        (EvaluationSettings(None, "franka_hand", 1, push_s=3.0), "--push"),
    ],
)
def test_what_cannot_be_judged_is_refused(settings: EvaluationSettings, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(settings)


def test_durations_are_read_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--expert", "--arm", "franka_hand", "--episodes", "1", "--duration", "9", "8"]) == 2
    assert "ascending" in capsys.readouterr().err


def test_an_interval_has_no_negative_zero() -> None:
    assert wilson(0, 30)[0] == 0.0 and wilson(30, 30)[1] == 1.0
    assert f"{100 * wilson(0, 30)[0]:.0f}" == "0"


def test_one_object_can_be_asked_for() -> None:
    """In every scene; one that is in none is refused, and so is a policy without text that nobody named one for."""
    report = evaluate(EvaluationSettings(None, "so101", 2, (0.2,), target="blue brick"))
    assert [row.verdict.target for row in report.rows] == ["blue brick"] * 2
    assert lines(report)[0].startswith("lift the blue brick: 0 of 2")
    with pytest.raises(InputError, match="pick up the red cube"):
        evaluate(EvaluationSettings(None, "so101", 1, target="yellow ball"))


def test_the_shipped_policy_stays_at_its_goal_and_comes_back_from_a_push(bundle_path: Path) -> None:
    """The gate of a shipped checkpoint. One that took "nothing is committed" for "stay" held 1 of these 3 for 20 s."""
    pushed = EvaluationSettings(
        bundle_path, "franka", 3, (8, 20, 30, 31, 40), threads=1, first_scene=500_000, push_s=30
    )
    report = evaluate(pushed)
    assert [count.succeeded for count in report.counts[:3]] == [3, 3, 3]
    assert report.counts[3].succeeded < 3, "the push has moved it"
    assert report.counts[4].succeeded == 3
    assert all(row.interventions == 0 and not row.refused and row.stop is None for row in report.rows)


def test_a_run_that_was_stopped_before_it_is_judged_has_not_done_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not after any of the later durations, the last included, though the arm rests with the object in its hand."""
    settings = EvaluationSettings(None, "franka_hand", 1, (5.0, 9.0))

    def short(*arguments: object, **named: object) -> LockstepOutcome:
        outcome = run_source(*arguments, **named)  # type: ignore[arg-type]
        early = outcome.track.time_s < 3.0
        track = replace(outcome.track, time_s=outcome.track.time_s[early], world=outcome.track.world[early])
        assert outcome.done
        return replace(outcome, track=track, stop="five chunks in a row were refused")

    monkeypatch.setattr("bench.evaluate.run_source", short)
    report = evaluate(settings)
    assert report.rows[0].verdict.success and report.rows[0].done_at == [False, False]
    assert [count.succeeded for count in report.counts] == [0, 0] and report.succeeded == 0
