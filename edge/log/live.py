"""A log's messages as they are written, for a viewer on this machine.

It runs in the log's writer: a viewer that is slow loses messages, and holds up neither the file nor the run.
"""

from __future__ import annotations

import importlib.util
import socket
from typing import Any, NamedTuple, Protocol

from edge.errors import InputError

HOST = "127.0.0.1"
DEFAULT_PORTS = {"foxglove": 8765, "rerun": 9876}
"""Where each viewer looks, or listens, by itself."""
PACKAGES = {"foxglove": ("foxglove", "live"), "rerun": ("rerun", "rerun")}
"""The module that each needs, and the extra that installs it."""
NOT_SHOWN = ("/journal",)


class Viewer(NamedTuple):
    """A viewer by its name, and the port on this machine: Foxglove comes to it, rerun's viewer listens there."""

    name: str
    port: int

    @classmethod
    def read(cls, text: str) -> Viewer:
        """From `name:port`, as it goes to the writer."""
        name, _, port = text.partition(":")
        return cls(name, int(port))

    def __str__(self) -> str:
        return f"{self.name}:{self.port}"


class Shows(Protocol):
    """What shows a log's messages. No call waits."""

    def add_channel(self, number: int, topic: str, name: str, schema: bytes) -> None:
        """A channel of JSON messages, by its number in the file and the name of its schema."""

    def add_message(self, number: int, data: bytes, wall_ns: int) -> None:
        """A message of a channel at a Unix time, ns; one of the channels that are not shown is left out."""

    def close(self) -> None: ...


def check_live(viewer: Viewer) -> None:
    """Raises `InputError`: a package is missing, Foxglove's port is taken, or no viewer of rerun listens."""
    module, extra = PACKAGES[viewer.name]
    if importlib.util.find_spec(module) is None:
        raise InputError(
            f"--live {viewer.name} needs the '{extra}' extra ({module} is missing): pip install 'vla-edge[{extra}]'"
        )
    with socket.socket() as probe:
        if viewer.name == "rerun":
            if probe.connect_ex((HOST, viewer.port)) != 0:
                start = f"rerun --bind {HOST} --port {viewer.port}"
                raise InputError(f"--live rerun: no viewer listens on {HOST}:{viewer.port}; start one first: {start}")
            return
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, viewer.port))
        except OSError as error:
            raise InputError(f"--live-port {viewer.port}: {error.strerror}; name another") from None


class FoxgloveServer:
    """Serves the channels that it is told of over Foxglove's websocket, to anybody on this machine."""

    def __init__(self, port: int) -> None:
        import foxglove

        self._server = foxglove.start_server(name="vla-edge", host=HOST, port=port)
        self._channels: dict[int, Any] = {}

    def add_channel(self, number: int, topic: str, name: str, schema: bytes) -> None:
        import foxglove

        if topic not in NOT_SHOWN:
            described = foxglove.Schema(name=name, encoding="jsonschema", data=schema)
            self._channels[number] = foxglove.Channel(topic, schema=described, message_encoding="json")

    def add_message(self, number: int, data: bytes, wall_ns: int) -> None:
        if number in self._channels:
            self._channels[number].log(data, log_time=wall_ns)

    def close(self) -> None:
        self._server.stop()
