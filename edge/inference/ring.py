"""A ring of bytes in shared memory between one producer that never waits and one consumer beside it.

The producer writes a record, with a checksum, behind the last one and then moves the head; the consumer copies it,
checks it and then moves the tail. Each word has one writer. On a machine that makes the head visible before the bytes,
the checksum does not fit yet and the consumer tries again later, so nothing depends on memory ordering. When there is
no room the record is dropped and counted.
"""

from __future__ import annotations

import struct
import zlib

from edge.inference.mailbox import SharedMemory

HEADER_BYTES = 192
"""Head, tail and the count of drops, each on a cache line of its own."""
HEAD, TAIL, DROPPED = 0, 8, 16
"""Places of the three words, in units of 8 bytes."""
LENGTH_AND_CHECKSUM = struct.Struct("<II")
ALIGNMENT = 8


class Ring:
    """Records of any length, at `offset` of the memory; `capacity` is a multiple of 8: `stride` bytes per record."""

    def __init__(self, memory: SharedMemory, capacity: int, offset: int = 0) -> None:
        if capacity % ALIGNMENT:
            raise ValueError(f"the capacity is a multiple of {ALIGNMENT} bytes, not {capacity}")
        self.capacity = capacity
        self._words = memory.view(offset, HEADER_BYTES).data.cast("Q")
        self._bytes = memory.view(offset + HEADER_BYTES, capacity).data

    @staticmethod
    def size_of(capacity: int) -> int:
        """Bytes of shared memory that a ring takes."""
        return HEADER_BYTES + capacity

    @staticmethod
    def stride(length: int) -> int:
        """Bytes that a record of this length takes: aligned, so that its length and checksum never wrap."""
        return LENGTH_AND_CHECKSUM.size + -(-length // ALIGNMENT) * ALIGNMENT

    @property
    def dropped(self) -> int:
        """Records that found no room."""
        return self._words[DROPPED]

    @property
    def used(self) -> int:
        """Bytes that wait for the consumer."""
        return self._words[HEAD] - self._words[TAIL]

    def push(self, data: bytes) -> bool:
        """Producer: appends one record. False when there was no room; it is then counted and gone."""
        size = self.stride(len(data))
        head = self._words[HEAD]
        if head + size - self._words[TAIL] > self.capacity:
            self._words[DROPPED] += 1
            return False
        at = head % self.capacity
        LENGTH_AND_CHECKSUM.pack_into(self._bytes, at, len(data), zlib.crc32(data, head & 0xFFFFFFFF))
        self._copy_in(at + LENGTH_AND_CHECKSUM.size, data)
        self._words[HEAD] = head + size
        return True

    def pop(self) -> bytes | None:
        """Consumer: the oldest record; None when there is none, or it is not whole yet."""
        tail = self._words[TAIL]
        ready = self._words[HEAD] - tail
        if ready < LENGTH_AND_CHECKSUM.size:
            return None
        at = tail % self.capacity
        length, checksum = LENGTH_AND_CHECKSUM.unpack_from(self._bytes, at)
        if self.stride(length) > ready:
            return None
        data = self._copy_out(at + LENGTH_AND_CHECKSUM.size, length)
        if zlib.crc32(data, tail & 0xFFFFFFFF) != checksum:
            return None
        self._words[TAIL] = tail + self.stride(length)
        return data

    def _copy_in(self, at: int, data: bytes) -> None:
        at %= self.capacity
        first = min(len(data), self.capacity - at)
        self._bytes[at : at + first] = data[:first]
        if first < len(data):
            self._bytes[: len(data) - first] = data[first:]

    def _copy_out(self, at: int, length: int) -> bytes:
        at %= self.capacity
        first = min(length, self.capacity - at)
        data = bytes(self._bytes[at : at + first])
        return data if first == length else data + bytes(self._bytes[: length - first])
