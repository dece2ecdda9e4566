"""What a supervisor is told, read from the socket that it names; telling waits for nobody."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.run.health import PERIOD_NS, Health


@pytest.fixture(params=["path", "abstract"])
def supervisor(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        address = str(tmp_path / "notify") if request.param == "path" else f"@vla-edge-{tmp_path.name}"
        listening.bind(address.replace("@", "\0", 1))
        listening.setblocking(False)
        yield address, listening


def told(listening: socket.socket) -> list[list[str]]:
    found = []
    while True:
        try:
            found.append(listening.recv(4096).decode().split("\n"))
        except BlockingIOError:
            return found


def test_ready_once_then_signs_of_life_and_changes_of_state(supervisor: tuple[str, socket.socket]) -> None:
    address, listening = supervisor
    health = Health(address)
    for now_ns in range(0, 2 * PERIOD_NS, PERIOD_NS // 100):
        health.alive("waits", now_ns)
    health.alive("running", 2 * PERIOD_NS + 1)
    health.stopping("duration")
    assert told(listening) == [
        ["READY=1", "WATCHDOG=1", "STATUS=waits"],
        ["WATCHDOG=1", "STATUS=waits"],
        ["WATCHDOG=1", "STATUS=running"],
        ["STOPPING=1", "STATUS=duration"],
    ]


def test_nobody_listens_and_nobody_reads(supervisor: tuple[str, socket.socket], tmp_path: Path) -> None:
    address, listening = supervisor
    for health in (Health(""), Health(str(tmp_path / "none")), Health(address)):
        for number in range(1000):  # more than any socket's queue: not one of them waits or raises
            health.alive(str(number), number)
        health.stopping("done")
    assert 1 <= len(told(listening)) < 1000
