"""Folders of runs: gone at their end, and where a run was killed, with the next one's start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edge.errors import InputError
from edge.run.scratch import PREFIX, scratch_folder

ROOT = Path(__file__).resolve().parents[3]
KILLED = """
import os, signal, sys
from edge.run.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "scene.mjb").write_bytes(b"x")
    print(folder, flush=True)
    if sys.argv[1] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def start(what: str) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, what], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_folder_goes_with_its_run(temporary: Path) -> None:
    with pytest.raises(KeyboardInterrupt), scratch_folder() as folder:
        (folder / "world").touch()
        assert folder.parent == temporary
        raise KeyboardInterrupt
    assert list(temporary.iterdir()) == []


def test_what_killed_runs_left_goes_with_the_next_one(temporary: Path) -> None:
    left = []
    for _ in range(3):
        process, folder = start("kill")
        assert process.wait(30) == -signal.SIGKILL and folder.exists()
        left.append(folder)
    running, in_use = start("wait")
    assert not any(folder.exists() for folder in left)
    with scratch_folder():
        assert (in_use / "scene.mjb").exists(), "another run's stays"
    running.communicate("", timeout=30)
    assert list(temporary.iterdir()) == []


def test_nothing_else_is_touched(temporary: Path) -> None:
    (temporary / "elsewhere").mkdir()
    (temporary / "elsewhere" / "kept").touch()
    (temporary / f"{PREFIX}999999999-link").symlink_to(temporary / "elsewhere")
    (temporary / f"{PREFIX}not-a-pid").mkdir()
    (temporary / f"{PREFIX}{os.getpid()}-mine").mkdir()
    before = set(temporary.iterdir())
    with scratch_folder():
        pass
    assert set(temporary.iterdir()) == before and (temporary / "elsewhere" / "kept").exists()


def test_a_temporary_folder_that_takes_nothing_is_named(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(temporary / "nowhere"))
    with pytest.raises(InputError, match=r"nothing can be written in the temporary folder .*TMPDIR"), scratch_folder():
        pass
