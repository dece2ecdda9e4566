"""Recording demonstrations of reaching: what an episode holds, and plain ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge.arms import load_arm
from lab.experts.demonstrations import INSTRUCTIONS, PLAIN_STEPS, Recorder, main
from edge.sim.scene import TARGETS
from export.training.data import read_demonstrations

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


def test_plain_episodes_name_the_cubes_in_turn(tmp_path: Path) -> None:
    main(["--plain", "--no-frames", "--episodes", "6", "--seed", "6", "--out", str(tmp_path / "plain")])
    data = read_demonstrations(tmp_path / "plain")
    _, first = np.unique(data.episode, return_index=True)
    told = [data.instructions[number].split()[-2] for number in data.instruction[first]]
    assert told == [*TARGETS, *TARGETS] and len(data.states) == 6 * PLAIN_STEPS
