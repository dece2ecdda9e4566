"""Mapping files: columns into slots, units, what becomes of each kind of action, and what is refused."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edge.log.dataset import DatasetSpec, DatasetWriter, Vector
from export.families.action_prior.embodiment import SlotStatistics
from export.training.data import Demonstrations, fit_embodiments, read_demonstrations
from export.training.lerobot import DatasetError, read_info
from export.training.mapping import choose_mapping, read_mapping, shipped_mappings
from tests.recordings import write_dataset

GOLDEN = Path(__file__).parent / "golden" / "so101_follower"
HEAD = """
[embodiment]
name = "two"
robots = ["two_joints"]
step_ms = 100
joints = ["a", "b"]
"""
STATE = """
[[state]]
column = "observation.state"
elements = ["b", "a"]
slots = [9, 8]
unit = "deg"
"""
ACTION = """
[[action]]
column = "action"
kind = "{kind}"
slots = [29, 30]
unit = "rad"
scale = [1.0, -2.0]
"""
BEFORE = """before.column = "observation.state"
before.elements = ["a", "b"]
"""


def mapping_file(folder: Path, text: str) -> Path:
    file = folder / "mapping.toml"
    file.write_text(text)
    return file


@pytest.fixture
def recording(tmp_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """Two episodes at 30 Hz, of 10 and 8 frames: commands and the states that lag behind them."""
    rng = np.random.default_rng(0)
    command, state = rng.normal(size=(18, 2)).astype(np.float32), rng.normal(size=(18, 2)).astype(np.float32)
    spec = {"observation.state": Vector(("a", "b")), "action": Vector(("a", "b"))}
    with DatasetWriter(tmp_path / "data", DatasetSpec(30, "two_joints", spec)) as writer:
        for rows in (slice(0, 10), slice(10, 18)):
            writer.add_episode({"observation.state": state[rows], "action": command[rows]}, "go")
    return tmp_path / "data", command, state


def read(recording: tuple[Path, np.ndarray, np.ndarray], kind: str, more: str = "") -> Demonstrations:
    folder = recording[0]
    file = mapping_file(folder.parent, HEAD + STATE + ACTION.format(kind=kind) + more)
    return read_demonstrations(folder, [read_mapping(file)])


BEGIN = [0, 3, 6, 10, 13]
"""Rows where a step of three frames begins; what is left of an episode is no step."""


def test_states_go_to_their_slots_in_the_policys_unit(recording: tuple[Path, np.ndarray, np.ndarray]) -> None:
    data = read(recording, "position")
    assert data.state_slots == (9, 8) and data.action_slots == (29, 30)
    assert np.allclose(data.states, np.deg2rad(recording[2][BEGIN][:, ::-1]), rtol=1e-6)
    assert data.episode.tolist() == [0, 0, 0, 1, 1] and data.step_s == 0.1


def test_positions_become_increments_of_the_command(recording: tuple[Path, np.ndarray, np.ndarray]) -> None:
    _, command, state = recording
    scale = np.array([1.0, -2.0])
    earlier = np.array([command[0], command[2], command[5], command[10], command[12]])
    last = command[[2, 5, 8, 12, 15]]
    assert np.allclose(read(recording, "position").actions, (last - earlier) * scale, atol=1e-6)
    earlier[[0, 3]] = state[[0, 10]]
    assert np.allclose(read(recording, "position", BEFORE).actions, (last - earlier) * scale, atol=1e-6)


def test_increments_and_rates_add_up_and_a_command_holds(recording: tuple[Path, np.ndarray, np.ndarray]) -> None:
    _, command, _ = recording
    added = np.array([command[first : first + 3].sum(axis=0) for first in BEGIN]) * [1.0, -2.0]
    assert np.allclose(read(recording, "increment").actions, added, atol=1e-5)
    assert np.allclose(read(recording, "rate").actions, added / 30, atol=1e-6)
    assert np.allclose(read(recording, "hold").actions, command[[2, 5, 8, 12, 15]] * [1.0, -2.0], atol=1e-6)


def with_a_jaw(folder: Path) -> Path:
    """LeRobot's own recording, with a jaw that is within its travel: there it swings about 0 % as the joints do."""
    shutil.copytree(GOLDEN, folder)
    file = folder / "data/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    for name in ("observation.state", "action"):
        rows = np.array(table.column(name).to_pylist(), np.float32)
        rows[:, 5] += 50
        kind = table.schema.field(name).type
        table = table.set_column(table.column_names.index(name), name, pa.array(rows.tolist(), kind))
    pq.write_table(table, file)
    return folder


def test_a_recording_of_lerobot_in_degrees(tmp_path: Path) -> None:
    """The SO-101 as LeRobot records it: 30 Hz, degrees, the jaw in percent of its travel."""
    data = read_demonstrations(with_a_jaw(tmp_path / "data"), units="degrees")
    assert data.embodiment == "so101" and data.joints[-1] == "gripper"
    assert data.state_slots == (8, 9, 10, 11, 12, 15) and data.action_slots == (29, 30, 31, 32, 33, 36)
    step, episode = np.arange(24) % 8 * 3, np.arange(24) // 8
    degrees = 30 * np.sin(0.1 * step[:, None] + episode[:, None] + np.arange(6)) - 1
    degrees[:, 5] = (degrees[:, 5] + 50) * 1.1 - 10
    assert np.allclose(data.states, np.deg2rad(degrees), atol=1e-5)
    changes = np.flatnonzero(np.diff(data.segment))
    assert changes.tolist() == [7, 11, 15], "a new episode, a new instruction, a new episode"


