"""A log that is written as it comes: for runs on a simulated clock, where nobody waits for a disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edge.cameras import Frame
from edge.inference.film import CameraView, FrameHead
from edge.inference.layout import pack_plain
from edge.log.mcap_log import LogWriter
from edge.log.pictures import FrameWriter
from edge.log.records import Journal, Kind, Record, RingJournal

BATCH = 512


class FileLog:
    """A journal, and a `FrameSink`, of one file; an older one of that name is written over. `close` ends it."""

    def __init__(
        self, path: Path, header: dict[str, Any], cameras: Sequence[CameraView], clock_ns: Callable[[], int]
    ) -> None:
        self._file = path.open("wb")
        self._log = LogWriter(self._file)
        self._frames = FrameWriter(self._log, [view.name for view in cameras])
        self._batch: list[Record] = []
        self.journal: Journal = RingJournal(self._push, clock_ns)
        anchor = {"wall_ns": clock_ns(), "monotonic_ns": clock_ns()}
        self.journal.put(Kind.HEADER, pack_plain({"anchor": anchor, **header}))
        self._write()

    def seen(self, camera: int, frame: Frame) -> None:
        self._frame(camera, 0, 0, frame)

    def observed(self, request: int, frames: Sequence[Sequence[Frame]]) -> None:
        for camera, of_camera in enumerate(frames):
            for part, frame in enumerate(of_camera):
                self._frame(camera, request, part, frame)

    def _frame(self, camera: int, request: int, part: int, frame: Frame) -> None:
        head = FrameHead(camera, request, part, frame.captured_ns, frame.sequence, *frame.image.shape[:2])
        self._frames.write(head, frame.image)

    def _push(self, data: bytes) -> bool:
        self._batch.append(Record.unpack(data))
        if len(self._batch) == BATCH:
            self._write()
        return True

    def _write(self) -> None:
        self._log.add(self._batch)
        self._batch = []

    def close(self, report: dict[str, Any]) -> None:
        """The report as the last record, and the index."""
        self.journal.put(Kind.ENDED, pack_plain(report))
        self._write()
        self._log.finish(0)
        self._file.close()
