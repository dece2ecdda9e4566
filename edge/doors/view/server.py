"""The process behind the live page: serves it on loopback, hands out snapshots, passes on presses of its buttons.

Everything but the page itself needs the run's token, and requests that name another host are refused, so that no other
page in the browser can stop or start an arm. A press must get through whatever else arrives: a connection is answered
at once or closed, only those that have shown the token are kept, and when there are too many the oldest stranger goes.
Pages ask again and again instead of holding a connection, of which a browser has six for all of its tabs.
"""

from __future__ import annotations

import argparse
import hmac
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from edge.doors.view.snapshot import LATENESS_EDGES_US, PRESSES, Phase, Presses, ViewRecords
from edge.inference.film import NewestFrames
from edge.log.pictures import encoded
from edge.registry import missing
from edge.run.commands import Command, Verdict
from firmware_bridge.printing import print_line

HOST = "127.0.0.1"
MOST_BODY = 200
MOST_STRANGERS, MOST_KNOWN = 32, 32
"""Connections that have not shown the token, and that have."""
STRANGER_S, KNOWN_S = 2.0, 10.0
"""How long the one has for its whole request, and how long the other may say nothing."""
REFUSAL_S = 0.02
"""A refusal waits as long, so that a flood of them takes little of the processor."""
NICENESS = 10
LINGER_S = RECENT_S = 3.0
"""How long the end of a run is shown to pages that have asked lately and have not heard of it: a page whose answer did
not come waits 1.5 s for it, and asks again a second later."""
MOST_PAGES = 32
NONE: Mapping[str, str] = {}
STATIC = Path(__file__).parent / "static"
FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/arm.js": ("arm.js", "text/javascript; charset=utf-8"),
    "/view.js": ("view.js", "text/javascript; charset=utf-8"),
    "/view.svg": ("view.svg", "image/svg+xml"),
    "/view.css": ("view.css", "text/css; charset=utf-8"),
}
BUTTONS: dict[str, Command | Verdict] = {
    "start": Command.START,
    "clear": Command.CLEAR,
    "home": Command.HOME,
    "pause": Command.PAUSE,
    "stop": Command.STOP,
    "estop": Command.ESTOP,
    "takeover": Command.TAKE_OVER,
    **{verdict.value: verdict for verdict in Verdict},
}


class Snapshots:
    """The newest snapshot as JSON, made once for all pages, and which of them know it."""

    def __init__(self, records: ViewRecords) -> None:
        self._box, self._lock = records.snapshots, threading.Lock()
        self._number, self._json, self._ended = 0, "null", False
        self._pages: dict[str, tuple[float, int]] = {}

    def newer(self, after: int) -> tuple[int, str]:
        """Number and JSON of the newest one for a page that knows number `after`; "null" when that is it."""
        with self._lock:
            self._look()
            return self._number, self._json if self._number > after else "null"

    def sent(self, number: int, page: str) -> None:
        """Called once a page has been sent number `number`: before that, the process must not end."""
        with self._lock:
            if page in self._pages or len(self._pages) < MOST_PAGES:
                self._pages[page] = (time.monotonic(), number)

    def all_know_the_end(self) -> bool:
        """Whether every page that asked lately has been given the end of the run."""
        with self._lock:
            self._look()
            recent = [number for at_s, number in self._pages.values() if time.monotonic() - at_s < RECENT_S]
            return all(self._ended and number == self._number for number in recent)

    def _look(self) -> None:
        found = self._box.read(self._number)
        if found is not None:
            self._number, snapshot = found
            self._json, self._ended = json.dumps(snapshot.plain()), snapshot.phase == Phase.ENDED.value


class Pictures:
    """The newest frame of each camera as a JPEG, made once for all pages."""

    def __init__(self, frames: NewestFrames | None) -> None:
        self._frames, self._lock = frames, threading.Lock()
        self._made: dict[int, tuple[int, bytes]] = {}

    def newer(self, camera: int, after_ns: int) -> tuple[int, bytes] | None:
        """When it was captured and the file, unless the page has it already. Raises `ValueError`, `ImportError`."""
        if self._frames is None or not 0 <= camera < len(self._frames.sizes_px):
            raise ValueError(f"there is no camera {camera}")
        with self._lock:
            found = self._frames.newest(camera)
            if found is not None and found[0] != self._made.get(camera, (0, b""))[0]:
                self._made[camera] = found[0], encoded(found[1], "jpeg")
            made = self._made.get(camera)
        return made if made is not None and made[0] > after_ns else None


