"""The host's end of the half-duplex bus: one question at a time, its answers within a deadline, everything counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from firmware_bridge.adapters.feetech import packets
from firmware_bridge.adapters.feetech.packets import OVERHEAD, Packet, PacketReader
from firmware_bridge.adapters.feetech.registers import ID, Register
from firmware_bridge.adapters.feetech.timing import BAUD
from firmware_bridge.transports.base import Transport
from firmware_bridge.transports.serial_port import SerialTransport

GRACE_S = 0.003
"""Beyond what an answer takes on the line: scheduling, and two frames of a USB adapter."""
TRIES = 5


@dataclass
class BusCounters:
    """What has gone over the bus. `requested` and `answered` count answers expected and received."""

    requested: int = 0
    answered: int = 0
    corrupted: int = 0
    foreign: int = 0
    echoes: int = 0


@dataclass(frozen=True)
class _Question:
    request: bytes
    servos: tuple[int, ...]
    deadline_ns: int


class ServoBus:
    """Speaks to servos over `port`. `wait(seconds)` returns when something may have arrived, at the latest after that.

    The echo of an adapter that sends back what it is told is dropped. What is missing or damaged is counted and left
    out of the answers; only a broken port raises `LinkLost`.
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

    def send(self, packet: bytes) -> None:
        """Sends what nobody answers."""
        self.port.write(packet)

    def begin(self, request: bytes, servos: Sequence[int], size: int, takes_s: float, before: bytes = b"") -> None:
        """Asks, and returns at once. Each of `servos` is to answer with `size` bytes, all within `takes_s`.

        `before` is sent in front, in the same write: packets that nobody answers.
        """
        self.port.read()  # what comes late from an earlier question belongs to nobody
        self._reader, self._answers = PacketReader(size), {}
        self._echo, self._arrived = before + request, b""
        deadline_ns = self._clock_ns() + round(1e9 * (takes_s + GRACE_S))
        self._open = _Question(request, tuple(servos), deadline_ns)
        self.counters.requested += len(servos)
        self.port.write(before + request)

    def poll(self) -> bool:
        """Takes what has arrived; whether the question is settled, by its answers or its deadline. Never waits."""
        question = self._open
        if question is None:
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

    # One servo, with patience: for set-up, never in the loop ---------------------------------------------------------

    def find(self, servo: int) -> bool:
        """Whether the servo answers. It is asked for its id, since the echo of a PING reads like an answer to it."""
        return self.read(servo, ID) == servo

    def read(self, servo: int, register: Register) -> int | None:
        """A register's value; None when the servo does not answer."""
        request = packets.read(servo, register.address, register.size)
        for _ in range(TRIES):
            answer = self.query(request, (servo,), register.size, self._takes_s(len(request), register.size)).get(servo)
            if answer is not None:
                return register.unpack(answer.data)
        return None

    def write(self, servo: int, register: Register, value: int) -> bool:
        """Writes a register and reads it back; whether it holds the value."""
        request = packets.write(servo, register.address, register.pack(value))
        for _ in range(TRIES):
            self.query(request, (servo,), 0, self._takes_s(len(request), 0))
            if self.read(servo, register) == value:
                return True
        return False

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
