"""Recording demonstrations of reaching: what an episode holds, and plain ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edge.arms import load_arm
from edge.sim.lift_phrases import DISTURBED
from edge.sim.scene import CUBE_HALF_M, TARGETS, Placement
from export.families.action_prior.batch import draw_batch, noised_chunk
from export.families.action_prior.config import tiny
from export.training.data import Windows, fit_embodiment, read_demonstrations
from lab.experts.demonstrations import (
    CLEAR_M,
    INSTRUCTIONS,
    OFF_M,
    PLAIN_STEPS,
    SETTLE_DRIFT_STEPS,
    SETTLE_RAD_S,
    ReachEpisode,
    Recorder,
    clear,
    main,
    start_pose,
)
from lab.experts.reach_expert import ACCELERATION_RAD_S2, STEP_S

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


def test_what_disturbed_a_return_is_committed_and_never_imitated(tmp_path: Path) -> None:
    main(["--returns", "--no-frames", "--episodes", "4", "--seed", "8", "--out", str(tmp_path / "returns")])
    data, config = read_demonstrations(tmp_path / "returns"), tiny()
    told = np.array([text != DISTURBED for text in data.instructions])[data.instruction]
    windows = Windows(data, fit_embodiment(data, 0, 0.01), config)
    rows = windows.demonstrated()
    leads = np.flatnonzero(windows.given)
    assert set(rows) == set(np.flatnonzero(told)) | set(leads) and len(leads) > 8
    assert not told[leads].any() and windows.given.max() == config.max_delay
    assert set(windows.instruction[leads]) <= set(data.instruction[told]), "what to do next is what it is told"
    window = windows.window(rows, torch.device("cpu"))
    counts = noised_chunk(config, window, draw_batch(config, len(rows), (1,), torch.device("cpu"))).counts.any(dim=2)
    row, step = torch.nonzero(counts, as_tuple=True)
    assert told[rows[row] + step.numpy()].all(), "only what the expert did is an answer"
    first = counts.int().argmax(dim=1)[torch.from_numpy(windows.given[rows] > 0)]
    assert int((first <= config.max_delay).sum()) > 8, "and what follows a disturbance is one"


@pytest.mark.parametrize("kind", ["--plain", "--returns", "--settles"])
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


def test_an_arm_that_is_held_pushed_or_carried_off_returns_from_where_it_is(recorder: Recorder) -> None:
    held, moved = 0, 0
    for number in range(20):
        episode = recorder.record_return(np.random.default_rng([10, number]))
        way, actions = tips(recorder, episode), np.array(episode.actions)
        struck = np.array(episode.tasks) == DISTURBED
        before = np.flatnonzero(np.diff(struck.astype(int)) == 1)
        after = np.flatnonzero(np.diff(struck.astype(int)) == -1)
        for first, last in zip(before, after):
            held += not np.abs(actions[first + 1 : last + 1]).any()
            moved += np.linalg.norm(way[last] - way[first]) > 0.01
        jumps = np.abs(np.diff(actions, axis=0)).max()
        assert jumps <= ACCELERATION_RAD_S2 * STEP_S**2 + 1e-9, "no step of it is one that an arm cannot take"
        assert np.linalg.norm(way[-5:] - way[-1], axis=1).max() < 0.005
    assert held >= 2 and moved >= 10


def test_an_arm_that_settles_hardly_moves_until_the_expert_brings_it_to_its_goal(recorder: Recorder) -> None:
    posture, aside = [], []
    for number in range(30):
        episode = recorder.record_settling(np.random.default_rng([12, number]))
        struck = np.array(episode.tasks) == DISTURBED
        actions, way = np.array(episode.actions), tips(recorder, episode)
        assert 0 < struck.sum() < SETTLE_DRIFT_STEPS[1] and np.abs(actions[struck]).max() < 5 * SETTLE_RAD_S * STEP_S
        assert not struck[struck.argmin() :].any() and len({*episode.tasks} - {DISTURBED}) == 1
        posture.append(np.abs(episode.states[0] - episode.states[-1]).max())
        aside.append(np.linalg.norm(way[0] - way[-1]))
        assert np.abs(np.diff(actions, axis=0)).max() <= ACCELERATION_RAD_S2 * STEP_S**2 + 1e-9
    assert max(aside) > 0.05 and sum(off < 0.04 for off in aside) >= 8 and max(posture) > 0.1


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
