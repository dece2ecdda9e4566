"""The real thing in real time: processes, a serial line, the C firmware, a simulated Franka; judged by the trace."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from firmware_bridge.simulator import SimulatedArm, SimulatorProcess
from tests.support import FRANKA, RealRun, broken_limits, states_in_order

pytestmark = pytest.mark.real_time


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.mark.parametrize("seconds", [8, pytest.param(60, marks=pytest.mark.slow(reason="a minute of motion"))])
def test_motion_breaks_no_limit(seconds: int, folder: Path, bundle_path: Path) -> None:
    run = RealRun(folder, bundle_path, seconds)
    code, out, err = run.finish(timeout_s=90 + seconds)
    trace, report = run.trace, run.report
    assert code == 0, err
    assert broken_limits(trace, FRANKA) == []
    moving = np.array(trace.state) == "STREAMING"
    assert moving.sum() > 1000 * seconds - 1500
    assert set(trace.chunk[moving]) <= set(report["chunks"]["committed_ids"]), "only whole chunks were executed"
    assert report["device"]["limiter_interventions"] == 0 == trace.limited.sum()
    assert report["ended"] == "duration" and report["simulated"] is True
    assert 0.8 < report["link"]["device_clock_rate"] < 1.1
    assert "chunks" in out and "loop lateness" in out


def test_80_ms_without_the_control_process_are_invisible(folder: Path, bundle_path: Path) -> None:
    run = RealRun(folder, bundle_path, 8)
    run.wait_until_streaming()
    time.sleep(1.5)
    for _ in range(5):  # a busy machine may stretch the stall itself beyond the watchdog; then it proves nothing
        began = time.monotonic()
        run.process.send_signal(signal.SIGSTOP)
        time.sleep(0.08)
        run.process.send_signal(signal.SIGCONT)
        stalled_s = time.monotonic() - began
        if stalled_s < 0.085:
            break
    code, _, err = run.finish()
    trace = run.trace
    assert code == 0, err
    assert stalled_s >= 0.08
    assert states_in_order(trace) == ["SILENT", "IDLE", "ARMED", "STREAMING", "DECEL", "HOLD", "IDLE"]
    assert trace.limited.sum() == 0
    assert broken_limits(trace, FRANKA) == []
    assert run.report["loop"]["overruns"] >= 18


@pytest.mark.side_by_side
def test_2_s_without_the_control_process_stop_the_arm_for_good(folder: Path, bundle_path: Path) -> None:
    run = RealRun(folder, bundle_path, 20)
    run.wait_until_streaming()
    time.sleep(0.7)
    run.process.send_signal(signal.SIGSTOP)
    time.sleep(2.0)
    run.process.send_signal(signal.SIGCONT)
    code, _, err = run.finish()
    trace = run.trace
    assert code == 1
    assert "heartbeat lost" in err and "the host was silent for over 100 ms" in err
    assert states_in_order(trace) == ["SILENT", "IDLE", "ARMED", "STREAMING", "DECEL", "HOLD", "IDLE"]
    assert broken_limits(trace, FRANKA) == []
    held = trace.q[np.array(trace.state) == "HOLD"]
    assert len(held) > 1000
    assert np.ptp(held, axis=0).max() == 0.0
    assert run.report["ended"] == "safety stop"


def inference_of(run: RealRun) -> int:
    children = Path(f"/proc/{run.process.pid}/task/{run.process.pid}/children").read_text().split()
    return int(next(pid for pid in children if "edge.inference.process" in Path(f"/proc/{pid}/cmdline").read_text()))


@pytest.mark.side_by_side
def test_an_inference_process_that_dies_stops_the_arm(folder: Path, bundle_path: Path) -> None:
    run = RealRun(folder, bundle_path, 20)
    run.wait_until_streaming()
    os.kill(inference_of(run), signal.SIGKILL)
    code, _, err = run.finish()
    assert code == 1
    assert "the inference process ended by itself (killed by SIGKILL); the arm has come to rest" in err
    assert broken_limits(run.trace, FRANKA) == []
    assert states_in_order(run.trace)[-4:] == ["STREAMING", "DECEL", "HOLD", "IDLE"]


@pytest.mark.side_by_side
def test_inference_that_hangs_is_started_again_and_the_arm_waits_for_the_word(folder: Path, bundle_path: Path) -> None:
    run = RealRun(folder, bundle_path, 60, "--on-inference-loss", "wait")
    run.wait_until_streaming()
    os.kill(inference_of(run), signal.SIGSTOP)
    assert run.process.stdout is not None
    told: list[str] = []
    for line in run.process.stdout:
        told.append(line)
        if "waits for the start command" in line:
            break
    assert any("inference has not answered for" in line for line in told)
    assert any("inference is back" in line for line in told)
    time.sleep(1.0)
    assert run.trace_file.read_text().rstrip().splitlines()[-2].split(",")[1] == "HOLD"
    run.process.send_signal(signal.SIGUSR1)
    time.sleep(3.0)
    run.process.send_signal(signal.SIGINT)
    while run.process.poll() is None:  # a word that comes too late changes nothing
        run.process.send_signal(signal.SIGUSR1)
        time.sleep(0.005)
    code, _, err = run.finish()
    assert code == 0, err
    assert len(run.report["inference_losses"]) == 1
    assert broken_limits(run.trace, FRANKA) == []
    order = states_in_order(run.trace)
    assert order[order.index("HOLD") :] == ["HOLD", "ARMED", "STREAMING", "DECEL", "HOLD", "IDLE"]


@pytest.mark.side_by_side
def test_ctrl_c_stops_under_control_and_reports(folder: Path, bundle_path: Path) -> None:
    run = RealRun(folder, bundle_path, 60)
    run.wait_until_streaming()
    time.sleep(0.5)
    run.process.send_signal(signal.SIGINT)
    code, out, err = run.finish()
    assert code == 0, err
    assert run.report["ended"] == "user" and "Traceback" not in out + err
    assert not run.report_file.with_suffix(".png").exists(), "--no-plot"
    assert states_in_order(run.trace)[-3:] == ["DECEL", "HOLD", "IDLE"]


@pytest.fixture
def device(folder: Path) -> Iterator[SimulatorProcess]:
    process = SimulatorProcess(SimulatedArm("franka", FRANKA.home_rad, trace=folder / "device.csv"))
    yield process
    process.close()


@pytest.mark.side_by_side
def test_a_host_that_is_killed_leaves_an_arm_that_stops(
    folder: Path, bundle_path: Path, device: SimulatorProcess
) -> None:
    bridge = ("--bridge", f"serial:{device.port}", "--camera", "pattern:")
    run = RealRun(folder, bundle_path, 30, *bridge, trace=folder / "device.csv")
    run.wait_until_streaming()
    time.sleep(0.5)
    run.process.kill()
    run.finish()
    time.sleep(1.0)
    device.close()
    trace = run.trace
    assert states_in_order(trace) == ["SILENT", "IDLE", "ARMED", "STREAMING", "DECEL", "HOLD"]
    assert broken_limits(trace, FRANKA) == []
    assert trace.limited.sum() == 0


@pytest.mark.side_by_side
def test_a_device_that_vanishes_ends_the_run(folder: Path, bundle_path: Path, device: SimulatorProcess) -> None:
    bridge = ("--bridge", f"serial:{device.port}", "--camera", "pattern:")
    run = RealRun(folder, bundle_path, 30, *bridge, trace=folder / "device.csv")
    run.wait_until_streaming()
    device.process.kill()
    code, _, err = run.finish()
    assert code == 1
    assert "check cable and power" in err and "Traceback" not in err
