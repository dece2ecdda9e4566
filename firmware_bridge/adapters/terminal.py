"""An adapter's end of the line to the host: by default a pseudo-terminal, where a host finds what it would find on a
serial line; `firmware_bridge.transports.network` has the one for a host on another computer.
"""

from __future__ import annotations

import os
import tty
from typing import Protocol


class HostLine(Protocol):
    """What an adapter needs of its line to the host. No call blocks or raises: the arm's loop needs no host."""

    @property
    def is_clear(self) -> bool:
        """Whether all that was written has gone; while not, more belongs into the core's own queue."""

    def read(self) -> bytes:
        """What has come since the last call."""

    def write(self, data: bytes) -> None:
        """Sends what the line takes now, and the rest with the next call."""


class Terminal:
    """A raw pseudo-terminal. Its other side stays open here, so that a host that leaves does not hang up the line."""

    def __init__(self) -> None:
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.port = os.ttyname(self._slave)
        self._waiting = b""

    @property
    def file(self) -> int:
        """The descriptor on which to wait for what comes."""
        return self._master

    def read(self) -> bytes:
        """What has come since the last call; never waits."""
        try:
            return os.read(self._master, 4096)
        except BlockingIOError:
            return b""

    @property
    def is_clear(self) -> bool:
        """Whether all that was written has gone; while not, more belongs into the core's own queue."""
        return not self._waiting

    def write(self, data: bytes) -> None:
        """Sends what the line takes now, and the rest with the next call."""
        self._waiting += data
        if self._waiting:
            try:
                self._waiting = self._waiting[os.write(self._master, self._waiting) :]
            except BlockingIOError:
                return

    def close(self) -> None:
        os.close(self._master)
        os.close(self._slave)
