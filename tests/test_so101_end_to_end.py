"""An SO-101 in real time: host, adapter and simulated servos are processes of their own, on pseudo-terminals."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.log.trace import Trace, read_trace, violations
from edge.run.arm import ConnectedArm, client_in_real_time
from firmware_bridge.codes import DeviceState
from firmware_bridge.transports.serial_port import SerialTransport
from tests.servo_bench import SO101
from tests.servo_process import ServoProcess
from tests.so101_motion import Motion, errors_degrees, worst_degrees
from tests.support import broken_limits, states_in_order

RUN_S = 4.0
CHUNK_NS = 500_000_000

pytestmark = pytest.mark.real_time


@pytest.fixture
def servos(tmp_path: Path) -> Iterator[ServoProcess]:
    process = ServoProcess(tmp_path, "--corrupt", "0.01", "--seed", "3")
    yield process
    process.close()


class Host:
    """`edge-adapter` on the servos, and a host that streams chunks to it."""

    def __init__(self, servos: ServoProcess, trace: Path) -> None:
        arguments = ["--arm", "so101", "--drive", servos.url, "--trace", str(trace)]
        self.trace_file = trace
        self.adapter = subprocess.Popen(
            [sys.executable, "-m", "edge.cli.adapter", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.adapter.stdout is not None
        assert select.select([self.adapter.stdout], [], [], 30.0)[0], self.adapter.communicate()
        port = SerialTransport(json.loads(self.adapter.stdout.readline())["port"])
        self.client = client_in_real_time(port)
        ConnectedArm.connect(SO101, self.client).switch_on()
        commanded = np.array(self.client.wait_for_state().commanded_urad) / 1e6
        self._next_ns = time.monotonic_ns()
        zero_us = round(self.client.link.clock.device_us(self._next_ns)) + 300_000
        self._motion = Motion(commanded, zero_us)
        self._chunk = self._tick = 0
        self.state = DeviceState.ARMED

    def stream(self, seconds: float) -> None:
        """Heartbeats and chunks, until the time is over or the device takes no more."""
        until_ns = time.monotonic_ns() + round(1e9 * seconds)
        while (now_ns := time.monotonic_ns()) < until_ns and self.state != DeviceState.FAULT:
            self._tick += 1
            self.client.heartbeat(self._tick + 1)
            if now_ns >= self._next_ns:
                self.client.send_chunk(self._motion.chunk(self._chunk))
                self._chunk += 1
                self._next_ns += CHUNK_NS
            inbox = self.client.poll(now_ns)
            self.state = DeviceState(inbox.state.state) if inbox.state else self.state
            self.client.keep_clock(now_ns, 0.01)
            time.sleep(0.01)

    def leave(self) -> tuple[dict[str, Any], str]:
        """Ends the adapter; its statistics and what it said."""
        self.adapter.terminate()
        out, err = self.adapter.communicate(timeout=20)
        self.client.link.transport.close()
        return json.loads(out.strip().splitlines()[-1]), err

    @property
    def trace(self) -> Trace:
        return read_trace(self.trace_file)


def streaming(servos: ServoProcess, folder: Path, seconds: float) -> Host:
    """A host whose arm has been moving for a while."""
    host = Host(servos, folder / "trace.csv")
    host.stream(seconds)
    assert host.state == DeviceState.STREAMING
    return host


@dataclass(frozen=True)
class Run:
    trace: Trace
    seen_us: np.ndarray
    shafts: np.ndarray
    told: dict[str, Any]
    err: str


def run_once(folder: Path) -> Run:
    servos = ServoProcess(folder, "--corrupt", "0.01", "--seed", "0")
    host = Host(servos, folder / "trace.csv")
    host.stream(RUN_S)
    clock = host.client.link.clock
    told, err = host.leave()
    servos.close()
    at_ns, shafts = servos.shafts()
    return Run(host.trace, np.array([clock.device_us(int(at)) for at in at_ns]), shafts, told, err)


def test_the_servos_follow_in_real_time_with_damaged_packets(tmp_path: Path) -> None:
    run = run_once(tmp_path)
    assert run.err == "" and "FAULT" not in states_in_order(run.trace)
    assert broken_limits(run.trace, SO101) == []
    worst, lag_ms = worst_degrees(run.trace, run.seen_us, run.shafts)
    at_once = float(np.quantile(errors_degrees(run.trace, run.seen_us, run.shafts, 0), 0.99))
    print(f"{worst:.2f} degrees at most, {lag_ms} ms later; {at_once:.2f} (p99) at the same time; {run.told}")
    assert worst < 1.0 and lag_ms <= 25 and at_once < 2.5
    assert run.told["packets_corrupted"] > 10 and 0.9 < run.told["success_rate_least"] < 1.0
    assert run.told["period_p50_us"] <= 5200, "200 Hz"


@pytest.mark.side_by_side
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])  # its parent has gone; its terminal has
def test_a_host_that_is_killed_leaves_an_arm_at_rest_and_limp(
    servos: ServoProcess, tmp_path: Path, number: signal.Signals
) -> None:
    host = streaming(servos, tmp_path, 1.2)
    assert host.adapter.stdout is not None and host.adapter.stderr is not None
    host.adapter.stdout.close()  # and nobody reads what it says
    host.adapter.stderr.close()
    host.adapter.send_signal(number)
    host.adapter.wait(timeout=20)
    assert states_in_order(host.trace)[-3:] == ["STREAMING", "DECEL", "HOLD"]
    assert broken_limits(host.trace, SO101) == [] and host.adapter.returncode == 0
    servos.close()
    shafts = servos.shafts()[1]
    assert np.degrees(np.ptp(shafts[-50:], axis=0)).max() < 0.2


@pytest.mark.side_by_side
def test_an_adapter_that_is_killed_leaves_the_servos_holding(servos: ServoProcess, tmp_path: Path) -> None:
    host = streaming(servos, tmp_path, 1.2)
    os.kill(host.adapter.pid, signal.SIGKILL)
    host.adapter.communicate()
    time.sleep(0.3)
    again = subprocess.run(
        [sys.executable, "-m", "edge.cli.adapter", "--arm", "so101", "--drive", servos.url],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert again.returncode == 2
    assert "holds a pose already; take the arm in hand, then edge-calibrate" in again.stderr
    assert len(again.stderr.strip().splitlines()) == 1


@pytest.mark.side_by_side
def test_a_silent_servo_ends_the_motion_by_name(servos: ServoProcess, tmp_path: Path) -> None:
    host = streaming(servos, tmp_path, 0.8)
    servos.command("silent 3")
    host.stream(2.0)
    assert host.state == DeviceState.FAULT
    _, err = host.leave()
    assert "servo 3 (elbow_flex) has been silent for" in err
    assert violations(host.trace, SO101.limits) == []
