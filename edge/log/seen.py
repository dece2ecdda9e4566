"""What a journal has held so far, as far as the messages of its later records depend on it."""

from __future__ import annotations

from typing import Any

from edge.arms.frames import Frame, Frames
from edge.inference.records import PlanRequest
from edge.log.records import Kind, Mapping, Record, Sample
from firmware_bridge.framing import FrameReader
from firmware_bridge.reading import ReadError, typed

POSES_US = 50_000
"""Between two messages of where the links stand."""


class Seen:
    """Names of the joints, mappings of the clocks, requests without a result, frames that are not whole yet."""

    def __init__(self) -> None:
        self.host_ns = 0
        self.device_us: float = -1.0
        self.sent_ns: dict[int, int] = {}
        self.frames: list[str] = []
        self.joints: tuple[str, ...] = ()
        self.links: tuple[Frame, ...] = ()
        self.shows_poses = False
        """Whether the sample that was taken last is one of those whose links are shown."""
        self._posed_us = -POSES_US
        self._to_wall_ns = 0
        self._mapping: Mapping | None = None
        self._readers = {Kind.RECEIVED: FrameReader(), Kind.SENT: FrameReader()}

    @property
    def wall_ns(self) -> int:
        """Unix time of the record that was taken last; monotonic before the run's header."""
        return self.host_ns + self._to_wall_ns

    @property
    def bad_frames(self) -> int:
        return self._readers[Kind.RECEIVED].bad_frames

    def take(self, record: Record, body: Any) -> None:
        """Takes the next record."""
        self.host_ns, self.device_us = record.host_ns, self._estimate_us(record.host_ns)
        if isinstance(body, Sample):
            self.device_us = body.device_us
            self.shows_poses = len(self.links) > 0 and body.device_us - self._posed_us >= POSES_US
            self._posed_us = body.device_us if self.shows_poses else self._posed_us
        elif isinstance(body, Mapping):
            self._mapping = body
        elif isinstance(body, PlanRequest):
            self.sent_ns = {body.id: body.sent_ns}
        elif record.kind is Kind.HEADER:
            self._to_wall_ns = body["anchor"]["wall_ns"] - body["anchor"]["monotonic_ns"]
            self.links = _links_of(body.get("frames"))
        elif record.kind is Kind.CONTROLLER:
            self.joints = _joints_of(body.get("arm"))
        elif record.kind in self._readers:
            self.frames = [type(frame.message).__name__ for frame in self._readers[record.kind].feed(record.body)]

    def waited_ms(self, request: int) -> float:
        """Time from a request to the record that was taken last."""
        return (self.host_ns - self.sent_ns[request]) / 1e6

    def _estimate_us(self, host_ns: int) -> float:
        if self._mapping is None:
            return -1.0
        since_us = (host_ns - self._mapping.at_ns) / 1000
        return round(self._mapping.device_us + since_us * (1 + self._mapping.drift), 1)


def _joints_of(arm: Any) -> tuple[str, ...]:
    """Names in what a controller was made from, which is judged where it is made."""
    joints = arm.get("joints") if isinstance(arm, dict) else None
    return tuple(map(str, joints)) if isinstance(joints, list) else ()


def _links_of(frames: Any) -> tuple[Frame, ...]:
    """The arm's links in a header; none where it has none, as in older logs, or something else."""
    try:
        links: tuple[Frame, ...] = typed(Frames, frames) if frames is not None else ()
    except ReadError:
        return ()
    return links
