"""A log's messages as they are written, for Foxglove's viewer over its websocket, on loopback alone.

It runs in the log's writer: a viewer that is slow loses messages, and holds up neither the file nor the run.
"""

from __future__ import annotations

import importlib.util
import socket
from typing import Any

from edge.errors import InputError

HOST = "127.0.0.1"
DEFAULT_PORT = 8765
"""Where Foxglove looks by itself."""
NOT_SHOWN = ("/journal",)


def check_live(port: int) -> None:
    """Raises `InputError` where the SDK is missing or the port is taken."""
    if importlib.util.find_spec("foxglove") is None:
        raise InputError("--live foxglove needs the 'live' extra (foxglove is missing): pip install 'vla-edge[live]'")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise InputError(f"--live-port {port}: {error.strerror}; name another") from None


class LiveServer:
    """Serves the channels that it is told of, to anybody on this machine."""

    def __init__(self, port: int) -> None:
        import foxglove

        self._server = foxglove.start_server(name="vla-edge", host=HOST, port=port)
        self._channels: dict[int, Any] = {}

    def add_channel(self, number: int, topic: str, name: str, schema: bytes) -> None:
        """A channel of JSON messages, by its number in the file."""
        import foxglove

        if topic not in NOT_SHOWN:
            described = foxglove.Schema(name=name, encoding="jsonschema", data=schema)
            self._channels[number] = foxglove.Channel(topic, schema=described, message_encoding="json")

    def add_message(self, number: int, data: bytes, wall_ns: int) -> None:
        """A message of a channel at a Unix time, ns; one of the channels that are not shown is left out."""
        if number in self._channels:
            self._channels[number].log(data, log_time=wall_ns)

    def close(self) -> None:
        self._server.stop()
