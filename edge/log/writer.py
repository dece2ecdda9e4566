"""The process that empties a run's ring into an MCAP file.

It outlives the run: when the control process ends in whatever way, the pipe between them closes, and what is in the
ring is still written and the file closed in order.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
import time

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


def serve(ring: Ring, log: LogWriter, alive: int) -> None:
    """Writes until the other end of the pipe `alive` is closed, then once more, and finishes the file."""
    flushed_ns = time.monotonic_ns()
    ended = False
    while not ended:
        ended = bool(select.select([alive], [], [], POLL_S)[0])
        drain(ring, log)
        now_ns = time.monotonic_ns()
        if now_ns - flushed_ns >= FLUSH_NS:
            log.count()
            log.flush()
            flushed_ns = now_ns
    log.finish(ring.dropped)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="edge.log.writer", description=__doc__)
    parser.add_argument("--memory", type=int, required=True, help="descriptor of the ring's shared memory")
    parser.add_argument("--capacity", type=int, required=True, help="bytes of the ring")
    parser.add_argument("--file", type=int, required=True, help="descriptor of the open file")
    parser.add_argument("--alive", type=int, required=True, help="pipe that closes when the run ends")
    args = parser.parse_args(argv)
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the run, whose end is the end of the pipe
        signal.signal(number, signal.SIG_IGN)
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))  # whatever the control process runs as
    os.nice(NICENESS)
    ring = Ring(SharedMemory(Ring.size_of(args.capacity), args.memory), args.capacity)
    with os.fdopen(args.file, "wb") as stream:
        serve(ring, LogWriter(stream), args.alive)
    return 0


if __name__ == "__main__":
    sys.exit(main())
