"""A policy server that is not ours: openpi's own packing, and `websockets`, in a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from openpi_client import msgpack_numpy
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve


@contextmanager
def openpi_server(answer: Callable[[dict[str, Any]], Any], metadata: dict[str, Any] | None = None) -> Iterator[int]:
    """Its port. `answer` makes a message of an observation; bytes and text are sent as they are, None hangs up."""

    def handle(connection: ServerConnection) -> None:
        connection.send(msgpack_numpy.packb(metadata or {}))
        try:
            for data in connection:
                found = answer(msgpack_numpy.unpackb(data))
                if found is None:
                    return
                connection.send(found if isinstance(found, bytes | str) else msgpack_numpy.packb(found))
        except ConnectionClosed:
            pass

    with serve(handle, "127.0.0.1", 0, compression=None, max_size=None) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.socket.getsockname()[1]
