"""The process that empties a run's ring into an MCAP file, which has no name until the run is known to start.

It outlives the run: when the control process ends in whatever way, the socket between them closes, and what is in the
ring is still written and the file closed in order.
"""

from __future__ import annotations

import argparse
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import IO

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


class Recording:
    """The stream of a log: a file without a name, in the folder where it is to be, until `move` gives it its place."""

    def __init__(self, folder: Path) -> None:
        # Closed by `close`, or by `move`.
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self.placed = False

    def move(self, descriptor: int) -> None:
        """What there is goes into the open file `descriptor`, and so does all that follows."""
        place = os.fdopen(descriptor, "wb")
        self._file.seek(0)
        shutil.copyfileobj(self._file, place)
        place.flush()
        self._file.close()
        self._file, self.placed = place, True

    def write(self, data: bytes) -> int:
        return self._file.write(data)

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        with suppress(OSError):  # it tries once more to write the rest
            self._file.close()


def serve(ring: Ring, log: LogWriter, recording: Recording, line: socket.socket) -> None:
    """Writes until the other end of `line` is closed, then once more, and finishes a file that was given its place."""
    flushed_ns = time.monotonic_ns()
    ended = False
    while not ended:
        if select.select([line], [], [], POLL_S)[0]:
            _, files, _, _ = socket.recv_fds(line, 16, 1)
            if files:
                recording.move(files[0])
            ended = not files
        drain(ring, log)
        now_ns = time.monotonic_ns()
        if now_ns - flushed_ns >= FLUSH_NS:
            log.count()
            log.flush()
            flushed_ns = now_ns
    if recording.placed:
        log.finish(ring.dropped)
        recording.flush()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="edge.log.writer", description=__doc__)
    parser.add_argument("--memory", type=int, required=True, help="descriptor of the ring's shared memory")
    parser.add_argument("--capacity", type=int, required=True, help="bytes of the ring")
    parser.add_argument("--folder", type=Path, required=True, help="where the file is going to be")
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
    try:
        with closing(Recording(args.folder)) as recording:
            serve(ring, LogWriter(recording), recording, line)
    except OSError as error:  # what the file did not take
        with suppress(OSError):
            line.send((error.strerror or str(error)).encode())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
