"""`edge-record` with a leader arm: the command as a person uses it, its cameras, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.cli.record import main
from edge.errors import InputError
from edge.inference.film import CameraView, FrameOutlets, FrameRings, unpacked
from edge.inference.filming import FilmProcess
from edge.log.dataset.reading import read_actions
from tests.servo_process import ServoProcess

SIZE = (32, 48)
VIEWS = [CameraView("front", SIZE), CameraView("wrist", SIZE)]


@pytest.fixture
def leader(tmp_path: Path) -> Iterator[ServoProcess]:
    process = ServoProcess(tmp_path)
    yield process
    process.close()


def lost_after(film: FilmProcess, seconds: float) -> str | None:
    until_s = time.monotonic() + seconds
    while film.lost() is None and time.monotonic() < until_s:
        time.sleep(0.02)
    return film.lost()


def test_the_cameras_of_a_run_without_a_policy_have_a_process_that_says_when_one_is_lost() -> None:
    rings = FrameRings([SIZE, SIZE])
    with FilmProcess(["pattern:", "pattern:?unplug_after=1"], VIEWS, FrameOutlets(log=rings)) as film:
        why = lost_after(film, 15)
    assert why is not None and "camera wrist (pattern:?unplug_after=1)" in why
    cameras = []
    while (data := rings.passing.pop()) is not None:
        head, pixels = unpacked(data)
        cameras.append(head.camera)
        assert pixels.shape == (*SIZE, 3) and head.request == 0
    assert cameras.count(0) >= 5 and cameras.count(1) >= 2
    with pytest.raises(InputError, match="there is no such recording"):
        FilmProcess(["file:/nowhere.mp4"], VIEWS[:1], FrameOutlets(log=rings))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "one of --leader, --policy, --from and --play is required"),
        (["--leader", "feetech:x"], "--leader needs --arm NAME and --out DIR"),
        (["--leader", "feetech:x", "--arm", "so101", "--out", "{out}", "--bundle", "b"], "with --bundle DIR --policy"),
        (["--leader", "feetech:x", "--arm", "so101", "--out", "{out}", "--frame-size", "9"], "as 640x480"),
        (["--leader", "feetech:x", "--arm", "so101", "--out", "{out}"], "--camera NAME=URL for each"),
        (
            ["--leader", "feetech:x", "--arm", "so101", "--out", "{out}", *["--camera", "pattern:"] * 2],
            "--camera NAME=URL for each",
        ),
        (
            ["--leader", "feetech:/dev/ttyNOPE", "--arm", "so101", "--out", "{out}", "--camera", "pattern:"],
            "there is no calibration",
        ),
    ],
)
def test_what_cannot_be_recorded_is_said(arguments: list[str], message: str, tmp_path: Path, capfd: Any) -> None:
    out = tmp_path / "data"
    try:
        code = main([argument.format(out=out) for argument in arguments])
    except SystemExit as end:
        code = int(end.code or 0)
    assert code == 2 and not out.exists()
    assert message in capfd.readouterr().err.splitlines()[-1]


@pytest.mark.real_time
@pytest.mark.side_by_side
def test_an_episode_of_a_leader_begins_and_ends_by_key(leader: ServoProcess, tmp_path: Path) -> None:
    out = tmp_path / "data"
    line = [sys.executable, "-m", "edge.cli.record", "--leader", leader.url, "--arm", "so101", "--out", str(out)]
    line += ["--camera", "front=pattern:", "--frame-size", "64x48", "--task", "pick up the red cube", "--episodes", "2"]
    process = subprocess.Popen(
        [*line, "--duration", "30"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None

    def press(key: str) -> None:
        assert process.stdin is not None
        process.stdin.write(key)
        process.stdin.flush()

    for verdict in "sd":
        assert any("press c" in told for told in iter(process.stdout.readline, ""))
        press("c")
        assert any("clocks synchronised" in told for told in iter(process.stdout.readline, ""))
        time.sleep(4.0)
        press(verdict)
    told, err = process.communicate(timeout=60)
    assert process.returncode == 0, (told, err)
    kept = json.loads((out / "meta" / "info.json").read_text())["vla_edge"]["episodes"]
    assert len(kept) == 1 and kept[0]["verdict"] == "success", "the other one was discarded"
    assert kept[0]["by_leader"] == len(read_actions(out, 0).values) > 10
    assert len(list((out / "logs").iterdir())) == 1


@pytest.mark.real_time
@pytest.mark.side_by_side
def test_nobody_to_begin_is_an_error(leader: ServoProcess, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "edge.cli.record", "--leader", leader.url, "--arm", "so101"]
    line += ["--out", str(tmp_path / "data"), "--camera", "pattern:"]
    found = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert found.returncode == 2 and "nobody is there to press c" in found.stderr
