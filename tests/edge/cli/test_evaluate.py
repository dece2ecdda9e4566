"""`edge-evaluate`: what is counted, that it goes on where it was stopped, and the operator's keys."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import av
import pytest

from edge.cli import evaluate
from edge.cli.keys import Keys
from edge.cli.series import Episode
from edge.log import run_video
from edge.log.pictures import Kept
from edge.log.records import Record
from edge.run.commands import Command, CommandQueue, Verdict
from edge.run.proportion import wilson
from tests.edge.log.support import write_log
from tests.edge.log.test_episodes import corrected_run, shade, with_frames  # noqa: F401

REPORT = {"ended": "duration", "error": None, "duration_s": 4.0}


class Verdicts:
    """Episodes whose runs are not made, only judged."""

    def __init__(self, *verdicts: str, log: Path | None = None) -> None:
        self.left, self.asked, self.log = list(verdicts), list[int](), log

    def run(self, number: int, log: Path) -> Episode:
        self.asked.append(number)
        verdict = self.left.pop(0)
        if self.log is not None:
            shutil.copy(self.log, log)
        return Episode(number, log, dict(REPORT), verdict, verdict == "unknown")

    def __enter__(self) -> Verdicts:
        return self

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture
def series(bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(
        episodes: int, *verdicts: str, task: str = "reach the red cube", log: Path | None = None, more: Any = ()
    ) -> tuple[int, Verdicts, dict[str, Any]]:
        told = Verdicts(*verdicts, log=log)
        monkeypatch.setattr(evaluate, "Series", lambda *_: told)
        arguments = ["--arm", "franka", "--bundle", str(bundle_path), "--task", task, "--out", str(tmp_path / "out")]
        code = evaluate.main([*arguments, "--episodes", str(episodes), *more])
        path = tmp_path / "out" / "evaluation.json"
        return code, told, json.loads(path.read_text()) if path.exists() else {}

    return run


def test_a_share_has_its_interval_and_every_episode_its_row(series: Any, capsys: Any) -> None:
    code, _, found = series(4, "success", "fail", "success", "success")
    assert code == 0 and (found["successes"], found["episodes"]) == (3, 4)
    assert found["wilson_95"] == list(wilson(3, 4)) and [row["verdict"] for row in found["rows"]][1] == "fail"
    assert "3 of 4 succeeded: 75%, 95 % interval 30% to 95%" in capsys.readouterr().out


def test_it_goes_on_where_it_was_stopped_and_makes_discarded_ones_again(series: Any, capsys: Any) -> None:
    code, told, found = series(3, "success", "discard", "unknown")
    assert code == 1 and told.asked == [0, 1, 1] and found["episodes"] == 1
    code, told, found = series(3, "fail", "success")
    assert code == 0 and told.asked == [1, 2] and found["successes"] == 2
    assert series(3)[1].asked == [], "it is complete"
    capsys.readouterr()
    assert series(5, task="reach the blue cube")[0] == 2
    assert "was begun with --task 'reach the red cube'; give the same again" in capsys.readouterr().err


@pytest.mark.parametrize("kept", ["jpeg", "h264"])
def test_each_episode_has_a_video_of_what_its_cameras_saw(
    kept: Kept,
    corrected_run: list[Record],  # noqa: F811
    series: Any,
    tmp_path: Path,
    capsys: Any,
) -> None:
    log, videos = with_frames(tmp_path / "seen.mcap", corrected_run, kept), tmp_path / "videos"
    more = ["--videos", str(videos)]
    assert series(1, "success", log=log)[0] == 0
    assert series(2, "fail", log=log, more=more)[0] == 0
    assert sorted(path.name for path in videos.iterdir()) == ["episode-000-success.mp4", "episode-001-fail.mp4"]
    with av.open(str(videos / "episode-001-fail.mp4")) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == run_video.FPS
    seconds = corrected_run[-1].host_ns / 1e9
    assert abs(len(pictures) / run_video.FPS - seconds) < 0.2 and pictures[0].shape == (240, 2 * 360, 3)
    for number, picture in enumerate(pictures):
        wanted = shade(1000 * number / run_video.FPS)
        assert all(abs(float(side.mean()) - wanted) < 4 for side in (picture[:, :360], picture[:, 360:]))
    capsys.readouterr()
    blind = write_log(tmp_path / "blind.mcap", corrected_run)
    assert series(3, "fail", log=blind, more=more)[0] == 0, "an episode counts without its video"
    assert "episode-002-fail.mp4 is not made: " in capsys.readouterr().err and len(list(videos.iterdir())) == 2


def test_what_is_no_evaluation_is_not_gone_on_with(series: Any, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "evaluation.json").write_text('{"rows": [{}], "settings": {}}')
    assert series(2, "success")[0] == 2
    assert "another --out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "command", "verdict"),
    [
        *[("p", Command.PAUSE, None), ("c", Command.START, None), ("t", Command.TAKE_OVER, None)],
        *[("s", Command.STOP, Verdict.SUCCESS), ("f", Command.STOP, Verdict.FAIL)],
        *[("d", Command.STOP, Verdict.DISCARD), ("x", Command.NONE, None)],
    ],
)
def test_a_key_is_a_command_and_may_be_the_verdict(key: str, command: Command, verdict: Verdict | None) -> None:
    commands = CommandQueue()
    Keys(commands).press(key)
    assert commands.take() is command and commands.verdict == verdict


def test_keys_that_come_together_are_all_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    with os.fdopen(read) as stdin, os.fdopen(write, "w") as hand:
        monkeypatch.setattr("sys.stdin", stdin)
        commands = CommandQueue()
        with Keys(commands) as keys:
            hand.write("t\nS\n")
            hand.close()
            until_s = time.monotonic() + 5
            while keys.open and time.monotonic() < until_s:
                time.sleep(0.01)
        assert commands.verdict is Verdict.SUCCESS and commands.pending(Command.TAKE_OVER) and not keys.open


def test_the_bundle_is_read_before_anything_is_made(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    assert evaluate.main(["--arm", "franka", "--bundle", str(tmp_path), "--task", "x", "--out", str(out)]) == 2
    assert not out.exists() and capsys.readouterr().err.count("\n") == 1
