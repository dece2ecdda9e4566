"""Logs as episodes of a dataset: positions and frames at its rate, pauses left out, the steps of a person marked."""

from __future__ import annotations

import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from edge.cli.record import main
from edge.inference.film import FrameHead
from edge.inference.layout import pack_plain
from edge.inference.records import Outcome, PlanResult
from edge.log import episodes
from edge.log.dataset import DatasetWriter
from edge.log.dataset.reading import read_actions
from edge.log.logged_run import Hands, read_run
from edge.log.mcap_log import LogWriter
from edge.log.pictures import FrameWriter, Kept
from edge.log.records import Kind, Record
from edge.log.taps import tapped_planner
from export.training.data import read_demonstrations
from tests.edge.log.support import HEADER, LoggedRun, rewrite
from tests.support import FRANKA

SIZE_PX = (16, 24)
CAMERAS = {"cameras": [{"name": name, "height_px": 16, "width_px": 24} for name in ("front", "wrist")]}
FRAME_MS, FPS = 50, 20
Row = dict[str, list[Any]]


class Led:
    """A planner whose chunks come from a leader arm."""

    def __init__(self, planner: Any) -> None:
        self._planner = planner

    def request(self, request: Any) -> None:
        self._planner.request(request)

    def result(self) -> PlanResult | None:
        result = self._planner.result()
        return None if result is None else replace(result, outcome=Outcome.LEADER)

    def status(self) -> None:
        return None


def rest(run: LoggedRun) -> None:
    run.controller.pause()
    run.go(800)


