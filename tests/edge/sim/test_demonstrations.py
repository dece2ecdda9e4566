"""Recording demonstrations of reaching: what an episode holds, and plain ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from edge.arms import load_arm
from edge.sim.demonstrations import INSTRUCTIONS, PLAIN_STEPS, Recorder
from edge.sim.scene import TARGETS

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
        starts.append(np.abs(episode.state_rad[0] - ARM.home_rad).max())
    assert min(starts) < 0.25 < max(starts), "some begin near home, others anywhere above the table"


@pytest.mark.parametrize("told", [0, 5])
def test_a_plain_episode_is_one_instruction_from_home_to_rest(recorder: Recorder, told: int) -> None:
    for number in range(4):
        episode = recorder.record(np.random.default_rng([6, number]), told)
        assert set(episode.instruction) == {told} and set(episode.segment) == {0}
        assert len(episode.state_rad) == PLAIN_STEPS
        assert np.abs(episode.state_rad[0] - ARM.home_rad).max() < 0.25
        moves = np.abs(episode.action_rad).max(axis=1)
        assert moves[-1] < 0.06 * moves.max(), "the arm has come to its cube"


def test_instructions_that_take_turns_name_every_cube_as_often() -> None:
    named = [list(TARGETS)[number % len(INSTRUCTIONS) % len(TARGETS)] for number in range(30)]
    assert {named.count(colour) for colour in TARGETS} == {10}
    assert all(colour in INSTRUCTIONS[number % len(INSTRUCTIONS)] for number, colour in enumerate(named))
