"""The host's end of the half-duplex bus: one question at a time, its answers within a deadline, everything counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from firmware_bridge.adapters.feetech import packets
from firmware_bridge.adapters.feetech.packets import OVERHEAD, Packet, PacketReader
from firmware_bridge.adapters.feetech.registers import ID, Register
from firmware_bridge.adapters.feetech.timing import BAUD
from firmware_bridge.transports.base import Transport
from firmware_bridge.transports.serial_port import SerialTransport

GRACE_S = 0.003
"""Beyond what an answer takes on the line: scheduling, and two frames of a USB adapter."""
TRIES = 12
LATEST_S = 0.05
"""Ours: answers have been seen 12 to 45 ms late. At set-up they are waited for, since one that comes after its question
was given up could be taken for the answer to the next."""


@dataclass
class BusCounters:
    """What has gone over the bus. `requested` and `answered` count answers expected and received."""

    requested: int = 0
    answered: int = 0
    corrupted: int = 0
    foreign: int = 0
    echoes: int = 0
    late: int = 0


@dataclass(frozen=True)
class _Question:
    request: bytes
    servos: tuple[int, ...]
    deadline_ns: int


class ServoBus:
    """Speaks to servos over `port`. `wait(seconds)` returns when something may have arrived, at the latest after that.

    The echo of an adapter that sends back what it is told is dropped. What is missing or damaged is counted and left
    out of the answers; only a broken port raises `LinkLost`. A question is asked on a quiet line alone: where something
    has come in since the last one was settled, it was late, and this one is left out.
    """

    def __init__(self, port: Transport, clock_ns: Callable[[], int], wait: Callable[[float], None]) -> None:
        self.port = port
        self.counters = BusCounters()
        self._clock_ns = clock_ns
        self._wait = wait
        self._open: _Question | None = None
        self._echo = b""
        self._arrived = b""
        self._reader = PacketReader()
        self._answers: dict[int, Packet] = {}

    def begin(self, request: bytes, servos: Sequence[int], size: int, takes_s: float, before: bytes = b"") -> None:
        """Asks, and returns at once. Each of `servos` is to answer with `size` bytes, all within `takes_s`.

        `before` is sent in front, in the same write: packets that nobody answers.
        """
        late = self._without_echo(self.port.read())
        self._reader, self._answers = PacketReader(size), {}
        self._arrived = b""
        self.counters.requested += len(servos)
        if late:
            self.counters.late += 1
            self._echo = before
            self._open = _Question(b"", (), self._clock_ns())
            if before:
                self.port.write(before)
            return
        self._echo = before + request
        deadline_ns = self._clock_ns() + round(1e9 * (takes_s + GRACE_S))
        self._open = _Question(request, tuple(servos), deadline_ns)
        self.port.write(before + request)

    def poll(self) -> bool:
        """Takes what has arrived; whether the question is settled, by its answers or its deadline. Never waits."""
        question = self._open
        if question is None or not question.request:
            self._open = None
            return True
        self._sort(self._reader.feed(self._without_echo(self.port.read())), question)
        late = self._clock_ns() >= question.deadline_ns
        if late:
            held, self._arrived = self._arrived, b""
            self._sort(self._reader.feed(held) + self._reader.finish(), question)
        if late or len(self._answers) == len(question.servos):
            self.counters.corrupted += self._reader.corrupted
            self.counters.answered += len(self._answers)
            self._open = None
            return True
        return False

    def collect(self) -> Mapping[int, Packet]:
        """Waits for the answers of the question that was begun; those that came, by servo."""
        while not self.poll():
            question = self._open
            assert question is not None
            self._wait(max(0.0, (question.deadline_ns - self._clock_ns()) / 1e9))
        return self._answers

    def query(self, request: bytes, servos: Sequence[int], size: int, takes_s: float) -> Mapping[int, Packet]:
        """A question and its answers."""
        self.collect()
        self.begin(request, servos, size, takes_s)
        return self.collect()

    def close(self) -> None:
        self.port.close()

    # One servo, with patience: for set-up, never in the loop ---------------------------------------------------------

    def find(self, servo: int) -> bool:
        """Whether the servo answers. It is asked for its id, since the echo of a PING reads like an answer to it."""
        return self.read(servo, ID) == servo

    def read(self, servo: int, register: Register, near: int = 0) -> int | None:
        """A register's value, which was told twice, `near` to each other; None when the servo does not answer so."""
        before: int | None = None
        for data in self._told(servo, register.address, register.size):
            value = register.unpack(data)
            if before is not None and abs(value - before) <= near:
                return value
            before = value
        return None

    def read_block(self, servo: int, address: int, size: int, steady: int) -> bytes | None:
        """`size` registers from `address` on, of which the first `steady` were told alike twice; None as for `read`."""
        before: bytes | None = None
        for data in self._told(servo, address, size):
            if before is not None and data[:steady] == before[:steady]:
                return data
            before = data
        return None

    def write(self, servo: int, register: Register, value: int) -> bool:
        """Writes a register and reads it back; whether it holds the value."""
        request = packets.write(servo, register.address, register.pack(value))
        for _ in range(TRIES):
            self._ask(servo, request, 0)
            if self.read(servo, register) == value:
                return True
        return False

    def _told(self, servo: int, address: int, size: int) -> Iterator[bytes]:
        """Its answers to one question, asked again and again."""
        request = packets.read(servo, address, size)
        for _ in range(TRIES):
            answer = self._ask(servo, request, size)
            if answer is not None:
                yield answer.data

    def _ask(self, servo: int, request: bytes, size: int) -> Packet | None:
        """One question to one servo, with patience."""
        takes_s = self._takes_s(len(request), size) + LATEST_S
        return self.query(request, (servo,), size, takes_s).get(servo)

    @staticmethod
    def _takes_s(request: int, size: int) -> float:
        """Seconds on the line, with the longest return delay that a servo can be set to (508 us)."""
        return 1e-5 * (request + OVERHEAD + size) + 508e-6

    def _sort(self, found: Sequence[Packet], question: _Question) -> None:
        for packet in found:
            if packet.servo in question.servos:
                self._answers[packet.servo] = packet
            else:
                self.counters.foreign += 1

    def _without_echo(self, data: bytes) -> bytes:
        """Drops our own bytes where they come first; holds them back until it is clear that they are."""
        if not self._echo:
            return data
        self._arrived += data
        if self._echo.startswith(self._arrived) and len(self._arrived) < len(self._echo):
            return b""
        arrived, self._arrived = self._arrived, b""
        if arrived.startswith(self._echo):
            self.counters.echoes += 1
            arrived = arrived[len(self._echo) :]
        self._echo = b""
        return arrived


def open_bus(path: str) -> ServoBus:
    """The bus behind a serial port. Raises `PortError`."""
    port = SerialTransport(path, BAUD)
    return ServoBus(port, time.monotonic_ns, port.wait)
