"""A server of one policy for openpi's clients: websocket for observations, HTTP for `/healthz` and `/metrics`.

Clients take turns: a policy computes one chunk at a time, or as many as it is said to, in the order in which the
observations came. Whatever a client sends costs at most that client its connection.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from edge.errors import InputError
from edge.policy.openpi import MOST_BYTES, ProtocolError, pack, unpack
from firmware_bridge.reading import one_line

LOOPBACK = ("127.0.0.1", "::1", "localhost")
MOST_CLIENTS = 16
IDLE_S = 600.0
"""A client that has sent nothing for so long is let go; it connects again by itself."""
BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Served(Protocol):
    """A policy as the server sees it. `answer` is called from as many threads as the server is told, one by default."""

    def metadata(self) -> dict[str, Any]:
        """What a client gets first."""

    def answer(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """The chunk of an observation, under "actions". Raises `InputError` for one that does not suit the policy."""


@dataclass
class Metrics:
    """What `/metrics` shows, in Prometheus's text format."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        name, registry = "vla_edge_serve", self.registry
        self.chunks = Counter(f"{name}_chunks", "Chunks computed", registry=registry)
        self.refused = Counter(f"{name}_refused", "Observations refused", registry=registry)
        self.failed = Counter(f"{name}_failed", "Observations at which the policy raised", registry=registry)
        self.clients = Gauge(f"{name}_clients", "Clients connected", registry=registry)
        self.infer_s = Histogram(f"{name}_infer_seconds", "Of one chunk", buckets=BUCKETS_S, registry=registry)
        self.waited_s = Histogram(
            f"{name}_waited_seconds", "Until the engines were free", buckets=BUCKETS_S, registry=registry
        )


class PolicyServer:
    """Serves one policy. `key` is what clients have to send as `Authorization: Api-Key KEY`; `at_once` is how many
    observations the policy takes at the same time."""

    def __init__(self, policy: Served, key: str | None = None, at_once: int = 1) -> None:
        self.metrics = Metrics()
        self._policy, self._key = policy, key
        self._first = pack(policy.metadata())
        self._engines = ThreadPoolExecutor(max_workers=at_once, thread_name_prefix="engines")
        self._connected = 0

    async def open(self, host: str, port: int) -> Server:
        """Listens; `port` 0 takes a free one. Raises `InputError`: beyond loopback a key is needed."""
        if self._key is None and host not in LOOPBACK:
            raise InputError(f"--host {host}: others could move an arm through this; set a key with --key-file")
        try:
            server: Server = await serve(
                self._client,
                host,
                port,
                process_request=self._request,
                compression=None,
                max_size=MOST_BYTES,
                max_queue=2,
                ping_timeout=20,
                logger=_quiet(),
            )
            return server
        except OSError as error:
            raise InputError(f"cannot listen on {host}:{port} ({error.strerror}); choose another --port") from error

    def close(self) -> None:
        self._engines.shutdown(wait=True, cancel_futures=True)

    def _request(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path == "/healthz":
            return connection.respond(HTTPStatus.OK, "OK\n")
        if not self._allowed(request):
            return connection.respond(HTTPStatus.UNAUTHORIZED, "send the header Authorization: Api-Key KEY\n")
        if request.path == "/metrics":
            kind = Headers({"Content-Type": CONTENT_TYPE_LATEST})
            return Response(HTTPStatus.OK, "OK", kind, generate_latest(self.metrics.registry))
        if self._connected >= MOST_CLIENTS:
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, f"{MOST_CLIENTS} clients already\n")
        return None

    def _allowed(self, request: Request) -> bool:
        if self._key is None:
            return True
        given = request.headers.get("Authorization", "")
        return hmac.compare_digest(given.encode(), f"Api-Key {self._key}".encode())

    async def _client(self, connection: ServerConnection) -> None:
        self._connected += 1
        self.metrics.clients.set(self._connected)
        try:
            await connection.send(self._first)
            while True:
                data = await asyncio.wait_for(connection.recv(), IDLE_S)
                await connection.send(await self._answered(data))
        except (ConnectionClosed, asyncio.TimeoutError):  # TimeoutError alone from Python 3.11 on
            pass
        finally:
            self._connected -= 1
            self.metrics.clients.set(self._connected)

    async def _answered(self, data: str | bytes) -> str | bytes:
        """The packed chunk, or the error as a text: that is how openpi's client tells them apart."""
        began_s = time.monotonic()
        try:
            if isinstance(data, str):
                raise ProtocolError("an observation is a binary message")
            observation = unpack(data)
            loop = asyncio.get_running_loop()
            answer, waited_s, infer_s = await loop.run_in_executor(self._engines, self._infer, observation, began_s)
        except (InputError, ProtocolError) as error:
            self.metrics.refused.inc()
            return one_line(str(error))
        except Exception as error:  # of a policy that somebody else wrote: the next observation may suit it
            self.metrics.failed.inc()
            return one_line(f"the policy failed: {type(error).__name__}: {error}")
        self.metrics.chunks.inc()
        self.metrics.waited_s.observe(waited_s)
        self.metrics.infer_s.observe(infer_s)
        times = {"infer_ms": infer_s * 1e3, "waited_ms": waited_s * 1e3, "total_ms": (time.monotonic() - began_s) * 1e3}
        return pack(answer | {"server_timing": times})

    def _infer(self, observation: dict[str, Any], asked_s: float) -> tuple[dict[str, Any], float, float]:
        began_s = time.monotonic()
        answer = self._policy.answer(observation)
        return answer, began_s - asked_s, time.monotonic() - began_s


def _quiet() -> logging.Logger:
    """Handshakes that fail are the client's business, and not worth a traceback on this terminal."""
    logger = logging.getLogger("edge.serve.websockets")
    logger.setLevel(logging.CRITICAL)
    return logger
