"""What openpi's protocol costs between two processes on this machine: two raw 224 px frames there, a chunk back.

The server is `PolicyServer` around a policy that computes nothing; what it took itself (`server_timing`) is taken off.
`python -m tests.openpi_overhead`: `make doors`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from openpi_client.websocket_client_policy import WebsocketClientPolicy

from edge.doors.openpi_server import PolicyServer
from edge.policy.openpi import pack
from edge.policy.remote import Connection, ServerAddress

HORIZON, AXES = 50, 7
OBSERVATION = {
    "observation/front": np.zeros((224, 224, 3), np.uint8),
    "observation/wrist": np.zeros((224, 224, 3), np.uint8),
    "observation/state": np.zeros(AXES),
    "prompt": "put the cube into the bowl",
}


class Nothing:
    """Answers at once."""

    def metadata(self) -> dict[str, Any]:
        return {}

    def answer(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        return {"actions": np.zeros((HORIZON, AXES))}


async def serve() -> None:
    listening = await PolicyServer(Nothing()).open("127.0.0.1", 0)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


def times_ms(call: Callable[[], float], count: int) -> np.ndarray:
    """Of each call, without what it returns: the server's own time."""
    found = []
    for _ in range(count + 20):
        began_s = time.perf_counter()
        own_ms = call()
        found.append(1e3 * (time.perf_counter() - began_s) - own_ms)
    return np.array(found[20:])


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.openpi_overhead", description=__doc__)
    parser.add_argument("--count", type=int, default=2000, help="round trips each (default %(default)d)")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        asyncio.run(serve())
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.openpi_overhead", "--serve"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        theirs = WebsocketClientPolicy("127.0.0.1", port)
        ours = Connection(ServerAddress(f"openpi://127.0.0.1:{port}"))
        ours.open()

        def our_call() -> float:
            ours._socket.send(pack(OBSERVATION))
            return float(ours._received(5.0)["server_timing/infer_ms"])

        calls: dict[str, Callable[[], float]] = {
            "openpi-client": lambda: float(theirs.infer(OBSERVATION)["server_timing"]["infer_ms"]),
            "edge-run": our_call,
        }
        print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
        print("| client | p50 | p95 | p99, ms |\n|---|---|---|---|")
        for name, call in calls.items():
            cells = [f"{one:.2f}" for one in np.percentile(times_ms(call, args.count), (50, 95, 99))]
            print(f"| {name} | {' | '.join(cells)} |")
    finally:
        server.kill()
        server.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
