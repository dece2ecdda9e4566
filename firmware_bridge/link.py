"""Frames, session, sequence numbers and the clock on top of a transport."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from firmware_bridge.clock_sync import ClockSync
from firmware_bridge.framing import BoundedFrameReader, Frame, encode_frame
from firmware_bridge.messages import Event, Message, StateReport, TimeReply, TimeRequest
from firmware_bridge.transports.base import Transport

CLOCK_POLL_S = 50e-6
OVERTAKEN_BY = 64
"""Frames. A device that counts from further back has begun anew."""
LOST_AT_ONCE, FRAMES_PER_MS = 1024, 2
"""Frames that a device may have sent between two reports, and so many in each millisecond that it says has passed."""
MOST_WAITING = 64
"""Messages kept for `receive`; of more, the newest."""
MOST_EXCHANGES = 8
"""Clock requests that may still be answered."""


class Link:
    """Sends messages and collects those of its own session; clock exchanges are taken care of on the way."""

    def __init__(self, transport: Transport, clock_ns: Callable[[], int], session: int) -> None:
        self.transport = transport
        self.clock_ns = clock_ns
        self.session = session
        self.clock = ClockSync()
        self.joints: int | None = None
        """What a row of joints must hold, once the device has said so."""
        self.foreign_frames = 0
        self.overtaken_frames = 0
        self.misfit_frames = 0
        """Sound frames that this device cannot send: other joints than it has, the answer to what was never asked."""
        self.sequence_jumps = 0
        self.sent_bytes = 0
        self._reader = BoundedFrameReader()
        self._sequence = 0
        self._exchanges = 0
        self._waiting: deque[Message] = deque(maxlen=MOST_WAITING)
        self._asked_ns: deque[int] = deque(maxlen=MOST_EXCHANGES)
        self._newest: int | None = None
        self._last_report: tuple[int, int] | None = None

    @property
    def bad_frames(self) -> int:
        """Frames that arrived damaged, or that cannot be of this device."""
        return self._reader.bad_frames + self.misfit_frames

    @property
    def skipped_frames(self) -> int:
        """Copies, and older ones of too many that arrived at once."""
        return self._reader.skipped_frames

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
        messages = list(self._waiting)
        self._waiting.clear()
        return messages

    def exchange_clock(self, idle: Callable[[float], None], timeout_s: float) -> bool:
        """One clock exchange; waits for its answer, since a reply that lies in a buffer tells little. True if answered.

        Whatever else arrives meanwhile is kept for `receive`.
        """
        before = self._exchanges
        sent_ns = self.clock_ns()
        self._asked_ns.append(sent_ns)
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
            else:
                self._take(frame, arrived_ns)

    def _take(self, frame: Frame, arrived_ns: int) -> None:
        message = frame.message
        if not self._fits(message):
            self.misfit_frames += 1
        elif isinstance(message, TimeReply):
            self._asked_ns.remove(message.host_ns)
            self.clock.add(message.host_ns, arrived_ns, message.received_us, message.sent_us)
            self._exchanges += 1
        elif isinstance(message, (StateReport, Event)) and self._overtaken(frame.sequence):
            self.overtaken_frames += 1
        else:
            if isinstance(message, StateReport):
                self._count_jump(frame.sequence, message.device_us)
            self._waiting.append(message)

    def _fits(self, message: Message) -> bool:
        if isinstance(message, TimeReply):
            return message.host_ns in self._asked_ns
        if isinstance(message, StateReport):
            return self.joints is None or len(message.commanded_urad) == self.joints
        return True

    def _overtaken(self, sequence: int) -> bool:
        """Whether a frame newer than this one has arrived: older ones are dropped."""
        behind = 0 if self._newest is None else (self._newest - sequence) & 0xFFFF
        if 0 < behind <= OVERTAKEN_BY:
            return True
        self._newest = sequence
        return False

    def _count_jump(self, sequence: int, device_us: int) -> None:
        """Compares the frames since the last report with the time that the device says has passed: a host that has not
        looked for long misses many, and the device has had the time to send them.
        """
        if self._last_report is not None:
            last_sequence, last_us = self._last_report
            passed_ms = ((device_us - last_us) & 0xFFFFFFFF) // 1000
            frames = (sequence - last_sequence) & 0xFFFF
            self.sequence_jumps += frames > LOST_AT_ONCE + FRAMES_PER_MS * passed_ms
        self._last_report = (sequence, device_us)
