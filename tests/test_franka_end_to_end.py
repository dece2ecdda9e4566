"""`edge-run` on a Franka's own protocol: franky-sim (MuJoCo behind FCI) on loopback, judged by the adapter's trace."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge.telemetry.trace import violations
from tests.support import FRANKA, RealRun, states_in_order

pytest.importorskip("franky_sim", reason="pip install franky-sim pin")
pytest.importorskip("pylibfranka", reason="pip install 'vla-edge[franka]'")
ADDRESS = "127.0.0.1"
BLIND = (
    pytest.mark.slow
)  # the policy sees a test pattern, and may ask for what the host refuses, rightly: that ends a run
SERVER = Path(__file__).parent / "franky_server.py"


@pytest.fixture
def robot() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, str(SERVER), ADDRESS], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], 60.0)[0] and "ready" in process.stdout.readline()
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def start(folder: Path, bundle: Path, duration_s: float, *more: str) -> RealRun:
    return RealRun(folder, bundle, duration_s, "--bridge", f"fci:{ADDRESS}", "--camera", "pattern:", *more)


def adapter_of(run: RealRun) -> int:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        if b"edge.cli.adapter" in words and parent == run.process.pid:
            return int(folder.name)
    raise AssertionError("no adapter runs")


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


@BLIND
def test_a_minute_on_fci(tmp_path: Path, bundle_path: Path, robot: subprocess.Popen[str]) -> None:
    run = start(tmp_path, bundle_path, 60)
    code, out, err = run.finish(timeout_s=150)
    trace, report = run.trace, run.report
    assert code == 0, err
    assert violations(trace, FRANKA.operating) == []
    moving = np.array(trace.state) == "STREAMING"
    assert moving.sum() > 55_000
    assert set(trace.chunk[moving]) <= set(report["chunks"]["committed_ids"])
    assert report["device"]["limiter_interventions"] == trace.limited.sum(), "the policy sees a test pattern"
    told = report["adapter"]
    assert told["success_rate_least"] == 1.0 and told["periods"] == len(trace.state)
    assert told["period_p50_us"] <= 1100, "the loop keeps the robot's millisecond"
    assert "robot's line" in out and "success rate 1.00 at least" in out
    assert "edge-adapter:" not in err, "no reflex, no error of the robot's line"


def test_a_host_that_is_killed_leaves_a_robot_at_rest(
    tmp_path: Path, bundle_path: Path, robot: subprocess.Popen[str]
) -> None:
    run = start(tmp_path, bundle_path, 60)
    run.wait_until_streaming()
    adapter = adapter_of(run)
    time.sleep(1.0)
    run.process.kill()
    run.finish()
    deadline = time.monotonic() + 10.0
    while lives(adapter) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not lives(adapter), "the adapter has nothing left to serve"
    assert states_in_order(run.trace)[-3:] == ["STREAMING", "DECEL", "HOLD"]
    assert violations(run.trace, FRANKA.operating) == []


def test_a_robot_that_vanishes_ends_the_run(tmp_path: Path, bundle_path: Path, robot: subprocess.Popen[str]) -> None:
    run = start(tmp_path, bundle_path, 60)
    run.wait_until_streaming()
    robot.kill()
    code, _, err = run.finish()
    assert code == 1 and "safety stop" in err and "the line to the robot is gone" in err
    assert "FAULT" in states_in_order(run.trace)


def test_an_adapter_that_is_killed_ends_the_run(
    tmp_path: Path, bundle_path: Path, robot: subprocess.Popen[str]
) -> None:
    run = start(tmp_path, bundle_path, 60)
    run.wait_until_streaming()
    os.kill(adapter_of(run), signal.SIGKILL)
    code, _, err = run.finish()
    assert code == 1 and "safety stop" in err


@pytest.mark.parametrize(("seconds", "survives"), [pytest.param(0.05, True, marks=BLIND), (2.0, False)])
def test_a_robot_that_falls_silent(
    tmp_path: Path, bundle_path: Path, robot: subprocess.Popen[str], seconds: float, survives: bool
) -> None:
    run = start(tmp_path, bundle_path, 8)
    run.wait_until_streaming()
    time.sleep(1.0)
    robot.send_signal(signal.SIGSTOP)
    time.sleep(seconds)
    robot.send_signal(signal.SIGCONT)
    code, _, err = run.finish()
    assert code == (0 if survives else 1), err
    assert violations(run.trace, FRANKA.operating) == []
    assert ("FAULT" in states_in_order(run.trace)) is not survives


def test_no_robot_is_one_line(tmp_path: Path, bundle_path: Path) -> None:
    run = RealRun(tmp_path, bundle_path, 5, "--bridge", "fci:127.0.0.9", "--camera", "pattern:")
    code, _, err = run.finish()
    assert code == 2
    lines = err.strip().splitlines()
    assert len(lines) == 2 and "no Franka answers at 127.0.0.9" in lines[0] and "did not start" in lines[1]
