"""The process that empties a run's ring into an MCAP file.

It outlives the run: when the control process ends in whatever way, the socket between them closes, and what is in the
ring is still written and the file closed in order.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import socket
import sys
import time
from contextlib import suppress

from edge.inference.mailbox import SharedMemory
from edge.log.mcap_log import LogWriter
from edge.log.records import Record
from edge.log.ring import Ring

POLL_S = 0.02
FLUSH_NS = 500_000_000
BATCH = 512
NICENESS = 10
"""The ring holds many seconds; the processor belongs to control and inference first."""


def drain(ring: Ring, log: LogWriter) -> int:
    """Writes what is in the ring, a batch at a time; returns the number of records."""
    total = 0
    while True:
        batch: list[Record] = []
        while len(batch) < BATCH:
            data = ring.pop()
            if data is None:
                break
            batch.append(Record.unpack(data))
        log.add(batch)
        total += len(batch)
        if len(batch) < BATCH:
            return total


def serve(ring: Ring, log: LogWriter, line: int) -> None:
    """Writes until the other end of the socket `line` is closed, then once more, and finishes the file."""
    flushed_ns = time.monotonic_ns()
    ended = False
    while not ended:
        ended = bool(select.select([line], [], [], POLL_S)[0])
        drain(ring, log)
        now_ns = time.monotonic_ns()
        if now_ns - flushed_ns >= FLUSH_NS:
            log.count()
            log.flush()
            flushed_ns = now_ns
    log.finish(ring.dropped)


def write(ring: Ring, file: int, line: socket.socket) -> int:
    """The journal into an open file. What the file does not take ends it, and is said on the line."""
    with suppress(OSError), os.fdopen(file, "wb") as stream:  # leaving it tries once more to write the rest
        try:
            serve(ring, LogWriter(stream), line.fileno())
        except OSError as error:
            with suppress(OSError):
                line.send((error.strerror or str(error)).encode())
            return 1
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="edge.log.writer", description=__doc__)
    parser.add_argument("--memory", type=int, required=True, help="descriptor of the ring's shared memory")
    parser.add_argument("--capacity", type=int, required=True, help="bytes of the ring")
    parser.add_argument(
        "--line", type=int, required=True, help="socket that brings the open file, and closes at the end"
    )
    args = parser.parse_args(argv)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # meant for the run, whose end closes the line
        signal.signal(number, signal.SIG_IGN)
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))  # whatever the control process runs as
    os.nice(NICENESS)
    ring = Ring(SharedMemory(Ring.size_of(args.capacity), args.memory), args.capacity)
    line = socket.socket(fileno=args.line)
    _, files, _, _ = socket.recv_fds(line, 16, 1)
    return write(ring, files[0], line) if files else 0  # none when the run never began


if __name__ == "__main__":
    sys.exit(main())
