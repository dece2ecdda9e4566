"""Measures the bridge on this machine: how well the clocks agree, and how long a commit takes.

The simulated device on a pseudo-terminal counts this machine's monotonic clock and says when it began, so the error of
the host's estimate of its time is known exactly. One chunk of 50 knots and 7 joints after the other is sent; its commit
is timed from the last byte written to the acknowledgement read.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

from edge.arms import load_arm
from edge.session import wire_limits
from firmware_bridge.client import DeviceClient, KnotChunk
from firmware_bridge.errors import BridgeError
from firmware_bridge.fault_proxy import Faults, FaultyTransport
from firmware_bridge.framing import encode_frame
from firmware_bridge.link import Link
from firmware_bridge.simulator import SimulatedArm, SimulatorProcess
from firmware_bridge.transports import SerialTransport
from firmware_bridge.transports.can_stream import cut

KNOTS, SPACING_US, LEAD_US = 50, 20_000, 40_000
BATCH_MS = 16.0


def percentiles(values: list[float]) -> dict[str, float]:
    """Median, 99th percentile and maximum."""
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {"p50": cuts[49], "p99": cuts[98], "max": max(values), "samples": len(values)}


class Bench:
    """The simulated device in real time with a client in front."""

    def __init__(self, batch_ms: float) -> None:
        self.arm = load_arm("franka")
        self.process = SimulatorProcess(SimulatedArm(self.arm.name, self.arm.home_rad))
        line = SerialTransport(self.process.port)
        faulty = FaultyTransport(line, Faults(batch_ms=batch_ms), 0, time.monotonic_ns)
        self.client = DeviceClient(Link(faulty if batch_ms else line, time.monotonic_ns, 1), time.sleep)
        self.client.connect(self.arm.name, self.arm.hash32, self.arm.dof)
        self.tick = 0

    def clock_errors(self, seconds: float) -> list[float]:
        """Absolute errors of the host's estimate in us, every 5 ms, while the clocks are kept as in a run."""
        self.client.synchronise_clock()
        zero_ns, errors = self.process.description["zero_ns"], []
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(0.005)
            self.client.poll(time.monotonic_ns())
            self.client.keep_clock(time.monotonic_ns(), slack_s=0.1)
            now_ns = time.monotonic_ns()
            errors.append(abs(self.client.link.clock.device_us(now_ns) - (now_ns - zero_ns) / 1000))
        return errors

    def commit_times(self, count: int) -> list[float]:
        """Milliseconds from a chunk's last byte to its acknowledgement."""
        client, link = self.client, self.client.link
        client.set_limits(wire_limits(self.arm.operating))
        client.arm(client.wait_for_state().measured_urad, 1)
        here = client.wait_for_state().commanded_urad
        times: list[float] = []
        for number in range(count):
            start_us = int(link.clock.device_us(time.monotonic_ns()) + LEAD_US) & 0xFFFFFFFF
            rest = (0,) * len(here)
            client.send_chunk(KnotChunk(number % 60_000 + 1, start_us, SPACING_US, (here,) * KNOTS, (rest,) * KNOTS))
            sent_ns = time.monotonic_ns()
            while client.commit_pending:
                self._beat()
                inbox = client.poll(time.monotonic_ns())
                if inbox.refused:
                    raise BridgeError(f"a chunk was refused: {inbox.refused[0][1]}")
                time.sleep(20e-6)
            times.append((time.monotonic_ns() - sent_ns) / 1e6)
            until = time.monotonic() + 0.03  # until this chunk has begun, and a place in the device is free
            while time.monotonic() < until:
                self._beat()
                client.poll(time.monotonic_ns())
                time.sleep(0.001)
        return times

    def _beat(self) -> None:
        tick = int(time.monotonic() * 100)
        if tick != self.tick:
            self.tick = tick
            self.client.heartbeat(tick)

    def close(self) -> None:
        """Ends the device."""
        self.client.link.transport.close()
        self.process.close()


def chunk_size() -> dict[str, int]:
    """Bytes of a chunk of 50 knots and 7 joints, positions alone and with velocities."""
    row = tuple(range(1_000_001, 1_000_008))
    sizes = {}
    for name, velocities in (("positions", None), ("with_velocities", (row,) * KNOTS)):
        frames = [encode_frame(1, 1, m) for m in KnotChunk(1, 1, SPACING_US, (row,) * KNOTS, velocities).messages()]
        sizes[f"serial_{name}"] = sum(map(len, frames))
        sizes[f"can_fd_payload_{name}"] = sum(len(part.data) for frame in frames for part in cut(0x210, frame, True))
    return sizes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each clock measurement (default %(default)g)")
    parser.add_argument("--commits", type=int, default=500)
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    args = parser.parse_args()
    figures: dict[str, object] = {"chunk_bytes": chunk_size()}
    try:
        for name, batch_ms in (("clock_error_us", 0.0), ("clock_error_us_batched_16_ms", BATCH_MS)):
            bench = Bench(batch_ms)
            try:
                figures[name] = percentiles(bench.clock_errors(args.seconds))
                if not batch_ms:
                    figures["commit_ms"] = percentiles(bench.commit_times(args.commits))
            finally:
                bench.close()
    except BridgeError as error:
        print(f"bridge_latency: {error}", file=sys.stderr)
        return 2
    for name, value in figures.items():
        assert isinstance(value, dict)
        print(f"{name:30} " + ", ".join(f"{key} {number:.4g}" for key, number in value.items()))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
