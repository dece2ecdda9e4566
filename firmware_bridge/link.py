"""Frames, session, sequence numbers and the clock on top of a transport."""

from __future__ import annotations

from collections.abc import Callable

from firmware_bridge.clock_sync import ClockSync
from firmware_bridge.framing import FrameReader, encode_frame
from firmware_bridge.messages import Event, Message, StateReport, TimeReply, TimeRequest
from firmware_bridge.transports.base import Transport

CLOCK_POLL_S = 50e-6
OVERTAKEN_BY = 64
"""Frames. A device that counts from further back has begun anew."""


class Link:
    """Sends messages and collects those of its own session; clock exchanges are taken care of on the way."""

    def __init__(self, transport: Transport, clock_ns: Callable[[], int], session: int) -> None:
        self.transport = transport
        self.clock_ns = clock_ns
        self.session = session
        self.clock = ClockSync()
        self.foreign_frames = 0
        self.overtaken_frames = 0
        self.sent_bytes = 0
        self._reader = FrameReader()
        self._sequence = 0
        self._exchanges = 0
        self._waiting: list[Message] = []
        self._newest: int | None = None

    @property
    def bad_frames(self) -> int:
        """Frames that arrived damaged."""
        return self._reader.bad_frames

    def send(self, message: Message) -> int:
        """Sends one message; returns its sequence number."""
        sequence = self._sequence
        self._sequence = (sequence + 1) & 0xFFFF
        frame = encode_frame(self.session, sequence, message)
        self.sent_bytes += len(frame)
        self.transport.write(frame)
        return sequence

    def receive(self) -> list[Message]:
        """Messages of this session that have arrived, time replies excepted."""
        self._pump()
        messages, self._waiting = self._waiting, []
        return messages

    def exchange_clock(self, idle: Callable[[float], None], timeout_s: float) -> bool:
        """One clock exchange; waits for its answer, since a reply that lies in a buffer tells little. True if answered.

        Whatever else arrives meanwhile is kept for `receive`.
        """
        before = self._exchanges
        sent_ns = self.clock_ns()
        self.send(TimeRequest(sent_ns))
        self._pump()
        while self._exchanges == before and self.clock_ns() - sent_ns < timeout_s * 1e9:
            idle(CLOCK_POLL_S)
            self._pump()
        return self._exchanges > before

    def _pump(self) -> None:
        data = self.transport.read()
        arrived_ns = self.clock_ns()
        for frame in self._reader.feed(data):
            if frame.session != self.session:
                self.foreign_frames += 1
            elif isinstance(frame.message, TimeReply):
                reply = frame.message
                self.clock.add(reply.host_ns, arrived_ns, reply.received_us, reply.sent_us)
                self._exchanges += 1
            elif isinstance(frame.message, (StateReport, Event)) and self._overtaken(frame.sequence):
                self.overtaken_frames += 1
            else:
                self._waiting.append(frame.message)

    def _overtaken(self, sequence: int) -> bool:
        """Whether a frame newer than this one has arrived: older ones are dropped."""
        if self._newest is not None and 0 < (self._newest - sequence) & 0xFFFF <= OVERTAKEN_BY:
            return True
        self._newest = sequence
        return False
