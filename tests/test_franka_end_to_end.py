"""`edge-run` on a Franka's own protocol: franky-sim (MuJoCo behind FCI) on loopback, judged by the adapter's trace.

The policy sees our scene, drawn at the pose that the adapter measures; franky-sim moves the arm.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge.cli import doctor
from edge.log.trace import Trace, read_trace
from edge.sim.scene import REACHED_M
from edge.sim.scenes import ReachScene
from tests.franky import franky
from tests.support import FRANKA, RealRun, broken_limits, states_in_order

pytest.importorskip("franky_sim", reason="pip install franky-sim pin")
pytest.importorskip("pylibfranka", reason="pip install 'vla-edge[franka]'")
ADDRESS = "127.0.0.1"
pytestmark = pytest.mark.real_time


@pytest.fixture(autouse=True)
def no_earlier_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault outlives its run, and these are of one address."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def robot() -> Iterator[subprocess.Popen[str]]:
    with franky(ADDRESS) as process:
        yield process


def start(folder: Path, bundle: Path, duration_s: float, *more: str) -> RealRun:
    return RealRun(folder, bundle, duration_s, "--bridge", f"fci:{ADDRESS}", *more)


def driven(trace: Trace) -> Trace:
    """From the arming on: before it, a gap in device time is not a fault."""
    return trace.part(slice(int(np.argmax(trace.state == "ARMED")), None))


def nearest_m(trace: Trace) -> float:
    """How near the tip came to its goal above the red cube, looked at four times a second."""
    scene = ReachScene(FRANKA, 0)
    verdicts = [scene.verdict("reach the red cube", q[None]) for q in trace.q[::250]]
    return min(verdict.distance_m for verdict in verdicts if verdict is not None)


def adapter_of(run: RealRun) -> int:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        if b"edge.cli.adapter" in arguments and parent == run.process.pid:
            return int(folder.name)
    raise AssertionError("no adapter runs")


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize("seconds", [10, pytest.param(60, marks=pytest.mark.slow)])
def test_the_shipped_policy_on_fci(
    tmp_path: Path, bundle_path: Path, robot: subprocess.Popen[str], seconds: int
) -> None:
    run = start(tmp_path, bundle_path, seconds)
    code, out, err = run.finish(timeout_s=90 + seconds)
    trace, report = run.trace, run.report
    assert code == 0, err
    assert broken_limits(driven(trace), FRANKA) == []
    moving = np.array(trace.state) == "STREAMING"
    assert moving.sum() > 0.9 * len(driven(trace).state), "in the periods that the robot made, the arm followed chunks"
    assert set(trace.chunk[moving]) <= set(report["chunks"]["committed_ids"])
    assert report["device"]["limiter_interventions"] == 0 == trace.limited.sum()
    assert report["simulated"] is True and report["simulated_scene"]["target"] == "red"
    assert nearest_m(trace) < REACHED_M, "the arm went where the policy saw the cube"
    told = report["adapter"]
    assert told["success_rate_least"] == 1.0 and told["periods"] == len(trace.state)
    assert told["periods"] > 600 * seconds, "a simulated robot on shared processors makes fewer than 1000 a second"
    assert told["answer_p50_us"] <= 500, "and leaves the robot's line its part of it"
    assert "arm's line" in out and "success rate 1.00, 1.00 at least" in out
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
    assert broken_limits(run.trace, FRANKA) == []


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


def test_a_robot_that_is_silent_for_50_ms_is_not_noticed(
    tmp_path: Path, bundle_path: Path, robot: subprocess.Popen[str]
) -> None:
    run = start(tmp_path, bundle_path, 6)
    silence(run, robot, 0.05)
    code, _, err = run.finish()
    assert code == 0, err
    assert "FAULT" not in states_in_order(run.trace)
    assert broken_limits(driven(run.trace), FRANKA) == []


def test_a_robot_that_is_silent_for_2_s_ends_the_run(
    tmp_path: Path, bundle_path: Path, robot: subprocess.Popen[str]
) -> None:
    run = start(tmp_path, bundle_path, 60)
    silence(run, robot, 2.0)
    code, _, err = run.finish()
    assert code == 1, err
    assert "FAULT" in states_in_order(run.trace)
    assert broken_limits(run.trace, FRANKA) == []


def silence(run: RealRun, robot: subprocess.Popen[str], seconds: float) -> None:
    run.wait_until_streaming()
    time.sleep(1.0)
    robot.send_signal(signal.SIGSTOP)
    time.sleep(seconds)
    robot.send_signal(signal.SIGCONT)


def test_the_way_home_on_fci(tmp_path: Path) -> None:
    start_rad = tuple(q + 0.05 for q in FRANKA.home_rad)
    with franky(ADDRESS, start_rad=start_rad):
        arguments = ["--arm", "franka", "--bridge", f"fci:{ADDRESS}", "--to-home", "--yes"]
        arguments += ["--trace", str(tmp_path / "trace.csv")]
        run = subprocess.run(
            [sys.executable, "-m", "edge.cli.run", *arguments], capture_output=True, text=True, timeout=90
        )
    assert run.returncode == 0, run.stderr
    assert "from home, drive off" in run.stdout
    trace = driven(read_trace(tmp_path / "trace.csv"))
    assert broken_limits(trace, FRANKA) == []
    assert np.abs(trace.q[-1] - FRANKA.home_rad).max() < 1e-5


def test_the_doctor_asks_a_franka_and_moves_nothing(
    robot: subprocess.Popen[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert doctor.main(["--arm", "franka", "--bridge", f"fci:{ADDRESS}"]) == 0
    rows = {row.split()[1]: row for row in capfd.readouterr().out.splitlines() if row.startswith(("ok", "warn"))}
    assert "'franka', firmware" in rows["handshake"] and "IDLE, at 0.000 -0.7" in rows["device"]
    assert "round" in rows


def test_the_doctor_without_a_robot(capfd: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--arm", "franka", "--bridge", "fci:127.0.0.9"]) == 1
    out, err = capfd.readouterr()
    assert "FAIL     bridge" in out and "did not start" in out and "no Franka answers at 127.0.0.9" in err


def test_the_doctor_refuses_what_is_no_address(capfd: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--arm", "franka", "--bridge", "fci:"]) == 2
    assert doctor.main(["--arm", "so101", "--bridge", f"fci:{ADDRESS}"]) == 1, "another arm than a Franka"


def test_no_robot_is_one_line(tmp_path: Path, bundle_path: Path) -> None:
    run = RealRun(tmp_path, bundle_path, 5, "--bridge", "fci:127.0.0.9")
    code, _, err = run.finish()
    assert code == 2
    lines = err.strip().splitlines()
    assert len(lines) == 2 and "no Franka answers at 127.0.0.9" in lines[0] and "did not start" in lines[1]
