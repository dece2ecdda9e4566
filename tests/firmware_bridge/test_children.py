"""Processes: none outlives its parent, whenever that is killed, and none imports from the current folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from firmware_bridge.children import STOP_SIGNALS, start, start_module, without_current_folder

ROOT = Path(__file__).resolve().parents[2]
HERE = str(ROOT / "tests" / "firmware_bridge" / "child_modules")
PARENT = """
import os, signal, sys, threading, time
from firmware_bridge.children import start_module
def begin():
    child = start_module(sys.argv[1])
    print(child.pid, flush=True)
if sys.argv[2] == "thread":
    thread = threading.Thread(target=begin)
    thread.start()
    thread.join()
else:
    begin()
time.sleep(float(sys.argv[3]))
os.kill(os.getpid(), signal.SIGKILL)
"""
SHADOW = "import pathlib\npathlib.Path(__file__).with_name('executed').touch()\nraise SystemExit(9)\n"
GRACE_S = 1.0
"""How long a child may be there after its parent."""


def gone(pid: int) -> bool:
    """Ended: not there, or waiting for whoever takes over orphans."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": HERE}


@pytest.mark.parametrize("wait_s", [0.0, 0.02, 0.2])
@pytest.mark.parametrize("where", ["main", "thread"])
@pytest.mark.parametrize("module", ["sleeps", "imports_slowly"])
def test_no_child_outlives_a_parent_killed_at_any_moment(module: str, where: str, wait_s: float) -> None:
    parent = subprocess.run(
        [sys.executable, "-c", PARENT, module, where, str(wait_s)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
    )
    assert parent.returncode == -signal.SIGKILL, parent.stderr
    child, deadline_s = int(parent.stdout), time.monotonic() + GRACE_S
    while not gone(child) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert gone(child)


def test_a_child_outlives_the_thread_that_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", HERE)
    started: list[subprocess.Popen[bytes]] = []
    thread = threading.Thread(target=lambda: started.append(start_module("sleeps")))
    thread.start()
    thread.join()
    time.sleep(0.5)
    assert started[0].poll() is None
    started[0].kill()
    started[0].wait()


@pytest.mark.parametrize("entries", ["", ":", f".:{HERE}:"])
def test_nothing_in_the_current_folder_is_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entries: str
) -> None:
    for name in ("numpy", "onnxruntime", "json", "edge/__init__", "firmware_bridge/__init__", "tells_path"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.py").write_text(SHADOW)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", entries)
    kept = os.environ.copy()
    child = start_module("edge.log.writer", ["--help"], stdout=subprocess.PIPE)
    out, _ = child.communicate(timeout=30)
    assert b"usage: edge.log.writer" in out and child.returncode == 0
    if HERE in entries:
        child = start_module("tells_path", stdout=subprocess.PIPE)
        path = json.loads(child.communicate(timeout=30)[0])
        assert str(tmp_path) not in path and "" not in path and HERE in path
        assert str(ROOT / "firmware_bridge") not in path
    assert not (tmp_path / "executed").exists()
    assert os.environ == kept


def test_only_absolute_entries_stay() -> None:
    assert without_current_folder({"PYTHONPATH": ":a:/b:./c:/d:", "HOME": "/h"}) == {
        "PYTHONPATH": "/b:/d",
        "HOME": "/h",
    }
    assert without_current_folder({"PYTHONPATH": ":"}) == {}


def test_nothing_else_starts_a_python_process_of_a_run() -> None:
    """Whatever starts one by itself would leave out one of the above."""
    for room in ("edge", "firmware_bridge"):
        for path in (ROOT / room).rglob("*.py"):
            if path.name not in (
                "children.py",
                "rights.py",
                "microcontroller.py",
            ):  # an isolated probe; QEMU, for tests
                text = path.read_text()
                assert "sys.executable" not in text and "subprocess.Popen(" not in text, path


def children() -> set[int]:
    """Of this process, those that run."""
    return {
        pid
        for path in Path("/proc/self/task").glob("*/children")
        for pid in map(int, path.read_text().split())
        if not gone(pid)
    }


@pytest.mark.parametrize("number", STOP_SIGNALS)
@pytest.mark.parametrize("blocked", [False, True], ids=["taken by another thread", "taken by this one"])
def test_a_child_whose_start_is_interrupted_has_ended(
    number: signal.Signals, blocked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else knows yet that it has begun."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    def popen(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        process = started(*arguments, **options)
        (signal.raise_signal(number) if blocked else thread_takes(number))
        return process

    def thread_takes(number: int) -> None:
        ready = threading.Event()

        def unblocked() -> None:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
            signal.raise_signal(number)
            ready.set()

        threading.Thread(target=unblocked).start()
        assert ready.wait(5)

    started, before = subprocess.Popen, children()
    monkeypatch.setattr(subprocess, "Popen", popen)
    handler = signal.signal(number, interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            start([sys.executable, "-c", "import time; time.sleep(60)"], stdout=subprocess.PIPE)
    finally:
        signal.signal(number, handler)
    assert children() == before
