"""Two ends of a line in one process, for tests and for devices that run beside the host."""

from __future__ import annotations


class LoopbackTransport:
    """One end; what is written here is read at the other, in order and without delay."""

    def __init__(self) -> None:
        self._arrived = bytearray()
        self._other = self

    @staticmethod
    def pair() -> tuple[LoopbackTransport, LoopbackTransport]:
        """Two connected ends."""
        one, other = LoopbackTransport(), LoopbackTransport()
        one._other, other._other = other, one
        return one, other

    def read(self) -> bytes:
        data = bytes(self._arrived)
        self._arrived.clear()
        return data

    def write(self, data: bytes) -> None:
        self._other._arrived += data

    def close(self) -> None:
        self._arrived.clear()