def with_frames(path: Path, records: list[Record], kept: Kept = "jpeg") -> Path:
    """The log, with frames of two cameras whose brightness tells when they were taken."""
    records = [
        replace(one, body=pack_plain({**HEADER, **CAMERAS})) if one.kind is Kind.HEADER else one for one in records
    ]
    with path.open("wb") as file:
        log = LogWriter(file)
        frames, at = FrameWriter(log, ["front", "wrist"], kept), 0
        for number in range(0, records[-1].host_ns // 1_000_000, FRAME_MS):
            end = next((i for i, one in enumerate(records) if one.host_ns > number * 1_000_000), len(records))
            log.add(records[at:end])
            at = max(at, end)
            for camera in (0, 1):
                image = np.full((*SIZE_PX, 3), shade(number), np.uint8)
                frames.write(FrameHead(camera, 0, 0, number * 1_000_000, number // FRAME_MS, *SIZE_PX), image)
        log.add(records[at:])
        log.finish(0)
    return path


def shade(milliseconds: float) -> int:
    return int(milliseconds / 40) % 256


@pytest.fixture(scope="module")
def corrected_run() -> list[Record]:
    """What a run leaves that is paused, taken over by a leader, handed back, and ends."""
    run = LoggedRun().go(2000)
    policy = run.controller.planner
    rest(run)
    run.controller.plan_with(tapped_planner(Led(policy._planner), run.rig.journal))
    run.controller.resume()
    run.go(1500)
    rest(run)
    run.controller.plan_with(policy)
    run.controller.resume()
    run.go(1000).end()
    assert run.stop is None
    run.close()
    return run.records


@pytest.fixture(scope="module")
def corrected(corrected_run: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_frames(tmp_path_factory.mktemp("corrected") / "run.mcap", corrected_run)


def record(*arguments: Any) -> int:
    return main([str(one) for one in arguments])


def rows_of(folder: Path) -> Row:
    files = sorted((folder / "data").rglob("*.parquet"))
    tables = [pq.read_table(file).to_pydict() for file in files]
    return {name: [value for table in tables for value in table[name]] for name in tables[0]}


def test_a_log_becomes_an_episode_with_what_a_person_did_marked(corrected: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "data"
    assert record("--from", corrected, "--out", out, "--verdict", "success") == 0
    said = capsys.readouterr().out
    rows, run = rows_of(out), read_run(corrected)
    assert [motion.hands for motion in run.motions] == [Hands.POLICY, Hands.LEADER, Hands.POLICY]
    steps, led = len(rows["action"]), np.array(rows["intervention"])
    assert f"episode 0, {steps} steps at 20 a second, {led.sum()} of them by a person" in said
    assert 75 < steps < 93, "4.5 s of motion at 20 a second: pauses are left out"
    edges = np.flatnonzero(np.diff(led))
    assert len(edges) == 2 and not led[0] and not led[-1] and 26 < led.sum() < 31
    assert rows["next.done"] == [False] * (steps - 1) + [True] == rows["next.success"]
    assert np.allclose(rows["timestamp"], np.arange(steps) / FPS, atol=1e-5) and set(rows["episode_index"]) == {0}
    info = json.loads((out / "meta" / "info.json").read_text())
    told = info["vla_edge"]["episodes"][0]
    assert (told["verdict"], told["log"], told["by_leader"]) == ("success", "run.mcap", int(led.sum()))


def test_an_action_is_where_the_command_has_come_to_a_step_later(corrected: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    assert record("--from", corrected, "--out", out) == 0
    rows, run = rows_of(out), read_run(corrected)
    motion = run.motions[0]
    times = run.host_ns[motion.rows]
    for step in (0, 7, 35):
        at_ns = times[0] + round(step * 1e9 / FPS)
        for values, source, later in (
            (rows["observation.state"], run.measured_rad, 0),
            (rows["action"], run.commanded_rad, round(1e9 / FPS)),
        ):
            wanted = [np.interp(at_ns + later, times, column) for column in source[motion.rows].T]
            assert np.allclose(values[step], wanted, atol=1e-6)


@pytest.mark.parametrize("kept", ["jpeg", "h264"])
def test_a_frame_is_the_newest_that_there_was(kept: Kept, corrected_run: list[Record], tmp_path: Path) -> None:
    run = read_run(with_frames(tmp_path / "run.mcap", corrected_run, kept))
    seen = list[NDArray[np.uint8]]()
    with DatasetWriter(tmp_path / "data", episodes.spec_of(run, FPS)) as writer:
        keep = writer.add_episode

        def add_episode(columns: Any, tasks: str) -> None:
            seen.extend(columns["observation.images.wrist"])
            keep(columns, tasks)

        writer.add_episode = add_episode  # type: ignore[method-assign, assignment]
        episodes.append_run(writer, run, "unknown")
    first_ms = run.host_ns[run.motions[0].rows][0] / 1e6
    for step in (0, 10, 35):
        wanted = shade((first_ms + step * 1000 / FPS) // FRAME_MS * FRAME_MS)
        assert abs(float(seen[step].mean()) - wanted) < 1.5
    assert len(rows_of(tmp_path / "data")["action"]) == len(seen)


def test_edge_train_reads_it_without_being_told_how(corrected: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    assert record("--from", corrected, "--out", out) == 0
    read = read_demonstrations(out)
    run = read_run(corrected)
    assert read.embodiment == FRANKA.embodiment
    moved = np.abs(run.commanded_rad).max()
    assert read.states.shape[0] == len(rows_of(out)["action"]) // 2 and np.abs(read.states).max() <= moved + 0.1


def test_a_dataset_goes_on_and_takes_no_log_twice(corrected: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "data"
    other = Path(shutil.copy(corrected, tmp_path / "other.mcap"))
    assert record("--from", corrected, "--out", out) == 0
    assert record("--from", corrected, other, "--out", out, "--task", "wave twice") == 0
    said = capsys.readouterr().out
    assert f"{corrected}: is in {out} already, as episode 0" in said and "episode 1" in said
    rows = rows_of(out)
    assert set(rows["episode_index"]) == {0, 1} and set(rows["task_index"]) == {0, 1}
    assert read_actions(out, 0).task == "wave" and read_actions(out, 1).task == "wave twice"


def test_steps_without_a_fresh_frame_are_left_out_and_counted(corrected: Path, tmp_path: Path, capsys: Any) -> None:
    log = Path(shutil.copy(corrected, tmp_path / "gap.mcap"))
    first_ms = read_run(corrected).host_ns[0] / 1e6

    def gap(topic: str, content: dict[str, Any]) -> dict[str, Any] | None:
        lost = topic == "/camera/wrist" and 300 < content["host_ns"] / 1e6 - first_ms < 1300
        return None if lost else content

    rewrite(log, gap)
    assert record("--from", log, "--out", tmp_path / "data") == 0
    left_out = int(capsys.readouterr().out.split("; ")[1].split()[0])
    assert 8 <= left_out <= 12, "a second without frames, of which the first half may still be used"


def test_a_full_disk_leaves_whole_episodes_and_a_line(
    corrected: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "data"
    other = Path(shutil.copy(corrected, tmp_path / "other.mcap"))
    assert record("--from", corrected, "--out", out) == 0

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("edge.log.dataset.writer.write_table", full)
        assert record("--from", other, "--out", out) == 1
    assert "No space left on device; what is in it stays" in capsys.readouterr().err
    assert read_actions(out, 0).values.shape[0] > 70
    assert record("--from", other, "--out", out) == 0 and read_actions(out, 1).values.shape[0] > 70


def test_cameras_may_have_other_names_in_a_dataset(corrected: Path, tmp_path: Path, capsys: Any) -> None:
    own, named = tmp_path / "own", tmp_path / "named"
    assert record("--from", corrected, "--out", own) == 0
    assert record("--from", corrected, "--out", named, "--camera-names", "left", "right") == 0
    features = [json.loads((out / "meta" / "info.json").read_text())["features"] for out in (own, named)]
    seen = [[name for name in one if name.startswith("observation.images.")] for one in features]
    assert seen == [
        [f"observation.images.{name}" for name in names] for names in (["front", "wrist"], ["left", "right"])
    ]
    for before, after in zip(*seen):
        files = [next((out / "videos" / name).rglob("*.mp4")) for out, name in ((own, before), (named, after))]
        assert files[0].read_bytes() == files[1].read_bytes(), "the same frames, in the same order"
    assert record("--from", corrected, "--out", named, "--camera-names", "left") == 2
    assert "saw through 2 cameras, front, wrist; give each a name of its own" in capsys.readouterr().err


def test_what_cannot_be_an_episode_says_why(corrected: Path, tmp_path: Path, capsys: Any) -> None:
    blind = Path(shutil.copy(corrected, tmp_path / "blind.mcap"))
    rewrite(blind, lambda topic, content: None if topic == "/camera/wrist" else content)
    assert record("--from", corrected, "--out", tmp_path / "data") == 0
    assert record("--from", blind, "--out", tmp_path / "data") == 2
    assert "another rate, robot or columns" in capsys.readouterr().err
    assert record("--from", tmp_path / "none.mcap", "--out", tmp_path / "data") == 2
    assert "there is no such file" in capsys.readouterr().err
    (tmp_path / "text.mcap").write_text("no log")
    assert record("--from", tmp_path / "text.mcap", "--out", tmp_path / "data") == 2
    assert "is not an MCAP file" in capsys.readouterr().err
    assert record("--play", tmp_path / "data", "--episode", 7, "--arm", "franka") == 2
    assert "has no episode 7; give --episode 0 to 0" in capsys.readouterr().err
    assert record("--play", tmp_path / "data", "--arm", "so101") == 2
    assert "give the arm that it was recorded on" in capsys.readouterr().err
    assert record("--play", tmp_path, "--arm", "so101") == 2
    assert "is no dataset that can be played" in capsys.readouterr().err
