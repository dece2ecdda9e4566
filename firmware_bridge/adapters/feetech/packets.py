"""Packets of the servo bus: `FF FF id length code parameters checksum`, for instructions and answers alike.

`length` counts what follows it; the checksum is the complement of the sum of all that follows the two FF.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

HEADER = b"\xff\xff"
BROADCAST = 0xFE
OVERHEAD = 6
"""Bytes of a packet without parameters."""
MOST_PARAMETERS = 240
"""The vendor's SDK takes packets of up to 250 bytes."""


class Instruction(IntEnum):
    """What a host asks for; the `code` of its packets."""

    PING = 0x01
    READ = 0x02
    WRITE = 0x03
    SYNC_READ = 0x82
    SYNC_WRITE = 0x83


@dataclass(frozen=True)
class Packet:
    """One packet. `code` is an `Instruction` from the host, and the bits of `Fault` in an answer."""

    servo: int
    code: int
    data: bytes = b""

    def pack(self) -> bytes:
        body = bytes((self.servo, len(self.data) + 2, self.code)) + self.data
        return HEADER + body + bytes((checksum(body),))


def checksum(body: bytes) -> int:
    """Over id, length, code and parameters."""
    return ~sum(body) & 0xFF


def read(servo: int, address: int, size: int) -> bytes:
    """Asks one servo for `size` bytes from `address` on."""
    return Packet(servo, Instruction.READ, bytes((address, size))).pack()


def write(servo: int, address: int, data: bytes) -> bytes:
    """Writes to one servo, which answers; to `BROADCAST`, to all, and none does."""
    return Packet(servo, Instruction.WRITE, bytes((address,)) + data).pack()


def sync_read(servos: Sequence[int], address: int, size: int) -> bytes:
    """Asks several servos for the same registers; they answer one after the other, in this order."""
    return Packet(BROADCAST, Instruction.SYNC_READ, bytes((address, size, *servos))).pack()


def sync_write(address: int, values: Mapping[int, bytes]) -> bytes:
    """Writes the same registers of several servos, each with its own bytes of one length. Nobody answers."""
    size = len(next(iter(values.values())))
    data = b"".join(bytes((servo,)) + value for servo, value in values.items())
    return Packet(BROADCAST, Instruction.SYNC_WRITE, bytes((address, size)) + data).pack()


class PacketReader:
    """Finds packets in a stream of bytes, and finds its way back after damaged ones.

    `parameters` says how many a packet must have, where that is known: a damaged length is then noticed at once, and
    does not swallow the packets behind it. `corrupted` counts packets that were not whole.
    """

    def __init__(self, parameters: int | None = None) -> None:
        self.corrupted = 0
        self._parameters = parameters
        self._waiting = bytearray()

    def feed(self, data: bytes) -> list[Packet]:
        """Packets that are complete now."""
        self._waiting += data
        return self._take()

    def finish(self) -> list[Packet]:
        """Nothing more will come: packets behind the one that is incomplete."""
        found: list[Packet] = []
        while self._waiting.startswith(HEADER):
            self.corrupted += 1
            del self._waiting[0]
            found += self._take()
        self._waiting.clear()
        return found

    def _take(self) -> list[Packet]:
        found = []
        while self._find_header():
            waiting = self._waiting
            parameters = waiting[3] - 2
            expected = self._parameters
            plausible = 0 <= parameters <= MOST_PARAMETERS and expected in (None, parameters)
            if plausible and len(waiting) < parameters + OVERHEAD:
                break
            body = bytes(waiting[2 : parameters + 5]) if plausible else b""
            if plausible and waiting[parameters + 5] == checksum(body):
                found.append(Packet(body[0], body[2], body[3:]))
                del waiting[: parameters + OVERHEAD]
            else:
                self.corrupted += 1
                del waiting[0]
        return found

    def _find_header(self) -> bool:
        """Drops what comes before a header; whether id and length stand behind it."""
        waiting = self._waiting
        at = waiting.find(HEADER)
        while at >= 0 and waiting[at + 2 : at + 3] == b"\xff":  # an id is never FF: the header begins a byte later
            at += 1
        if at < 0:
            del waiting[: len(waiting) - waiting.endswith(b"\xff")]
            return False
        del waiting[:at]
        return len(waiting) >= 4
