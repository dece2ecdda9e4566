"""The expert recorded as LeRobot records a person: goals, degrees, one object, nothing of what disturbed it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest

from edge.arms import load_arm
from edge.doors.lerobot_names import LeRobotAxes
from edge.log.dataset import DatasetSpec, DatasetWriter, Vector
from edge.sim.lift_phrases import DISTURBED
from export.training.lerobot.info import read_info
from lab.experts.lift_recorder import LiftEpisode, LiftRecorder, Situations
from lab.experts.teleoperation import ARM, LED, SHORTEST_STEPS, parts, spec, write

RED = Situations({"ready": 1.0}, 1.0, {"push": 1.0}, 0)


@pytest.fixture(scope="module")
def episode() -> Iterator[LiftEpisode]:
    """One in which the arm is pushed aside."""
    recorder = LiftRecorder(load_arm(ARM), with_frames=False, situations=RED)
    yield recorder.record(np.random.default_rng(7))
    recorder.close()


def test_one_object_is_asked_for(episode: LiftEpisode) -> None:
    assert set(episode.targets) == {0}
    assert {task.split(" the ")[-1] for task in episode.tasks} - {DISTURBED} == {"red cube"}


@pytest.mark.parametrize("at", [0, 3, 10, 29])
def test_what_disturbs_is_in_no_part(at: int) -> None:
    """Wherever it happens, and what is too short to learn from is left out; nothing else is."""
    episode = LiftEpisode(tasks=["lift"] * 30)
    episode.tasks[at : at + 4] = [DISTURBED] * len(episode.tasks[at : at + 4])
    kept = [range(30)[part] for part in parts(episode)]
    whole = [range(at), range(at + 4, 30)]
    assert kept == [part for part in whole if len(part) >= SHORTEST_STEPS]


def test_an_action_is_the_goal_at_the_end_of_its_step(episode: LiftEpisode, tmp_path: Path) -> None:
    """In degrees and percent, within the arm's range; the next command begins there, and the arm follows it."""
    arm, units = load_arm(ARM), LeRobotAxes(load_arm(ARM)).units
    vectors = {name: column for name, column in spec(arm, (16, 16)).columns.items() if isinstance(column, Vector)}
    with DatasetWriter(tmp_path, DatasetSpec(10, "so_follower", vectors)) as writer:
        write(writer, replace(episode, frames={}), units, "pick up the red cube")
    info = read_info(tmp_path)
    assert info.fps == 10 and info.feature("action", "").names == tuple(f"{joint}.pos" for joint in arm.joints)
    rows = parquet.read_table(tmp_path / "data" / "chunk-000" / "file-000.parquet").to_pydict()
    states, actions = np.array(rows["observation.state"]), np.array(rows["action"])
    same = np.diff(rows["episode_index"]) == 0
    assert len(set(rows["episode_index"])) == 2 and len(states) == sum(task != DISTURBED for task in episode.tasks)
    commands = units.from_arm(np.array(episode.commands))[[task != DISTURBED for task in episode.tasks]]
    np.testing.assert_allclose(actions[:-1][same], commands[1:][same], atol=1e-4)
    assert np.abs(states[1:] - actions[:-1])[same][:, :5].max() < 3.0
    assert 0.0 <= actions[:, 5].min() < states[:, 5].min() and actions[:, 5].max() <= 100.0
    np.testing.assert_allclose(units.to_arm(units.from_arm(np.array(episode.states))), episode.states, atol=1e-12)


@pytest.mark.parametrize("name", LED)
def test_a_jaw_is_recorded_in_percent_of_its_travel(name: str, tmp_path: Path) -> None:
    """Between its stops, which is what a run takes a percent for. Its limits reach beyond them."""
    arm = load_arm(name)
    stops = np.array(arm.stops_rad).T
    episode = LiftEpisode(tasks=["lift"] * SHORTEST_STEPS)
    for step in range(SHORTEST_STEPS):
        episode.states.append(stops[step % 2])
        episode.commands.append(stops[step % 2])
        episode.actions.append(np.zeros(arm.dof))
    vectors = {key: column for key, column in spec(arm, (16, 16)).columns.items() if isinstance(column, Vector)}
    with DatasetWriter(tmp_path, DatasetSpec(10, name, vectors)) as writer:
        write(writer, episode, LeRobotAxes(arm).units, "lift")
    rows = parquet.read_table(tmp_path / "data" / "chunk-000" / "file-000.parquet").to_pydict()
    for column in ("observation.state", "action"):
        np.testing.assert_allclose(
            np.array(rows[column])[:2, list(arm.grippers)].T, [[0.0, 100.0]] * len(arm.grippers), atol=1e-4
        )
