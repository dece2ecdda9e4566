"""Shared by the tests: a lockstep device with a client in front, chunks to send, and a real run to judge."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.arms import ArmProfile, load_arm
from edge.log.trace import Trace, read_trace, violations
from edge.run.arm import ConnectedArm
from firmware_bridge.client import DeviceClient, Inbox, KnotChunk
from firmware_bridge.link import Link
from firmware_bridge.messages import Nak, StateReport
from firmware_bridge.simulator import LockstepDevice, SimulatedArm

FRANKA = load_arm("franka")
HOME = np.array(FRANKA.home_rad)
STREAM_TIMEOUT_S = 40.0


class Rig:
    """A device in lockstep and a client; `heartbeats` can be turned off to starve the watchdog."""

    def __init__(
        self, trace: Path | None = None, arm: ArmProfile = FRANKA, session: int = 7, device: Any = None
    ) -> None:
        self.arm = arm
        self.device = device or LockstepDevice(SimulatedArm(arm.name, arm.home_rad, trace=trace))
        self.rate = 1.0
        self._slow_from = (0, 0)
        self.client = self.new_client(session)
        self.heartbeats = True
        self.loop_tick = 1
        self.inbox = Inbox()

    def new_client(self, session: int) -> DeviceClient:
        return DeviceClient(Link(self.device, lambda: self.host_ns, session), self._idle)

    @property
    def host_ns(self) -> int:
        """The host's clock: the device's own, until `slow_down`."""
        host_ns, device_us = self._slow_from
        return host_ns + round(1000 * (self.device.now_us - device_us) / self.rate)

    def slow_down(self, rate: float) -> None:
        """From now on the device makes `rate` milliseconds in each of the host's."""
        self._slow_from, self.rate = (self.host_ns, self.device.now_us), rate

    def _idle(self, seconds: float) -> None:
        self.device.tick(math.ceil(1000 * seconds))

    def armed(self) -> Rig:
        """Brings the device to ARMED through the whole handshake."""
        self.device.tick()
        ConnectedArm.connect(self.arm, self.client).switch_on(self.loop_tick)
        return self

    def run(self, milliseconds: int) -> Inbox:
        """Lets time pass with heartbeats every 10 ms; returns everything that arrived meanwhile."""
        gathered = Inbox()
        for step in range(milliseconds):
            if self.heartbeats and step % 10 == 0:
                self.loop_tick += 1
                self.client.heartbeat(self.loop_tick)
            self.device.tick()
            inbox = self.client.poll(self.device.now_us * 1000)
            gathered.state = inbox.state or gathered.state
            gathered.committed += inbox.committed
            gathered.refused += inbox.refused
            gathered.events += inbox.events
            gathered.naks += inbox.naks
        return gathered

    def state(self) -> StateReport:
        state = self.run(20).state
        assert state is not None
        return state

    def commit(self, chunk: KnotChunk) -> Nak | None:
        """Sends a chunk and waits for the answer: None when it was accepted."""
        self.client.send_chunk(chunk)
        inbox = self.run(2)
        assert len(inbox.committed) + len(inbox.refused) == 1
        return inbox.refused[0][1] if inbox.refused else None

    def close(self) -> None:
        self.device.close()


def broken_limits(trace: Trace, arm: ArmProfile) -> list[str]:
    """Limits that a run has broken: its own in motion, the compiled ones in a stop as well.

    While the drive is off nothing follows the set-point: with ARM it begins anew at the measured pose, noise and all.
    """
    driven = np.flatnonzero(~np.isin(trace.state, ("BOOT", "SILENT", "IDLE")))
    parts = np.split(driven, np.flatnonzero(np.diff(driven) > 1) + 1)
    return [wrong for rows in parts if rows.size for wrong in _broken(trace.part(slice(rows[0], rows[-1] + 1)), arm)]


def _broken(trace: Trace, arm: ArmProfile) -> list[str]:
    stopping = np.isin(trace.state, ("DECEL", "HOLD", "FAULT", "ESTOP"))
    changes = np.flatnonzero(np.diff(stopping)) + 1
    parts = np.split(np.arange(len(stopping)), changes)
    moving = [part for part in parts if part.size and not stopping[part[0]]]
    found = [wrong for part in moving for wrong in violations(trace.part(slice(part[0], part[-1] + 1)), arm.operating)]
    return found + violations(trace, arm.limits)


def chunk_from(
    identity: int, start_us: int, q_rad: NDArray[np.float64], dq_rad_s: NDArray[np.float64] | None, spacing_us: int
) -> KnotChunk:
    """A chunk from rows of knots in radians."""

    def rows(values: NDArray[np.float64]) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(row) for row in np.rint(values * 1e6).astype(int).tolist())

    return KnotChunk(identity, start_us, spacing_us, rows(q_rad), None if dq_rad_s is None else rows(dq_rad_s))


def swing(
    identity: int,
    start_us: int,
    knots: int = 11,
    spacing_us: int = 100_000,
    amplitude: float = 0.2,
    zero_us: int | None = None,
    around: NDArray[np.float64] = HOME,
) -> KnotChunk:
    """Knots on a smooth swing from a pose that begins at rest at `zero_us` (default: at the start of the chunk)."""
    zero_us = start_us if zero_us is None else zero_us
    times = (start_us - zero_us + spacing_us * np.arange(knots)[:, None]) * 1e-6
    rate = 2.0
    q = around + amplitude * (1 - np.cos(rate * times))
    return chunk_from(identity, start_us, q, amplitude * rate * np.sin(rate * times) * np.ones(7), spacing_us)


class RealRun:
    """`edge-run` as a user starts it, with its report and the device's trace in one folder; without a plot."""

    def __init__(self, folder: Path, bundle: Path, duration_s: float, *more: str, trace: Path | None = None) -> None:
        self.trace_file = trace or folder / "trace.csv"
        self.report_file = folder / "run.json"
        command = [sys.executable, "-m", "edge.cli.run", "--arm", "franka", "--bundle", str(bundle)]
        command += ["--duration", str(duration_s), "--report", str(self.report_file), "--no-plot", *more]
        command += [] if trace else ["--trace", str(self.trace_file)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def wait_until_streaming(self) -> None:
        deadline = time.monotonic() + STREAM_TIMEOUT_S
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.process.communicate()
            if self.trace_file.exists() and ",STREAMING," in self.trace_file.read_text()[-4000:]:
                return
            time.sleep(0.05)
        raise AssertionError("the arm never moved")

    def finish(self, timeout_s: float = 60.0) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, out, err

    @property
    def report(self) -> dict:
        return json.loads(self.report_file.read_text())

    @property
    def trace(self) -> Trace:
        return read_trace(self.trace_file)


def states_in_order(trace: Trace) -> list[str]:
    return [state for index, state in enumerate(trace.state) if index == 0 or state != trace.state[index - 1]]
