"""A log's messages for a viewer of rerun's that runs on this machine.

The SDK waits for a viewer that is slow, and for one that is gone it waits for ever: so it has a process of its own, and
what finds no room on the way there is left out.
"""

from __future__ import annotations

import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

from edge.log.live import NOT_SHOWN
from firmware_bridge.children import end, start_module

HEAD = struct.Struct("<qHI")
"""Unix time in ns, bytes of the topic, bytes of the message."""
MOST_WAITING_BYTES = 4 << 20
STUCK_S, END_S = 2.0, 8.0
"""At the end of a run: how long a viewer may take nothing, and how long it may take, twice, for what is on its way."""


class RerunFeed:
    """Passes messages on to the process that tells the viewer; `dropped` are those that found no room."""

    def __init__(self, port: int) -> None:
        self._line, theirs = socket.socketpair()
        self._line.setblocking(False)
        arguments = ["--line", str(theirs.fileno()), "--port", str(port)]
        self._process: subprocess.Popen[bytes] = start_module(
            "edge.log.rerun_process", arguments, pass_fds=[theirs.fileno()]
        )
        theirs.close()
        self._topics: dict[int, bytes] = {}
        self._waiting = bytearray()
        self.dropped = 0

    def add_channel(self, number: int, topic: str, name: str, schema: bytes) -> None:
        if topic not in NOT_SHOWN:
            self._topics[number] = topic.encode()

    def add_message(self, number: int, data: bytes, wall_ns: int) -> None:
        topic = self._topics.get(number)
        if topic is None:
            return
        if len(self._waiting) > MOST_WAITING_BYTES:
            self.dropped += 1
        else:
            self._waiting += HEAD.pack(wall_ns, len(topic), len(data)) + topic + data
        with suppress(OSError):  # it takes nothing now, or it is gone
            del self._waiting[: self._line.send(self._waiting)]

    def close(self) -> None:
        """Gives what is on its way the time that it takes, as long as the viewer takes something."""
        self._line.settimeout(STUCK_S)
        until_s = time.monotonic() + END_S
        with suppress(OSError):
            while self._waiting and time.monotonic() < until_s:
                del self._waiting[: self._line.send(self._waiting)]
        self._line.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)
        end(self._process, 0)


def messages(line: BinaryIO) -> Iterator[tuple[str, bytes, int]]:
    """Topic, JSON and Unix time in ns of each message, until the other end closes."""
    while len(head := line.read(HEAD.size)) == HEAD.size:
        wall_ns, topic_bytes, data_bytes = HEAD.unpack(head)
        body = line.read(topic_bytes + data_bytes)
        if len(body) == topic_bytes + data_bytes:
            yield body[:topic_bytes].decode(), body[topic_bytes:], wall_ns
