"""A chunk's way to the device and back on lines of different rates, beside set-points streamed at 1 kHz.

The simulated firmware stands behind a pseudo-terminal, which has no baud rate, so the fault proxy paces the bytes: a
serial line at ten bits a byte, a CAN bus at the payload rate that its frames leave at their worst (the direction to the
device and the one back are paced apart, though a CAN bus shares them). The pace is simulated; frames, parser, commit
checks and acknowledgement are the real ones, in real time. The bus load is arithmetic (`firmware_bridge/bus_load.py`).

Streaming sends one set-point of seven joints every millisecond and asks, for every millisecond of the receiver, whether
a new one has come; without a buffer each that has not is a period in which a motor knows nothing new. With chunks the
device holds a second of motion, so the same lateness is not visible in it.

With --clock also how well the host knows the device's time, on a line that delivers at once and on one that delivers
every 16 ms, as an FTDI adapter does by default.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from bench import options
from bench.document import Recording, notify
from bench.harness import summary
from bench.link_rig import JOINTS, KNOTS, LinkRig, chunk_sizes
from bench.link_tables import lines
from bench.tables import percent
from edge.cli.parser import count
from edge.errors import InputError
from edge.realtime.rights import cpus_here, realtime
from edge.realtime.scheduler import FixedStep, measured_spin_ns
from firmware_bridge.bus_load import BITS_PER_BYTE, bus_load, chunk_frames, frame_size, wire_seconds
from firmware_bridge.codes import MAX_KNOTS
from firmware_bridge.constants import HOST_LOAD_LIMIT
from firmware_bridge.errors import BridgeError
from firmware_bridge.fault_proxy import Faults, FaultyTransport
from firmware_bridge.transports import LineRate, LoopbackTransport
from firmware_bridge.transports.can_stream import cut
from firmware_bridge.transports.slcan import encode

EXECUTE_S, HEARTBEAT_HZ = 0.5, 100.0
SET_POINT_PAYLOAD = 4 + 4 * JOINTS
"""A time and one int32 per joint: the least that a streamed set-point needs."""
STREAM_HZ = 1000
BATCH_MS = 16.0
BOUNDARY = "from handing the first byte of a chunk to the line, to the acknowledgement of its commit read by the host"


@dataclass(frozen=True)
class Line:
    """One line. `how` says what carries the bytes: plain serial frames, or the same through an SLCAN adapter."""

    name: str
    rate: LineRate
    how: str = "serial"

    @property
    def payload_baud(self) -> int:
        """Bits per second at which protocol bytes cross the line, ten to a byte."""
        return self._baud(sum(_FRAMES))

    @property
    def proxy_baud(self) -> int:
        """What the proxy is set to: on a CAN line it stands in the adapter's text, which is longer than its payload."""
        if self.rate.bitrate is None:
            return self.payload_baud
        fd = self.rate.data_bitrate is not None
        return self._baud(sum(len(encode(frame)) for size in _FRAMES for frame in cut(0x210, bytes(size), fd)))

    def _baud(self, count: int) -> int:
        """So that `count` bytes take as long as the frames of a chunk take on this line."""
        if self.rate.bitrate is None:
            return self.rate.baud or 0
        return round(BITS_PER_BYTE * count / sum(wire_seconds(size, self.rate) for size in _FRAMES))


