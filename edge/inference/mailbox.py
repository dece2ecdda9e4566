"""One slot of shared memory between two processes: the newest record wins, and no one ever waits.

A record is written beside the last one, with a checksum, and then announced by its number. A reader that meets a record
in the middle of being overwritten finds that the checksum does not fit and tries again later; nothing depends on the
processor's memory ordering, and a process that dies at any point leaves nothing locked.
"""

from __future__ import annotations

import mmap
import os
import weakref
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import InputError

HEADER = np.dtype([("number", "<u8")])
ENTRY = np.dtype([("number", "<u8"), ("checksum", "<u8")])


class SharedMemory:
    """An anonymous file in memory, passed to a child by its descriptor; it is gone when nobody maps it any more.

    The descriptor of one that is made here lasts as long as this object, its views may last longer; one that is opened
    by a descriptor leaves that open.
    Raises `InputError` where the system refuses it: no memory, a limit of file sizes or of open files.
    """

    def __init__(self, size: int, descriptor: int | None = None) -> None:
        try:
            if descriptor is None:
                descriptor = os.memfd_create("vla-edge")
                weakref.finalize(self, os.close, descriptor)
                os.ftruncate(descriptor, size)
            self._map = mmap.mmap(descriptor, size)
        except OSError as error:
            why = f"{size / 1e6:.3g} MB of shared memory: {error.strerror or error}"
            raise InputError(f"{why}; free memory, or raise the limits of this shell (ulimit -f, -n, -v)") from None
        self.descriptor, self.size = descriptor, size

    def view(self, offset: int, size: int) -> NDArray[np.uint8]:
        """`size` bytes at `offset`."""
        return np.frombuffer(self._map, dtype=np.uint8, count=size, offset=offset)


class Mailbox:
    """A slot for records of one numpy dtype, with one writer and one reader."""

    def __init__(self, dtype: np.dtype[Any], memory: SharedMemory, offset: int) -> None:
        self.dtype = dtype
        self._announced = memory.view(offset, HEADER.itemsize).view(HEADER)
        start = offset + HEADER.itemsize
        stride = ENTRY.itemsize + dtype.itemsize
        self._entries = [memory.view(start + half * stride, ENTRY.itemsize).view(ENTRY) for half in (0, 1)]
        self._records = [memory.view(start + half * stride + ENTRY.itemsize, dtype.itemsize) for half in (0, 1)]

    @staticmethod
    def size_of(dtype: np.dtype[Any]) -> int:
        """Bytes of shared memory that a mailbox for `dtype` takes, rounded up to whole words."""
        return -(-(HEADER.itemsize + 2 * (ENTRY.itemsize + dtype.itemsize)) // 8) * 8

    @property
    def number(self) -> int:
        """Number of the newest record, counted from 1; 0 before the first."""
        return int(self._announced["number"][0])

    def write(self, record: NDArray[Any]) -> int:
        """Publishes a record, an array of shape (1,) and the mailbox's dtype. Returns its number."""
        number = self.number + 1
        half = number % 2
        data = record.view(np.uint8)
        self._entries[half]["number"] = 0
        self._records[half][:] = data
        self._entries[half]["checksum"] = zlib.crc32(data.tobytes(), number & 0xFFFFFFFF)
        self._entries[half]["number"] = number
        self._announced["number"] = number
        return number

    def read(self, after: int) -> tuple[int, NDArray[Any]] | None:
        """The newest record if its number is above `after`, as a copy; None when there is none or it is in flux."""
        number = self.number
        if number <= after:
            return None
        half = number % 2
        copy = self._records[half].copy()
        entry = self._entries[half]
        whole = int(entry["checksum"][0]) == zlib.crc32(copy.tobytes(), number & 0xFFFFFFFF)
        if int(entry["number"][0]) != number or not whole:
            return None
        return number, copy.view(self.dtype)
