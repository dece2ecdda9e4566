"""What a supervisor is told of a run: that it is ready, that it goes on, in which state. systemd's protocol, sd_notify.

A message is a datagram to the socket that the supervisor names. None waits: one that finds no room is lost, and the
next one comes half a second later.
"""

from __future__ import annotations

import socket
from contextlib import suppress

PERIOD_NS = 500_000_000


class Health:
    """Tells the supervisor at `address`: a path, or @NAME for an abstract socket; with an empty one, nobody."""

    def __init__(self, address: str) -> None:
        self._socket: socket.socket | None = None
        self._told_ns, self._ready, self._state = -PERIOD_NS, False, ""
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)
            with suppress(OSError):
                self._socket.connect("\0" + address[1:] if address.startswith("@") else address)

    def alive(self, state: str, now_ns: int) -> None:
        """The run goes on, in this state; called as often as one likes. The first call says that it is ready."""
        if self._socket is None or (state == self._state and now_ns - self._told_ns < PERIOD_NS):
            return
        self._told_ns, self._state = now_ns, state
        self._tell(f"{'' if self._ready else 'READY=1'}\nWATCHDOG=1\nSTATUS={state}")
        self._ready = True

    def stopping(self, why: str) -> None:
        """The arm is being brought to rest, or has come to rest."""
        self._tell(f"STOPPING=1\nSTATUS={why}")

    def _tell(self, text: str) -> None:
        if self._socket is not None:
            with suppress(OSError):
                self._socket.send(text.strip().encode(errors="replace"))
