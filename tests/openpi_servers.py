"""Policy servers in a thread: one that is not ours, with openpi's own packing and `websockets`, and ours."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from openpi_client import msgpack_numpy
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from edge.doors.openpi_server import PolicyServer, Served


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


@contextmanager
def serving(policy: Served, key: str | None = None, host: str = "127.0.0.1") -> Iterator[int]:
    """The port of a `PolicyServer`. Raises what its `open` raises."""
    server, loop = PolicyServer(policy, key), asyncio.new_event_loop()
    listening = loop.run_until_complete(server.open(host, 0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(listening.close)
        asyncio.run_coroutine_threadsafe(listening.wait_closed(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        server.close()
