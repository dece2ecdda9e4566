"""The process behind the live page: serves it on loopback, streams snapshots, passes on presses of its buttons.

Everything but the page itself needs the run's token, and requests that name another host are refused, so that no other
page in the browser can stop or start an arm.
"""

from __future__ import annotations

import argparse
import hmac
import json
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from edge.inference.layout import Newest
from edge.run.commands import Command
from edge.view.snapshot import LATENESS_EDGES_US, Presses, ViewRecords

HOST = "127.0.0.1"
PERIOD_S = 0.04
BEAT_S = 1.0
MOST_BODY = 200
STATIC = Path(__file__).parent / "static"
FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/view.js": ("view.js", "text/javascript; charset=utf-8"),
    "/view.svg": ("view.svg", "image/svg+xml"),
    "/view.css": ("view.css", "text/css; charset=utf-8"),
}
BUTTONS = {
    "start": Command.START,
    "home": Command.HOME,
    "pause": Command.PAUSE,
    "stop": Command.STOP,
    "estop": Command.ESTOP,
}


class ViewServer(ThreadingHTTPServer):
    """Holds what its requests share. `about` says once what is running: arm, joints, task."""

    daemon_threads = True

    def __init__(self, records: ViewRecords, token: str, about: dict[str, Any], port: int) -> None:
        super().__init__((HOST, port), Request)
        self.records, self.token = records, token
        self.about = {**about, "lateness_edges_us": LATENESS_EDGES_US}
        self._pressed = np.zeros(len(Command), dtype=np.int64)
        self._lock = threading.Lock()

    def press(self, command: Command) -> None:
        """Counts a press; the run compares counts, so none is lost and none is done twice."""
        with self._lock:
            self._pressed[command] += 1
            self.records.presses.write(Presses(self._pressed))


class Request(BaseHTTPRequestHandler):
    """One request of a browser."""

    server: ViewServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if not self._local():
            self._refuse(HTTPStatus.FORBIDDEN, "this page is served to 127.0.0.1 only")
        elif path in FILES:
            name, kind = FILES[path]
            self._send(HTTPStatus.OK, kind, (STATIC / name).read_bytes())
        elif path == "/events":
            token = parse_qs(urlsplit(self.path).query).get("token", [""])[0]
            if self._trusted(token):
                self._stream()
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "nothing here")

    def do_POST(self) -> None:
        if not self._local() or not self._trusted(self.headers.get("X-Token", "")):
            if not self._local():
                self._refuse(HTTPStatus.FORBIDDEN, "this page is served to 127.0.0.1 only")
            return
        length = int(self.headers.get("Content-Length") or 0)
        name = self.rfile.read(length).decode("utf-8", "replace") if 0 < length <= MOST_BODY else ""
        if self.path != "/command" or name not in BUTTONS:
            self._refuse(HTTPStatus.BAD_REQUEST, f"a command is one of {', '.join(BUTTONS)}")
            return
        self.server.press(BUTTONS[name])
        self._send(HTTPStatus.OK, "application/json", b'{"ok": true}')

    def _local(self) -> bool:
        """A name that resolves to loopback is not enough: a page elsewhere could have made it so."""
        port = self.server.server_address[1]
        return self.headers.get("Host") in (f"{HOST}:{port}", f"localhost:{port}")

    def _trusted(self, token: str) -> bool:
        if hmac.compare_digest(token.encode(), self.server.token.encode()):
            return True
        self._refuse(HTTPStatus.UNAUTHORIZED, "wrong token: open the address that edge-run printed")
        return False

    def _stream(self) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        snapshots, last_s = Newest(self.server.records.snapshots), time.monotonic()
        try:
            self._event("about", self.server.about)
            while True:
                snapshot = snapshots.take()
                if snapshot is not None:
                    self._event("snapshot", snapshot.plain())
                    last_s = time.monotonic()
                elif time.monotonic() - last_s > BEAT_S:
                    self._event("beat", {})
                    last_s = time.monotonic()
                time.sleep(PERIOD_S)
        except OSError:
            return  # the browser has gone

    def _event(self, kind: str, data: dict[str, Any]) -> None:
        self.wfile.write(f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode())
        self.wfile.flush()

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self.close_connection = True
        self._send(status, "text/plain; charset=utf-8", f"{why}\n".encode())

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: the terminal belongs to the run."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="edge.view.server", description=__doc__)
    parser.add_argument("--memory", type=int, required=True, help="descriptor of the shared memory")
    parser.add_argument("--joints", type=int, required=True)
    parser.add_argument("--port", type=int, default=0)
    args = parser.parse_args(argv)
    secret = json.loads(sys.stdin.readline())  # not on the command line, where every user could read it
    try:
        server = ViewServer(ViewRecords(args.joints, args.memory), secret["token"], secret["about"], args.port)
    except OSError as error:
        print(json.dumps({"error": f"port {args.port}: {error.strerror}"}), flush=True)
        return 2
    print(json.dumps({"port": server.server_address[1]}), flush=True)
    server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
