"""A run connects to nothing outside, and writes nothing but the outputs it was given, in any of its processes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from firmware_bridge.native import build, cache_folder

CALLS = "socket,connect,sendto,openat,open,creat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,symlink,symlinkat"
FAILED = re.compile(r"= -1 E\w+ \(")
WRITES = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|^(creat|mkdir|rename|link|symlink)")
OUTSIDE = re.compile(r"AF_INET|/etc/(resolv\.conf|hosts|nsswitch\.conf)|getaddrinfo")
HOOK = """
import os, sys
CONNECTING = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")
noting = []
def note(event, arguments):
    if noting:
        return
    if event in CONNECTING:
        line = f"AF_INET {event} {arguments}"
    elif event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        line = f'O_WRONLY "{arguments[0]}"'
    elif event in ("os.mkdir", "os.rename", "os.link", "os.symlink"):
        line = f'mkdir "{arguments[0]}"'
    else:
        return
    noting.append(event)
    try:
        with open(os.environ["VLA_EDGE_AUDIT"], "a") as file:
            file.write(line + chr(10))
    finally:
        noting.clear()
sys.addaudithook(note)
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    build()  # once for this machine, into the cache
    for name in ("home", "tmp", "here"):
        (tmp_path / name).mkdir()
    return tmp_path


def edge_run(place: Path, bundle: Path, before: Sequence[str], **environment: str) -> None:
    """One run with all its outputs, as a user without anything of this project's in the environment."""
    command = [*before, sys.executable, "-m", "edge.cli.run", "--arm", "franka", "--bundle", str(bundle)]
    command += ["--duration", "2", "--log", "run.mcap", "--trace", "trace.csv"]
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", "MPLCONFIGDIR", "PYTHONPATH")}
    kept |= {"HOME": str(place / "home"), "TMPDIR": str(place / "tmp"), "XDG_CACHE_HOME": str(cache_folder().parent)}
    done = subprocess.run(
        command, cwd=place / "here", env=kept | environment, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert list((place / "home").iterdir()) == list((place / "tmp").iterdir()) == []
    assert {path.name for path in (place / "here").iterdir()} == {"run.json", "run.png", "run.mcap", "trace.csv"}


def judged(place: Path, lines: Sequence[str]) -> list[str]:
    """What reaches outside, or is written where nobody asked for it."""
    allowed = (str(place / "tmp"), str(place / "here"), "/dev/", "/proc/", str(cache_folder() / "matplotlib"))
    there = {str(folder) for folder in (cache_folder(), *cache_folder().parents)}
    found = []
    for line in lines:
        call = line.partition(" ")[2] if line[:1].isdigit() else line
        paths = re.findall(r'"([^"]*)"', call)
        elsewhere = [
            path for path in paths if path.startswith("/") and path not in there and not path.startswith(allowed)
        ]
        if OUTSIDE.search(call) or (WRITES.search(call) and not FAILED.search(call) and elsewhere):
            found.append(call)
    return found


@pytest.mark.real_time
@pytest.mark.side_by_side
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace sees what the libraries do, and is not here")
def test_no_system_call_reaches_outside(bundle_path: Path, place: Path) -> None:
    calls = place / "calls"
    edge_run(place, bundle_path, ["strace", "-f", "-qq", "-e", f"trace={CALLS}", "-o", str(calls)])
    lines = calls.read_text(errors="replace").splitlines()
    assert sum("run.mcap" in line for line in lines) == 1, "it sees what it looks for"
    assert judged(place, lines) == []


@pytest.mark.real_time
@pytest.mark.side_by_side
def test_no_python_process_reaches_outside(bundle_path: Path, place: Path) -> None:
    (place / "hook").mkdir()
    (place / "hook" / "sitecustomize.py").write_text(HOOK)
    edge_run(place, bundle_path, [], PYTHONPATH=str(place / "hook"), VLA_EDGE_AUDIT=str(place / "calls"))
    lines = (place / "calls").read_text().splitlines()
    assert sum("run.mcap" in line for line in lines) == 1, "it sees what it looks for"
    assert judged(place, lines) == []
