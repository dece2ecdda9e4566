"""A run's log, as the control process sees it: a journal to put records into, and a writer beside it."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from edge.errors import SafetyStop
from edge.inference.film import CameraView, FrameRings
from edge.inference.layout import pack_plain
from edge.inference.mailbox import SharedMemory
from edge.inference.records import PlannerStatus
from edge.inference.ring import Ring
from edge.log.live import Viewer
from edge.log.mcap_log import LogError, require_mcap
from edge.log.pictures import H264, Kept, check_video
from edge.log.records import Beat, Journal, Kind, Loop, RingJournal
from edge.realtime.scheduler import FixedStep
from firmware_bridge.children import start_module

CAPACITY = 8 << 20
"""Bytes of the ring: about a minute of a run at 250 Hz, should the writer be held up that long."""
FINISH_TIMEOUT_S = 30.0


class RunLog:
    """A journal in memory, and a writer beside it.

    Its file has no name until the run is known to start, so one that never does leaves none behind. An older recording
    is overwritten only when `overwrite` says so. Without a `path` nothing is kept. With a `live` viewer the messages
    are shown there as they come. `kept` is what frames are kept as that no chunk is computed from. `close` (or leaving
    the `with`) ends both.
    Raises `LogError` when the `log` extra is not installed.
    """

    def __init__(
        self,
        path: Path | None,
        capacity: int = CAPACITY,
        overwrite: bool = False,
        live: Viewer | None = None,
        kept: Kept = "jpeg",
    ) -> None:
        require_mcap("--log" if path else "--live")
        self._kept: Kept = kept
        self.path, self._live = path, live
        self._overwrite = overwrite
        self._memory = SharedMemory(Ring.size_of(capacity))
        self._memory.view(0, Ring.size_of(capacity))[:] = 0  # every page once, before the loop runs
        self._ring = Ring(self._memory, capacity)
        self.journal: Journal = RingJournal(self._ring.push, time.monotonic_ns)
        self.process: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self._opened = False
        self._problem: str | None = None
        self.frames: FrameRings | None = None
        """Where the frames of the run go."""

    def begin(self, header: dict[str, Any]) -> None:
        """`prepare`, then `open`."""
        self.prepare(header)
        self.open()

    def prepare(self, header: dict[str, Any], cameras: Sequence[CameraView] = ()) -> None:
        """Starts the writer; the first record is what is known before the run, and ties its clock to the calendar.

        Raises `LogError` where these cameras cannot be kept as they are to be.
        """
        if self._kept == H264:
            check_video([view.frame_px for view in cameras])
        self._line, theirs = socket.socketpair()
        descriptors = [self._memory.descriptor, theirs.fileno()]
        film: list[str] = []
        if cameras:
            self.frames = FrameRings([view.frame_px for view in cameras])
            self.frames.touch()
            descriptors.append(self.frames.memory.descriptor)
            film = ["--frames", str(descriptors[2]), "--cameras", json.dumps(cameras), "--kept", self._kept]
        arguments = ["--capacity", str(self._ring.capacity), "--memory", str(descriptors[0])]
        arguments += ["--line", str(descriptors[1])]
        arguments += ["--folder", str(self.path.parent)] if self.path else []
        arguments += ["--live", str(self._live)] if self._live is not None else []
        self.process = start_module("edge.log.writer", arguments + film, end=0, pass_fds=descriptors)
        theirs.close()
        self._line.setblocking(False)
        anchor = {"wall_ns": time.time_ns(), "monotonic_ns": time.monotonic_ns()}
        self.journal.put(Kind.HEADER, pack_plain({"anchor": anchor, **header}))

    def open(self) -> None:
        """Opens the file, and hands it to the writer. Raises `LogError`: an older recording, or no place for one."""
        assert self._line is not None and self.process is not None
        if self.process.poll() is not None:
            raise LogError(f"--log {self.path}: {self._ended_early()}")
        if self.path is None:
            return
        try:
            empty = self.path.is_file() and self.path.stat().st_size == 0
            with self.path.open("wb" if self._overwrite or empty else "xb") as file:
                socket.send_fds(self._line, [b"file"], [file.fileno()])
        except FileExistsError:
            raise LogError(f"--log {self.path} is there already; name another, or add --overwrite") from None
        except OSError as error:
            raise LogError(f"--log {self.path}: {error.strerror}") from None
        self._opened = True

    def check(self) -> str | None:
        """Looks whether the writer is at work, without waiting; returns what it has to say, once.

        Raises `SafetyStop` when it has died. One that finds no room on the disk goes on without writing.
        """
        assert self.process is not None
        told = self._told()
        if self.process.poll() is not None:
            raise SafetyStop(self._ended_early())
        return told

    def _told(self) -> str | None:
        """A line of the writer, if there is a new one: what it could not do."""
        if self._line is None:
            return None
        try:
            why = self._line.recv(300).decode(errors="replace")
        except OSError:
            return None
        if not why:
            return None
        self._problem = f"the log ends early ({why}); {self._recover()}"
        return self._problem

    def _ended_early(self) -> str:
        assert self.process is not None
        if self._problem is None:
            self._problem = f"the log's writer ended by itself (exit {self.process.returncode}); {self._recover()}"
        return self._problem

    def _recover(self) -> str:
        if self.path is None:
            return "nothing is shown live any more"
        return f"{self.path} is incomplete; `mcap recover` makes what there is readable"

    def loop(self, loop: FixedStep) -> None:
        """How late this tick of the control loop was."""
        self.journal.put(Kind.LOOP, Loop.body(loop.ticks, loop.late_ns, loop.overruns))

    def beat(self, status: PlannerStatus | None) -> None:
        """A sign of life of the inference process, if there is a new one."""
        if status is not None:
            self.journal.put(Kind.BEAT, Beat(status.phase, status.beat).pack())

    def control_ended(self, ended: str, error: str | None) -> None:
        """Why the control loop ended, also where the reason came from outside of its decisions."""
        self.journal.put(Kind.NOTE, pack_plain({"decision": "ended", "why": ended, "error": error}))

    def message(self, text: str) -> None:
        """A line that the run printed; it prints none while the arm moves."""
        self.journal.put(Kind.NOTE, pack_plain({"decision": "said", "why": text}))

    def end(self, report: dict[str, Any]) -> None:
        """The last record: the run's report."""
        self.journal.put(Kind.ENDED, pack_plain(report))

    def summary(self) -> dict[str, Any]:
        """For the report: the file, and how many records and frames found no room so far."""
        found: dict[str, Any] = {"file": self.path and str(self.path), "missing_records": self._ring.dropped}
        if self.frames is not None:
            found["frames"] = self.frames.counts()
        return found

    def close(self) -> str | None:
        """Lets the writer finish; returns what went wrong, in one line, or None."""
        if self.process is None or self._line is None:
            return self._problem
        early = self.process.poll() is not None
        with suppress(OSError):  # the writer has gone
            self._line.shutdown(socket.SHUT_WR)
        try:
            if self.process.wait(FINISH_TIMEOUT_S) or early:
                self._ended_early()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            self._problem = f"the log's writer was not done after {FINISH_TIMEOUT_S:.0f} s; {self._recover()}"
        self._told()
        self._line.close()
        self._line = None
        if self._problem is None and self._ring.dropped and self._opened:
            self._problem = f"{self._ring.dropped} records are missing in {self.path}: its writer was held up"
        counts = self.frames.counts() if self.frames is not None else {}
        if self._problem is None and counts.get("used_dropped"):
            self._problem = (
                f"{counts['used_dropped']} frames of chunks are missing in {self.path}; it cannot be recomputed"
            )
        return self._problem

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.end({"ended": "error", "error": str(error) or type(error).__name__})
        self.close()