_FRAMES = [frame_size(payload) for payload in chunk_frames(KNOTS, JOINTS)]
LINES = (
    Line("pseudo-terminal, no rate", LineRate(baud=1_000_000_000)),
    Line("serial 3 Mbaud", LineRate(baud=3_000_000)),
    Line("serial 1 Mbaud", LineRate(baud=1_000_000)),
    Line("serial 460800 baud", LineRate(baud=460_800)),
    Line("serial 115200 baud", LineRate(baud=115_200)),
    Line("CAN FD 1/5 Mbit/s (SLCAN)", LineRate(bitrate=1_000_000, data_bitrate=5_000_000), "slcan-fd"),
    Line("CAN 1 Mbit/s (SLCAN)", LineRate(bitrate=1_000_000), "slcan"),
    Line("CAN 500 kbit/s (SLCAN)", LineRate(bitrate=500_000), "slcan"),
)
UNPACED = 100_000_000
"""A rate from here on is no rate: the proxy is left out."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--commits", type=count, default=100, help="chunks per line (default %(default)d)")
    parser.add_argument("--knots", type=count, default=KNOTS, help="per chunk, 2 to 50 (default %(default)d)")
    parser.add_argument("--unpaced", action="store_true", help="only the line without a rate")
    parser.add_argument("--stream-seconds", type=float, default=3.0, help="per line (default %(default)g)")
    parser.add_argument("--clock", action="store_true", help="also measure how well the clocks agree")
    parser.add_argument("--clock-seconds", type=float, default=6.0, help="of each of those (default %(default)g)")
    options.add_common(parser)


def run(args: argparse.Namespace) -> int:
    if args.quick:
        args.commits, args.stream_seconds, args.clock_seconds = 5, 0.3, 1.0
    settings = {"commits": args.commits, "knots": args.knots, "joints": JOINTS, "execute_s": EXECUTE_S}
    if not 2 <= args.knots <= MAX_KNOTS:
        raise InputError(f"--knots {args.knots}: a chunk has 2 to {MAX_KNOTS}")
    recording = Recording("link", settings, args.quick)
    lines_to_run = LINES[:1] if args.unpaced else LINES[::5] if args.quick else LINES
    rows = []
    for line in tqdm(lines_to_run, unit="line", disable=None, leave=False):
        notify(line.name)
        rows.append(_line(line, args, recording))
    recording.body = {"boundary": BOUNDARY, "knots": args.knots, "joints": JOINTS, "lines": rows}
    recording.body["chunk_sizes"] = chunk_sizes(args.knots)
    if args.clock:
        recording.body["clock"] = _clocks(args)
    print("\n".join(lines(recording.body)))
    options.finish(args, recording)
    return 0


def _line(line: Line, args: argparse.Namespace, recording: Recording) -> dict[str, Any]:
    load = bus_load(line.rate, JOINTS, args.knots, EXECUTE_S, HEARTBEAT_HZ)
    size = frame_size(SET_POINT_PAYLOAD)
    stream_share = STREAM_HZ * wire_seconds(size, line.rate)
    frames = [frame_size(payload) for payload in chunk_frames(args.knots, JOINTS)]
    row: dict[str, Any] = {
        "name": line.name,
        "rate": asdict(line.rate),
        "paced_baud": 0 if line.payload_baud >= UNPACED else line.payload_baud,
        "chunk_bytes": sum(frames),
        "chunk_transmission_ms": 1000 * load.chunk_s,
        "load_share": load.share,
        "load": str(load),
        "stream_bytes_s": STREAM_HZ * size,
        "stream_share": stream_share,
        "commit": None,
        "resent": 0,
    }
    if load.share > HOST_LOAD_LIMIT:
        recording.leave_out(
            f"chunks over {line.name}", f"refused before arming: the line would be {percent(load.share)} busy"
        )
    else:
        try:
            row |= _commits(line, args)
        except BridgeError as error:
            recording.leave_out(f"chunks over {line.name}", str(error))
    row["stream"] = stream(row["paced_baud"], size, args.stream_seconds)
    return row


def _commits(line: Line, args: argparse.Namespace) -> dict[str, Any]:
    """Round trips on one line. Raises `BridgeError` where the device cannot be reached or the clocks do not agree."""
    baud = 0 if line.proxy_baud >= UNPACED else line.proxy_baud
    rig = LinkRig(line.how, Faults(baud=baud), args.knots)
    try:
        with realtime(cpus_here()):  # as in a run
            times_ms, after_last_ms = rig.commit_times_ms(args.commits)
    finally:
        rig.close()
    return {
        "resent": rig.client.resent,
        "commit": {**summary(np.array(times_ms), args.seed, "ms"), "raw_ms": times_ms},
        "after_last_byte": None if baud else summary(np.array(after_last_ms), args.seed, "ms"),
    }


def stream(baud: int, size: int, seconds: float) -> dict[str, Any]:
    """Set-points of `size` bytes at 1 kHz through a paced line; what the receiver sees in each of its milliseconds."""
    near, far = LoopbackTransport.pair()
    line = FaultyTransport(near, Faults(baud=baud), 0, time.monotonic_ns)
    began_ns: list[int] = []
    delays_ms: list[float] = []
    starved = arrived = 0
    with realtime(cpus_here()):
        spin_ns = measured_spin_ns(time.monotonic_ns, time.sleep)
        loop = FixedStep(1_000_000, time.monotonic_ns, time.sleep, spin_ns)
        received = 0
        for _ in range(round(STREAM_HZ * seconds)):
            now_ns = loop.wait()
            line.pump()
            received += len(far.read())
            before, arrived = arrived, received // size
            delays_ms += [(now_ns - sent_ns) / 1e6 for sent_ns in began_ns[before:arrived]]
            starved += arrived == before
            began_ns.append(time.monotonic_ns())
            line.write(bytes(size))
        missed = loop.overruns
    periods = round(STREAM_HZ * seconds) + missed
    behind = len(began_ns) - arrived
    return {
        "periods": periods,
        "starved_share": (starved + missed) / periods,
        "delay_p50_ms": float(np.percentile(delays_ms, 50)) if delays_ms else None,
        "delay_p99_ms": float(np.percentile(delays_ms, 99)) if delays_ms else None,
        "behind_at_end": behind,
    }


def _clocks(args: argparse.Namespace) -> dict[str, Any]:
    found = {}
    for name, faults in (("at once", Faults()), (f"every {BATCH_MS:g} ms", Faults(batch_ms=BATCH_MS))):
        rig = LinkRig("serial", faults)
        try:
            with realtime(cpus_here()):
                errors = rig.clock_errors_us(args.clock_seconds)
        finally:
            rig.close()
        found[name] = {**summary(np.array(errors), args.seed, "us"), "raw_us": errors}
    return found
