"""The process that empties a run's ring into an MCAP file, which has no name until the run is known to start.

It outlives the run: when the control process ends in whatever way, the socket between them closes, and what is in the
ring is still written and the file closed in order.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import IO, get_args

from edge.inference.film import FrameRings, unpacked
from edge.inference.mailbox import SharedMemory
from edge.inference.ring import Ring
from edge.log.live import FoxgloveServer, Shows, Viewer
from edge.log.mcap_log import LogWriter
from edge.log.pictures import FrameWriter, Kept
from edge.log.records import Record
from edge.log.rerun_live import RerunFeed

POLL_S = 0.02
FLUSH_NS = 500_000_000
BATCH = 512
RESERVE_BYTES = 64 << 20
"""On the disk, for records and decisions: with less, frames are left out."""
FRAMES_NS, FRAMES_AT_END_NS = 20_000_000, 10_000_000_000
"""Spent on frames before the records have their turn again; at the end, on all that are left."""
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
    """The stream of a log: a file without a name, in the folder where it is to be, until `move` gives it its place.

    What the disk does not take ends the file after the last write that was whole; from then on all is let go.
    `report` is called once with the reason.
    """

    def __init__(self, folder: Path, report: Callable[[str], None]) -> None:
        # Closed by `close`, or by `move`.
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        self._report, self._folder = report, folder
        self._at = 0
        self.placed = self.ended = False

    def move(self, descriptor: int) -> None:
        """What there is goes into the open file `descriptor`, and so does all that follows."""
        before, self._file = self._file, os.fdopen(descriptor, "wb", buffering=0)
        before.seek(0)
        self._at, self.placed = 0, True
        while data := before.read(1 << 20):
            self.write(data)
        before.close()

    def write(self, data: bytes) -> int:
        if not self.ended:
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[self._file.write(rest) :]
            except OSError as error:
                self.ended = True
                with suppress(OSError):
                    self._file.truncate(self._at)
                self._report(error.strerror or str(error))
        self._at += len(data)
        return len(data)

    def tell(self) -> int:
        return self._at

    def flush(self) -> None:
        """Every write is the system's at once."""

    def has_room(self) -> bool:
        """Whether the disk has more than what the rest of the log needs before its frames."""
        found = os.statvfs(self._file.fileno())
        return found.f_bavail * found.f_frsize > RESERVE_BYTES and not self.ended

    def close(self) -> None:
        with suppress(OSError):
            self._file.close()


class Nowhere(Recording):
    """The stream of a run that is only shown."""

    def __init__(self) -> None:
        self._at = 0
        self.placed, self.ended = True, False

    def write(self, data: bytes) -> int:
        self._at += len(data)
        return len(data)

    def has_room(self) -> bool:
        return True

    def close(self) -> None:
        """There is nothing to close."""


class Film:
    """Takes the frames out of their rings, those of chunks first, and writes them while there is room and time."""

    def __init__(self, rings: FrameRings, frames: FrameWriter) -> None:
        self._rings, self._frames = rings, frames
        self.room = True

    def write(self, until_ns: int, keep: bool) -> bool:
        """Whether there is more. Without `keep`, before the run's start, frames that pass by are let go."""
        rings, written = self._rings, self._rings.written
        while time.monotonic_ns() < until_ns:
            data, kind = rings.used.pop(), "used"
            if data is None:
                data, kind = rings.passing.pop(), "passing"
            if data is None:
                return False
            if self.room and (keep or kind == "used"):
                self._frames.write(*unpacked(data))
                written[kind] += 1
            elif keep:
                written[f"{kind}_left"] += 1
        return True


def serve(ring: Ring, log: LogWriter, recording: Recording, line: socket.socket, film: Film | None) -> None:
    """Writes until the other end of `line` is closed, then the rest, and finishes a file that was given its place."""
    flushed_ns = time.monotonic_ns()
    ended = more = False
    while not ended:
        if select.select([line], [], [], 0 if more else POLL_S)[0]:
            _, files, _, _ = socket.recv_fds(line, 16, 1)
            if files:
                recording.move(files[0])
            ended = not files
        drain(ring, log)
        now_ns = time.monotonic_ns()
        if film is not None:
            more = film.write(now_ns + (FRAMES_AT_END_NS if ended else FRAMES_NS), recording.placed)
        if now_ns - flushed_ns >= FLUSH_NS:
            log.count()
            log.flush()
            flushed_ns = now_ns
            if film is not None:
                film.room = recording.has_room()
    if recording.placed:
        log.finish(ring.dropped)


def open_viewer(viewer: Viewer) -> Shows:
    return RerunFeed(viewer.port) if viewer.name == "rerun" else FoxgloveServer(viewer.port)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="edge.log.writer", description=__doc__)
    parser.add_argument("--memory", type=int, required=True, help="descriptor of the ring's shared memory")
    parser.add_argument("--capacity", type=int, required=True, help="bytes of the ring")
    parser.add_argument("--folder", type=Path, help="where the file is going to be; there is none without")
    parser.add_argument("--live", type=Viewer.read, help="viewer that shows the messages, as name:port")
    parser.add_argument(
        "--line", type=int, required=True, help="socket that brings the open file, and closes at the end"
    )
    parser.add_argument("--frames", type=int, help="descriptor of the frames' shared memory")
    parser.add_argument("--cameras", type=json.loads, default=[], help="name and size of each camera, as JSON")
    parser.add_argument("--kept", choices=get_args(Kept), default="jpeg", help="what frames are kept as")
    args = parser.parse_args(argv)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # meant for the run, whose end closes the line
        signal.signal(number, signal.SIG_IGN)
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))  # whatever the control process runs as
    os.nice(NICENESS)
    ring = Ring(SharedMemory(Ring.size_of(args.capacity), args.memory), args.capacity)
    line = socket.socket(fileno=args.line)

    def report(why: str) -> None:
        with suppress(OSError):
            line.send(why.encode())

    try:
        with ExitStack() as stack:
            recording = stack.enter_context(closing(Recording(args.folder, report) if args.folder else Nowhere()))
            live = stack.enter_context(closing(open_viewer(args.live))) if args.live else None
            log, film = LogWriter(recording, live), None
            if args.frames is not None:
                rings = FrameRings([tuple(size) for _, size in args.cameras], args.frames)
                film = Film(rings, FrameWriter(log, [name for name, _ in args.cameras], args.kept))
            serve(ring, log, recording, line, film)
    except OSError as error:  # there is no place for a file at all
        report(error.strerror or str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
