"""The real-time lane itself: what cannot be judged is made again, listed, and fails the session beyond a quarter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CONFTEST = """
import tests.real_time
import pytest

class Watch:
    stood_still, longest_ms, share = {stood_still}, 40.0, 0.1
    def __enter__(self): return self
    def __exit__(self, *_): pass

tests.real_time.MachineWatch = Watch

def pytest_configure(config):
    config.addinivalue_line("markers", "real_time: in real time")
    config.pluginmanager.register(tests.real_time.RealTimeLane())
"""
TESTS = """
import pathlib, pytest

@pytest.mark.real_time
@pytest.mark.parametrize("number", range({passing}))
def test_passes(number): pass

@pytest.mark.real_time
def test_fails():
    with pathlib.Path("tries").open("a") as tries:
        tries.write("x")
    assert False

def test_on_the_simulated_clock(): pass
"""


def lane(folder: Path, stood_still: bool, passing: int, *more: str) -> tuple[int, str, int]:
    """Exit code, output and number of tries of a session with one test that fails in real time."""
    (folder / "conftest.py").write_text(CONFTEST.format(stood_still=stood_still))
    (folder / "test_lane.py").write_text(TESTS.format(passing=passing))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", ".", *more]
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    return done.returncode, done.stdout, len((folder / "tries").read_text())


def test_a_failure_on_a_machine_that_runs_is_a_failure(tmp_path: Path) -> None:
    code, out, tries = lane(tmp_path, False, 3)
    assert (code, tries) == (1, 1) and "0 of 4 tests could not be judged\n" in out and "1 failed, 4 passed" in out


@pytest.mark.parametrize("more", [(), ("-n", "2")], ids=["one process", "xdist"])
def test_what_cannot_be_judged_is_made_again_and_listed(tmp_path: Path, more: tuple[str, ...]) -> None:
    code, out, tries = lane(tmp_path, True, 3, *more)
    assert (code, tries) == (0, 3) and "4 passed, 1 skipped" in out
    assert "not judged: test_lane.py::test_fails: this machine stood still for 40 ms" in out
    assert "1 of 4 tests could not be judged\n" in out


@pytest.mark.parametrize("more", [(), ("-n", "2")], ids=["one process", "xdist"])
def test_more_than_a_quarter_without_a_verdict_fails_the_session(tmp_path: Path, more: tuple[str, ...]) -> None:
    code, out, _ = lane(tmp_path, True, 2, *more)
    assert code == 1 and "1 of 3 tests could not be judged, which is too many" in out