class ViewServer(ThreadingHTTPServer):
    """Holds what its requests share. `about` says once what is running: arm, joints, task."""

    daemon_threads = True
    request_queue_size = 1024  # a connection that finds no place waits a second before it asks again

    def __init__(
        self,
        records: ViewRecords,
        token: str,
        about: dict[str, Any],
        port: int,
        frames: NewestFrames | None = None,
    ) -> None:
        super().__init__((HOST, port), Request)
        self.pictures = Pictures(frames)
        self.records, self.token, self.snapshots = records, token, Snapshots(records)
        self.about = json.dumps({**about, "lateness_edges_us": LATENESS_EDGES_US})
        self._pressed = np.zeros(len(PRESSES), dtype=np.int64)
        self._lock = threading.Lock()
        self._strangers: dict[socket.socket, float] = {}
        self._known: dict[socket.socket, float] = {}

    def press(self, what: Command | Verdict) -> None:
        """Counts a press; the run compares counts, so none is lost and none is done twice."""
        with self._lock:
            self._pressed[PRESSES.index(what)] += 1
            self.records.presses.write(Presses(self._pressed))

    def know(self, connection: socket.socket) -> None:
        """Keeps the connection, which has shown the token."""
        with self._lock:
            if self._strangers.pop(connection, None) is not None:
                connection.settimeout(KNOWN_S)
            self._known.pop(connection, None)
            self._known[connection] = time.monotonic()
            self._cut_oldest(self._known, MOST_KNOWN)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._strangers[request] = time.monotonic()
            self._cut_oldest(self._strangers, MOST_STRANGERS)
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """Between two connections, or a few times a second: ends those that take too long over their first request."""
        with self._lock:
            overdue = [one for one, since_s in self._strangers.items() if time.monotonic() - since_s > STRANGER_S]
            for connection in overdue:
                self._cut(self._strangers, connection)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._strangers.pop(request, None)
            self._known.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing: the terminal belongs to the run, and what a stranger sends is no news of it."""

    def _cut_oldest(self, connections: dict[socket.socket, float], most: int) -> None:
        while len(connections) > most:
            self._cut(connections, next(iter(connections)))

    def _cut(self, connections: dict[socket.socket, float], connection: socket.socket) -> None:
        """Its thread reads the end of the stream, and closes it."""
        del connections[connection]
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it has gone by itself


class Request(BaseHTTPRequestHandler):
    """The requests of one connection."""

    server: ViewServer
    protocol_version = "HTTP/1.1"
    timeout = STRANGER_S

    def do_GET(self) -> None:
        with self._answered():
            target = urlsplit(self.path)
            if not self._local():
                self._refuse(HTTPStatus.FORBIDDEN, "this page is served to 127.0.0.1 only")
            elif target.path in FILES:
                name, kind = FILES[target.path]
                self.close_connection = True
                self._send(HTTPStatus.OK, kind, (STATIC / name).read_bytes())
            elif target.path in ("/about", "/snapshot"):
                if self._trusted():
                    self._send_state(target.path)
            elif target.path == "/frame":
                if self._trusted():
                    self._send_frame()
            else:
                self._refuse(HTTPStatus.NOT_FOUND, "nothing here")

    def do_POST(self) -> None:
        with self._answered():
            if not self._local():
                self._refuse(HTTPStatus.FORBIDDEN, "this page is served to 127.0.0.1 only")
                return
            if not self._trusted():
                return
            length = int(self.headers.get("Content-Length") or 0)
            name = self.rfile.read(length).decode("utf-8", "replace") if 0 < length <= MOST_BODY else ""
            if self.path != "/command" or name not in BUTTONS:
                self._refuse(HTTPStatus.BAD_REQUEST, f"a command is one of {', '.join(BUTTONS)}")
                return
            self.server.press(BUTTONS[name])
            self._send(HTTPStatus.OK, "application/json", b'{"ok": true}')

    @contextmanager
    def _answered(self) -> Iterator[None]:
        """What is no request of a page, in any way, is a bad one."""
        try:
            yield
        except ValueError:
            self._refuse(HTTPStatus.BAD_REQUEST, "this is no request of the page")

    def _local(self) -> bool:
        """A name that resolves to loopback is not enough: a page elsewhere could have made it so."""
        port = self.server.server_address[1]
        return self.headers.get("Host") in (f"{HOST}:{port}", f"localhost:{port}")

    def _trusted(self) -> bool:
        token = self.headers.get("X-Token", "").encode("utf-8", "replace")
        if hmac.compare_digest(token, self.server.token.encode()):
            self.server.know(self.connection)
            return True
        self._refuse(HTTPStatus.UNAUTHORIZED, "wrong token: open the address that edge-run printed")
        return False

    def _send_state(self, path: str) -> None:
        """What is running; or the newest snapshot, for a page that says which one it has and who it is."""
        if path == "/about":
            self._send(HTTPStatus.OK, "application/json", self.server.about.encode())
            return
        after, page = int(self.headers.get("X-After", "0")), self.headers.get("X-Page", "")[:MOST_BODY]
        number, snapshot = self.server.snapshots.newer(after)
        text = f'{{"number": {number}, "snapshot": {snapshot}}}'
        self._send(HTTPStatus.OK, "application/json", text.encode())
        self.server.snapshots.sent(number, page)

    def _send_frame(self) -> None:
        """The newest frame of a camera, for a page that says which one it has; nothing where that is it."""
        camera, after_ns = int(self.headers.get("X-Camera", "0")), int(self.headers.get("X-After", "0"))
        try:
            found = self.server.pictures.newer(camera, after_ns)
        except ImportError as error:
            self._refuse(HTTPStatus.NOT_IMPLEMENTED, missing("a picture on the page", error))
            return
        if found is None:
            self._send(HTTPStatus.NO_CONTENT, "image/jpeg", b"")
            return
        age_ms = (time.monotonic_ns() - found[0]) // 1_000_000
        self._send(HTTPStatus.OK, "image/jpeg", found[1], {"X-Captured": str(found[0]), "X-Age-Ms": str(age_ms)})

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        time.sleep(REFUSAL_S)
        self.close_connection = True
        self._send(status, "text/plain; charset=utf-8", f"{why}\n".encode())

    def _send(self, status: HTTPStatus, kind: str, body: bytes, more: Mapping[str, str] = NONE) -> None:
        self.send_response(status)
        for name, value in more.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", "default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: the terminal belongs to the run."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="edge.doors.view.server", description=__doc__)
    parser.add_argument("--memory", type=int, required=True, help="descriptor of the shared memory")
    parser.add_argument("--joints", type=int, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--frames", type=int, help="descriptor of the cameras' newest frames")
    parser.add_argument("--sizes", type=json.loads, default=[], help="their height and width, as JSON")
    args = parser.parse_args(argv)
    secret = json.loads(sys.stdin.readline())  # not on the command line, where every user could read it
    try:
        frames = None if args.frames is None else NewestFrames([tuple(size) for size in args.sizes], args.frames)
        records = ViewRecords(args.joints, args.memory)
        server = ViewServer(records, secret["token"], secret["about"], args.port, frames)
    except (OSError, OverflowError) as error:
        why = error.strerror if isinstance(error, OSError) else "a port is a number up to 65535"
        print_line(json.dumps({"error": f"port {args.port}: {why}"}), sys.stdout)
        return 2
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    os.nice(NICENESS)  # whatever arrives here, the loop that moves the arm comes first
    print_line(json.dumps({"port": server.server_address[1]}), sys.stdout)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    signal.sigwait({signal.SIGTERM})
    until_s = time.monotonic() + LINGER_S
    while time.monotonic() < until_s and not server.snapshots.all_know_the_end():
        time.sleep(LINGER_S / 100)
    return 0


if __name__ == "__main__":
    sys.exit(main())
