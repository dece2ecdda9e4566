"""A run's messages as they come, read as Foxglove reads them: its websocket protocol, with another library."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from edge.cli.run import main
from edge.log.live import HOST, check_live
from edge.log.records import Kind, Loop
from edge.log.run_log import RunLog
from tests.edge.log.support import HEADER
from tests.edge.log.test_log import wait_for

SUBPROTOCOL: Any = "foxglove.sdk.v1"


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def shown(viewer: ClientConnection, log: RunLog) -> Iterator[bytes]:
    """Messages of a subscription, while a loop writes; an error after ten seconds without one."""
    for tick in range(200):
        log.journal.put(Kind.LOOP, Loop.body(tick, 1500, 0))
        with suppress(TimeoutError):
            told = viewer.recv(timeout=0.05)
            if isinstance(told, bytes) and told[0] == 1:
                yield told
    raise TimeoutError("no message of the subscription")


def test_every_topic_is_offered_and_its_messages_come(port: int) -> None:
    with RunLog(None, live_port=port) as log:
        log.begin({name: value for name, value in HEADER.items() if name != "anchor"})
        wait_for(lambda: listening(port))
        with connect(f"ws://{HOST}:{port}", subprotocols=[SUBPROTOCOL], close_timeout=0.2) as viewer:
            channels: dict[str, dict[str, Any]] = {}
            while "/joints/measured" not in channels or "/loop" not in channels:
                told = viewer.recv(timeout=10)
                if isinstance(told, str) and (advert := json.loads(told))["op"] == "advertise":
                    channels |= {one["topic"]: one for one in advert["channels"]}
            assert channels["/joints/measured"]["schemaName"] == "foxglove.JointStates"
            assert "/journal" not in channels
            wanted = {"id": 7, "channelId": channels["/loop"]["id"]}
            viewer.send(json.dumps({"op": "subscribe", "subscriptions": [wanted]}))
            message = next(shown(viewer, log))  # what came before the server has heard of it is not shown
            subscription, _ = struct.unpack_from("<IQ", message, 1)
            assert subscription == 7 and json.loads(message[13:])["late_us"] == 1.5
    assert log.close() is None and log.summary()["file"] is None


def test_a_port_that_is_taken_and_a_use_without_a_run(port: int, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, port))
        taken.listen()
        line = ["--arm", "franka", "--bundle", ".", "--live", "foxglove", "--live-port", str(port)]
        assert main(line) == 2
        assert f"--live-port {port}: Address already in use; name another" in capfd.readouterr().err
    check_live(port)
    assert main(["--arm", "franka", "--to-home", "--live", "foxglove"]) == 2
    assert "the move home keeps no log" in capfd.readouterr().err