def test_every_shipped_mapping_is_sound() -> None:
    mappings = shipped_mappings()
    assert len(mappings) >= 10
    names = {(robot, group.elements) for one in mappings for robot in one.robots for group in one.states}
    assert len(names) == sum(len(one.robots) * len(one.states) for one in mappings), "two fit one dataset"
    simulated = {mapping.name for mapping in mappings if mapping.name.startswith(("robosuite", "metaworld", "so101"))}
    assert len(simulated) >= 8


def test_the_mapping_is_chosen_by_the_robot(tmp_path: Path) -> None:
    known = read_info(write_dataset(tmp_path / "known"))
    assert choose_mapping(known, ()).name == "fr3"
    unknown = read_info(write_dataset(tmp_path / "unknown", robot="mine"))
    with pytest.raises(DatasetError, match=r"no mapping for robot_type 'mine'.*--mapping FILE.*fr3"):
        choose_mapping(unknown, ())
    given = read_mapping(mapping_file(tmp_path, HEAD + STATE + ACTION.format(kind="hold")))
    assert choose_mapping(unknown, [given]) is given
    assert choose_mapping(known, [given]).name == "fr3"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[embodiment", "is not TOML"),
        (HEAD + STATE, "action is missing"),
        (
            HEAD + STATE + ACTION.format(kind="jerk"),
            r"action\[0\].kind must be one of position, increment, rate, hold, not 'jerk'",
        ),
        (
            HEAD + STATE.replace("deg", "furlong") + ACTION.format(kind="hold"),
            r"state\[0\].unit must be one of rad, deg, .*, not 'furlong'",
        ),
        (
            HEAD + STATE.replace("[9, 8]", "[9, 74]") + ACTION.format(kind="hold"),
            r"state\[0\].slots\[1\] must be a whole number from 0 to 73, not 74",
        ),
        (HEAD + STATE.replace("[9, 8]", "[9, 9]") + ACTION.format(kind="hold"), "each slot is filled once"),
        (HEAD + STATE + ACTION.format(kind="hold").replace("-2.0", "0.0"), "no scale may be 0"),
        (HEAD + STATE + ACTION.format(kind="hold").replace("[1.0, -2.0]", "[1.0]"), "1 factors for 2 slots"),
        (HEAD + STATE + ACTION.format(kind="increment") + BEFORE, "only positions"),
        (HEAD.replace('"a", "b"', '"a"') + STATE + ACTION.format(kind="hold"), "joints must name every action slot"),
        (HEAD + "speed = 3\n" + STATE + ACTION.format(kind="hold"), "embodiment.speed is unknown"),
        (HEAD + STATE + ACTION.format(kind="hold") + "sign = 1\n", r"action\[0\].sign is unknown"),
    ],
)
def test_a_broken_mapping_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DatasetError, match=f"mapping.toml: .*{message}"):
        read_mapping(mapping_file(tmp_path, text))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("step_ms = 100", "step_ms = 80", r"30 fps does not go into policy steps of 80 ms \(2\.40 frames"),
        (
            '"observation.state"',
            '"observation.pose"',
            r"info\.json: no column 'observation.pose', which .*has obs.*, action",
        ),
        ('["b", "a"]', '["b", "c"]', "observation.state has no element 'c'"),
        ('["b", "a"]', "[1, 2]", "observation.state has 2 elements, and .* takes number 2"),
        ("step_ms = 100", "step_ms = 1000", "no episode is as long as one step"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused(
    recording: tuple[Path, np.ndarray, np.ndarray], old: str, new: str, message: str
) -> None:
    text = (HEAD + STATE + ACTION.format(kind="hold")).replace(old, new)
    with pytest.raises(DatasetError, match=message):
        read_demonstrations(recording[0], [read_mapping(mapping_file(recording[0].parent, text))])


def test_a_value_that_rarely_moves_is_scaled_by_its_moves() -> None:
    """A gripper that opens in 5 of 1000 steps: quantiles see it stand still."""
    values = np.zeros((1000, 2), np.float32)
    values[:, 0] = np.random.default_rng(0).normal(0, 0.02, 1000)
    values[::200, 1] = 0.04
    values[500, 1] = 1e3
    fitted = SlotStatistics.fit(values, (29, 36), 0.01, centred=True)
    assert fitted.slots == (29, 36) and fitted.scale[1] == pytest.approx(0.04)
    assert fitted.scale[0] == pytest.approx(0.02, rel=0.2)


def test_two_datasets_of_one_arm_share_their_statistics(tmp_path: Path) -> None:
    one = read_demonstrations(write_dataset(tmp_path / "one"))
    other = dataclasses.replace(one, states=one.states + 1)
    both = fit_embodiments([one, other], 0.01)
    assert len(both) == 1 and both[0].states.offset[0] > fit_embodiments([one], 0.01)[0].states.offset[0] + 0.3
    with pytest.raises(DatasetError, match="two datasets of 'fr3' differ in step_s"):
        fit_embodiments([one, dataclasses.replace(one, step_s=0.05)], 0.01)
