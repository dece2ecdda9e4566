"""Demonstrations of lifting: whole, seeded, resumable, and read by training as they were meant."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge.arms import load_arm
from edge.log.dataset.spec import DatasetWriteError
from edge.sim.lift_phrases import DISTURBED
from export.families.action_prior.config import tiny
from export.training.data import DISTURBED as LEFT_OUT
from export.training.data import Windows, fit_embodiment, read_demonstrations
from lab.experts.demonstrations import main, record_lift
from lab.experts.lift_recorder import LiftEpisode, LiftRecorder

ARMS = ("franka_hand", "so101")


@pytest.fixture(scope="module")
def hand() -> Iterator[LiftRecorder]:
    recorder = LiftRecorder(load_arm("franka_hand"), with_frames=False)
    yield recorder
    recorder.close()


def disturbed_episode(recorder: LiftRecorder) -> LiftEpisode:
    """The first that is disturbed in its middle."""
    for number in range(20):
        episode = recorder.record(np.random.default_rng([0, number]))
        if DISTURBED in episode.tasks:
            return episode
    raise AssertionError("no episode of twenty was disturbed")


def test_the_expert_goes_on_after_a_disturbance(hand: LiftRecorder) -> None:
    episode = disturbed_episode(hand)
    assert episode.success
    assert episode.tasks[-1] != DISTURBED
    assert len(episode.states) == len(episode.actions) == len(episode.tasks)


def test_what_is_recorded_is_what_was_commanded(hand: LiftRecorder) -> None:
    """The arm ends where the increments add up to, but for its lag; the fingers end on the object."""
    episode = hand.record(np.random.default_rng([3, 1]))
    states, actions = np.array(episode.states), np.array(episode.actions)
    commanded = states[0] + np.cumsum(actions, axis=0)
    assert np.abs(states[-1, :7] - commanded[-2, :7]).max() < 0.02
    low, high = hand.layout.held
    assert low <= states[-1, 7] <= high and commanded[-1, 7] < low


@pytest.mark.parametrize("arm", ARMS)
def test_every_step_is_within_the_limits_of_a_run(arm: str) -> None:
    limits = load_arm(arm).operating
    recorder = LiftRecorder(load_arm(arm), with_frames=False)
    episode = recorder.record(np.random.default_rng([2, 0]))
    recorder.close()
    speeds = np.abs(np.array(episode.actions)) / 0.1
    assert (speeds < limits.velocity_rad_s).all()
    assert (np.array(episode.states) >= np.array(limits.position_min_rad) - 1e-3).all()
    assert (np.array(episode.states) <= np.array(limits.position_max_rad) + 1e-3).all()


def test_a_recording_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    arm = load_arm("franka_hand")
    record_lift(arm, 1, 5, tmp_path / "stopped", with_frames=False)
    record_lift(arm, 2, 5, tmp_path / "stopped", with_frames=False)
    record_lift(arm, 2, 5, tmp_path / "whole", with_frames=False)
    stopped, whole = (read_demonstrations(tmp_path / name) for name in ("stopped", "whole"))
    np.testing.assert_array_equal(stopped.actions, whole.actions)
    np.testing.assert_array_equal(stopped.states, whole.states)
    about = json.loads((tmp_path / "whole" / "meta" / "info.json").read_text())["vla_edge"]
    assert about["simulated"] is True and about["seed"] == 5 and about["attempts"] >= 2
    with pytest.raises(DatasetWriteError, match="was begun with seed 5"):
        record_lift(arm, 3, 6, tmp_path / "stopped", with_frames=False)


@pytest.mark.parametrize(("arm", "joints"), [("franka_hand", 7), ("so101", 5)])
def test_training_reads_it_and_leaves_out_what_went_wrong(arm: str, joints: int, tmp_path: Path) -> None:
    main(["--task", "lift", "--arm", arm, "--episodes", "2", "--seed", "1", "--out", str(tmp_path), "--no-frames"])
    data = read_demonstrations(tmp_path)
    assert data.action_slots == (*range(29, 29 + joints), 36)
    assert data.state_slots == (*range(8, 8 + joints), 15)
    windows = Windows(data, fit_embodiment(data, 0, 0.01), tiny())
    told = {data.instructions[number] for number in windows.instruction[windows.demonstrated()]}
    assert LEFT_OUT == DISTURBED and DISTURBED not in told
    disturbed = data.instruction == _number(data.instructions)
    assert set(np.flatnonzero(~disturbed)) == set(windows.demonstrated()) - set(np.flatnonzero(windows.given))
    assert set(windows.whole()) <= set(windows.demonstrated())


def _number(instructions: tuple[str, ...]) -> int:
    return instructions.index(DISTURBED) if DISTURBED in instructions else -1


def test_both_cameras_are_recorded(tmp_path: Path) -> None:
    recorder = LiftRecorder(load_arm("so101"), with_frames=True)
    try:
        episode = recorder.record(np.random.default_rng([1, 1]))
    finally:
        recorder.close()
    assert set(episode.frames) == {"front", "wrist"}
    front, wrist = (np.array(episode.frames[name]) for name in ("front", "wrist"))
    assert front.shape == wrist.shape == (len(episode.states), 128, 128, 3)
    assert (front[0] != front[-1]).any() and (front[0] != wrist[0]).any()
