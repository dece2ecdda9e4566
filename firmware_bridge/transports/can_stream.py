"""The frames of the serial line over CAN: cut into CAN frames of one id, and put together again.

Every frame of the protocol ends in the zero byte that separates frames, so what a CAN FD frame must carry beyond its
data (12, 16, 20, ... bytes) is filled with further zeros: empty frames, which every receiver skips.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from firmware_bridge.codes import MessageType
from firmware_bridge.errors import LinkLost
from firmware_bridge.framing import type_of
from firmware_bridge.transports.base import LineRate
from firmware_bridge.url import option

CLASSIC_SIZE = 8
FD_SIZES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 24, 32, 48, 64)
"""Data bytes by DLC, ISO 11898-1."""
URGENT = frozenset({MessageType.HEARTBEAT, MessageType.STOP, MessageType.ESTOP})
MAX_BACKLOG = 4096
DEFAULT_BITRATE, DEFAULT_DATA_BITRATE = 1_000_000, 5_000_000
MAX_NODE = 15


@dataclass(frozen=True)
class CanFrame:
    """One data frame with an 11-bit id."""

    id: int
    data: bytes
    fd: bool = False


@dataclass(frozen=True)
class CanLine:
    """What every line over CAN has in its URL. `node` is the device's number on the bus."""

    target: str
    bitrate: int = option(DEFAULT_BITRATE, least=1)
    data_bitrate: int | None = option(None, least=1)
    fd: bool = False
    node: int = option(0, most=MAX_NODE)

    def __post_init__(self) -> None:
        if self.data_bitrate is not None and not self.fd:
            raise ValueError("data_bitrate belongs to CAN FD; add fd=1")

    @property
    def rate(self) -> LineRate:
        return LineRate(
            bitrate=self.bitrate, data_bitrate=(self.data_bitrate or DEFAULT_DATA_BITRATE) * self.fd or None
        )

    def transport(self, bus: CanBus) -> CanTransport:
        """The byte stream on an open bus."""
        return CanTransport(bus, CanIds(self.node), self.fd)


@dataclass(frozen=True)
class CanIds:
    """The ids of one device on the bus; the lower wins. `node` is 0 to 15, so 16 arms can share a bus."""

    node: int = 0

    @property
    def urgent(self) -> int:
        """Host to device: heartbeat, stop, emergency stop."""
        return 0x010 | self.node

    @property
    def reports(self) -> int:
        """Device to host."""
        return 0x110 | self.node

    @property
    def chunks(self) -> int:
        """Host to device: everything else."""
        return 0x210 | self.node


class CanBus(Protocol):
    """What carries CAN frames. Neither call blocks; a broken bus raises `LinkLost`."""

    def send(self, frame: CanFrame) -> bool:
        """Hands over one frame; False when the queue is full, to try again later."""

    def receive(self) -> list[CanFrame]:
        """Every data frame that has arrived since the last call."""

    def close(self) -> None:
        """Leaves the bus."""


def cut(identity: int, data: bytes, fd: bool) -> Iterator[CanFrame]:
    """CAN frames that carry `data`, whole protocol frames, in order."""
    longest = FD_SIZES[-1] if fd else CLASSIC_SIZE
    for first in range(0, len(data), longest):
        part = data[first : first + longest]
        yield CanFrame(identity, padded(part) if fd else part, fd)


def padded(part: bytes) -> bytes:
    """`part` with zeros up to the next size that CAN FD knows."""
    size = next(size for size in FD_SIZES if size >= len(part))
    return part.ljust(size, b"\0")


def is_urgent(frame: bytes) -> bool:
    """Whether an encoded protocol frame must not wait behind chunks."""
    return type_of(frame) in URGENT


class CanTransport:
    """A `Transport` on a CAN bus, the host's side. Every `write` carries whole protocol frames of one kind.

    Urgent frames overtake chunks that still wait for the bus.
    """

    def __init__(self, bus: CanBus, ids: CanIds, fd: bool) -> None:
        self._bus, self._ids, self._fd = bus, ids, fd
        self._urgent: deque[CanFrame] = deque()
        self._bulk: deque[CanFrame] = deque()

    def read(self) -> bytes:
        self._send_backlog()
        return b"".join(frame.data for frame in self._bus.receive() if frame.id == self._ids.reports)

    def write(self, data: bytes) -> None:
        urgent = is_urgent(data)
        queue = self._urgent if urgent else self._bulk
        queue.extend(cut(self._ids.urgent if urgent else self._ids.chunks, data, self._fd))
        self._send_backlog()
        if len(self._urgent) + len(self._bulk) > MAX_BACKLOG:
            raise LinkLost("the CAN bus takes no frames; check bit rate, termination and power of the device")

    def close(self) -> None:
        self._bus.close()

    def _send_backlog(self) -> None:
        for queue in (self._urgent, self._bulk):
            while queue:
                if not self._bus.send(queue[0]):
                    return
                queue.popleft()
