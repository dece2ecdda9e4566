"""Recording demonstrations of reaching: what an episode holds, and plain ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.arms import load_arm
from edge.sim.lift_phrases import DISTURBED
from edge.sim.scene import CUBE_HALF_M, TARGETS, Placement
from lab.experts.demonstrations import (
    CLEAR_M,
    INSTRUCTIONS,
    OFF_M,
    PLAIN_STEPS,
    ReachEpisode,
    Recorder,
    clear,
    main,
    start_pose,
)
from export.families.action_prior.config import tiny
from export.training.data import Windows, fit_embodiment, read_demonstrations

ARM = load_arm("franka")


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    made = Recorder(ARM, with_frames=False)
    yield made
    made.close()


def test_an_episode_has_two_or_three_instructions(recorder: Recorder) -> None:
    starts = []
    for number in range(12):
        episode = recorder.record(np.random.default_rng([5, number]))
        assert set(episode.segment) in ({0, 1}, {0, 1, 2})
        starts.append(np.abs(episode.states[0] - ARM.home_rad).max())
    assert min(starts) < 0.25 < max(starts), "some begin near home, others anywhere above the table"


@pytest.mark.parametrize("told", [0, 5])
def test_a_plain_episode_is_one_instruction_from_home_to_rest(recorder: Recorder, told: int) -> None:
    for number in range(4):
        episode = recorder.record(np.random.default_rng([6, number]), told)
        assert set(episode.tasks) == {INSTRUCTIONS[told]} and set(episode.segment) == {0}
        assert len(episode.states) == PLAIN_STEPS
        assert np.abs(episode.states[0] - ARM.home_rad).max() < 0.25
        moves = np.abs(episode.actions).max(axis=1)
        assert moves[-1] < 0.06 * moves.max(), "the arm has come to its cube"


def test_training_reads_returns_and_leaves_out_what_carried_them_off(tmp_path: Path) -> None:
    main(["--returns", "--no-frames", "--episodes", "4", "--seed", "8", "--out", str(tmp_path / "returns")])
    data = read_demonstrations(tmp_path / "returns")
    told = np.array([text != DISTURBED for text in data.instructions])[data.instruction]
    assert 0 < int((~told).sum()) < len(told)
    windows = Windows(data, fit_embodiment(data, 0, 0.01), tiny())
    assert set(windows.demonstrated()) == set(np.flatnonzero(told))


@pytest.mark.parametrize("kind", ["--plain", "--returns"])
def test_a_kind_of_reaching_is_none_of_lifting(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--task", "lift", kind, "--out", str(tmp_path / "none")])
    assert ended.value.code == 2 and "are for --task reach" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_plain_episodes_name_the_cubes_in_turn(tmp_path: Path) -> None:
    main(["--plain", "--no-frames", "--episodes", "6", "--seed", "6", "--out", str(tmp_path / "plain")])
    data = read_demonstrations(tmp_path / "plain")
    _, first = np.unique(data.episode, return_index=True)
    told = [data.instructions[number].split()[-2] for number in data.instruction[first]]
    assert told == [*TARGETS, *TARGETS] and len(data.states) == 6 * PLAIN_STEPS


def tips(recorder: Recorder, episode: ReachEpisode) -> NDArray[np.float64]:
    return np.array([recorder.ik.tip_m(state) for state in episode.states])


def test_a_return_begins_at_rest_off_its_goal_on_every_side_and_ends_at_rest_on_it(recorder: Recorder) -> None:
    begins = []
    for number in range(30):
        episode = recorder.record_return(np.random.default_rng([8, number]))
        way = tips(recorder, episode)
        told = [number for number, task in enumerate(episode.tasks) if task != DISTURBED]
        begins.append(way[0] - way[-1])
        assert OFF_M[0] - 0.005 < np.linalg.norm(begins[-1]) < OFF_M[1] + 0.005
        moves = np.abs(episode.actions).max(axis=1)
        assert moves[told[-1]] < 2e-3, "it has come back, and rests"
        assert {episode.tasks[number] for number in told} < set(INSTRUCTIONS)
    sides = np.array(begins)
    for axis in range(3):
        assert sides[:, axis].min() < -0.02 and sides[:, axis].max() > 0.02, f"both sides of axis {axis}"


def test_as_many_returns_lead_up_as_down(recorder: Recorder) -> None:
    """Cubes and table stand below the goal only; a way back must not lead down on average for that."""
    rises = []
    for number in range(120):
        rng = np.random.default_rng([11, number])
        placement = Placement.sample(rng)
        goal_m = placement.goal_m("red")
        off = recorder.pose_off(recorder.ik.solve(goal_m), goal_m, placement, rng)
        rises.append(recorder.ik.tip_m(off)[2] - goal_m[2])
    low, high = np.percentile(rises, [10, 90])
    assert low < -0.04 and high > 0.04
    assert abs(np.mean(rises)) < 3 * np.std(rises) / np.sqrt(len(rises)) and abs(np.mean(rises)) < 0.012


def test_a_returning_tip_keeps_clear_of_cubes_and_table(recorder: Recorder) -> None:
    low, beside = 0, 2 * CUBE_HALF_M + CLEAR_M
    for number in range(40):
        rng = np.random.default_rng([9, number])
        placement = Placement.sample(rng)
        goal_m = placement.goal_m("green")
        goal = recorder.ik.solve(goal_m)
        off = recorder.pose_off(goal, goal_m, placement, rng)
        way = [recorder.ik.tip_m(off + share * (goal - off)) for share in np.linspace(0, 1, 40)]
        assert all(clear(tip, placement, margin_m=CLEAR_M - 0.002) for tip in way)
        low += way[0][2] < beside
    assert low >= 2, "some begin beside a cube, below its top"


def test_an_arm_that_is_carried_off_returns_again(recorder: Recorder) -> None:
    for number in range(20):
        episode = recorder.record_return(np.random.default_rng([10, number]))
        if DISTURBED in episode.tasks:
            break
    assert list(dict.fromkeys(episode.segment)) == [0, 1, 2] and episode.tasks[0] == episode.tasks[-1] != DISTURBED
    way, segment = tips(recorder, episode), np.array(episode.segment)
    away = np.linalg.norm(way - way[-1], axis=1)
    assert away[segment == 0][-1] < 0.005 < 0.01 < away[segment == 2].max() and away[-5:].max() < 0.005


def test_a_start_that_no_pose_reaches_is_drawn_again(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A corner of the box that starts are drawn from has no pose; an episode of seed 0 is one of those."""
    solve, asked = recorder.ik.solve, []

    def unlucky(tip_m: NDArray[np.float64], tolerance_m: float = 1e-4) -> NDArray[np.float64]:
        asked.append(tip_m)
        if len(asked) % 2:
            raise ValueError("no pose")
        return solve(tip_m, tolerance_m)

    monkeypatch.setattr(recorder.ik, "solve", unlucky)
    for number in range(24):
        q = start_pose(ARM, recorder.ik, np.random.default_rng(number))
        assert q.shape == (7,)
    assert len(asked) >= 4
