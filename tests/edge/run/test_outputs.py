"""What a command writes takes the place of nothing that somebody needs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from edge.cli import doctor
from edge.errors import InputError
from edge.log.mcap_log import LogError
from edge.log.run_log import RunLog
from edge.run.outputs import Kind, check_outputs

REPORT = json.dumps({"created_by": "vla-edge 0.2", "ended": "duration"})


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name in ("manifest.json", "backbone.onnx", "tokenizer.json"):
        (folder / name).write_text("{}")
    return folder


def refused(path: Path, kind: Kind, *inputs: Path, overwrite: bool = False) -> str:
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(InputError) as refusal:
        check_outputs({"--out": (path, kind)}, inputs, overwrite)
    assert (path.read_bytes() if path.is_file() else None) == before
    return str(refusal.value)


@pytest.mark.parametrize("kind", ["report", "picture", "recording"])
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["manifest.json", "backbone.onnx", "tokenizer.json"])
def test_no_file_of_any_bundle(bundle: Path, name: str, overwrite: bool, kind: Kind) -> None:
    assert "is an input of this command" in refused(bundle / name, kind, bundle, overwrite=overwrite)
    assert "belongs to a bundle" in refused(bundle / name, kind, overwrite=overwrite)


@pytest.mark.parametrize("overwrite", [False, True])
def test_no_input_under_any_name(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "reel.mp4").write_bytes(b"frames")
    (tmp_path / "soft.mp4").symlink_to("reel.mp4")
    os.link(tmp_path / "reel.mp4", tmp_path / "hard.mp4")
    for name in ("reel.mp4", "soft.mp4", "hard.mp4"):
        assert "is an input" in refused(tmp_path / name, "recording", tmp_path / "reel.mp4", overwrite=overwrite)


@pytest.mark.parametrize("overwrite", [False, True])
def test_nothing_but_a_regular_file(tmp_path: Path, overwrite: bool) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "pipe", tmp_path / "null", Path("/dev/full")):
        assert "not a regular file" in refused(path, "report", overwrite=overwrite)
    assert "that is a folder" in refused(tmp_path / "folder", "report", overwrite=overwrite)
    assert "there is no folder" in refused(tmp_path / "no" / "run.json", "report", overwrite=overwrite)
    assert "there is no folder" in refused(tmp_path / "null" / "run.json", "report", overwrite=overwrite)


@pytest.mark.parametrize("kind", ["report", "picture", "recording"])
def test_what_is_there_stays_unless_it_may_go(tmp_path: Path, kind: Kind) -> None:
    for name, content in {
        "checkpoint.pt": b"PK\x03\x04weights",
        "photo.png": b"\x89PNG\r\n\x1a\nof the family",
        "notes.json": b'{"created_by": "me"}',
        "deep.json": b'{"a": ' * 5000,
        "run.mcap": b"\x89MCAP0\r\n",
        "trace.csv": b"tick_us,state\n",
    }.items():
        (tmp_path / name).write_bytes(content)
        assert "--overwrite" in refused(tmp_path / name, kind)
        check_outputs({"--out": (tmp_path / name, kind)}, overwrite=True)


def test_a_report_and_a_picture_of_an_earlier_run_may_go(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(REPORT)
    (tmp_path / "run.png").write_bytes(b"\x89PNG\r\n\x1a\n....tEXtSoftware\0vla-edge 0.2")
    (tmp_path / "empty.mcap").touch()
    check_outputs(
        {
            "--report": (tmp_path / "run.json", "report"),
            "the plot": (tmp_path / "run.png", "picture"),
            "--log": (tmp_path / "empty.mcap", "recording"),
            "--trace": (tmp_path / "new.csv", "recording"),
        }
    )
    assert "--overwrite" in refused(tmp_path / "run.json", "recording")


def test_two_outputs_are_two_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for other in (tmp_path / "x.csv", tmp_path / "sub" / ".." / "x.csv"):
        with pytest.raises(InputError, match="--log is the same file"):
            check_outputs({"--log": (tmp_path / "x.csv", "recording"), "--trace": (other, "recording")}, overwrite=True)


def test_a_recording_is_opened_when_the_run_begins_and_over_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    with RunLog(path) as log:
        log.prepare({})
    assert not path.exists(), "it never began"
    path.write_bytes(b"older")
    with pytest.raises(LogError, match="is there already; name another, or add --overwrite"), RunLog(path) as log:
        log.begin({})
    assert path.read_bytes() == b"older"
    with RunLog(path, overwrite=True) as log:
        log.begin({})
        assert log.close() is None
    assert path.read_bytes().startswith(b"\x89MCAP")


@pytest.mark.parametrize("name", ["checkpoint.pt", "photo.json"])
def test_the_doctor_s_findings_take_the_place_of_their_like_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04")
    assert doctor.main(["--json", str(tmp_path / name)]) == 2
    assert capsys.readouterr().err.strip().endswith("is there already; name another")
    assert (tmp_path / name).read_bytes() == b"PK\x03\x04"
    (tmp_path / name).write_text(json.dumps({"created_by": "vla-edge 0.1", "checks": []}))
    check_outputs({"--json": (tmp_path / name, "report")}, overwrite=None)
