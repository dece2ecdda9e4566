"""A run's messages as they come, read as Foxglove reads them: its websocket protocol, with another library."""

from __future__ import annotations

import json
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from edge.arms import load_arm
from edge.cli.run import main
from edge.log.live import HOST, Viewer, check_live
from edge.log.records import Kind, Loop
from edge.log.rerun_live import HEAD, RerunFeed, messages
from edge.log.rerun_view import roots_of
from edge.log.run_log import RunLog
from tests.edge.log.support import HEADER
from tests.edge.log.test_log import wait_for

SUBPROTOCOL: Any = "foxglove.sdk.v1"
SUBSCRIPTION = 7


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def shown(viewer: ClientConnection, log: RunLog, channel: int) -> Iterator[bytes]:
    """Messages of a channel, while a loop writes; an error after ten seconds without one.

    The server may offer a channel a moment before it takes subscriptions to it: one that brings nothing is repeated.
    """
    for tick in range(200):
        if tick % 40 == 0:
            wanted = {"id": SUBSCRIPTION, "channelId": channel}
            viewer.send(json.dumps({"op": "subscribe", "subscriptions": [wanted]}))
        log.journal.put(Kind.LOOP, Loop.body(tick, 1500, 0))
        with suppress(TimeoutError):
            told = viewer.recv(timeout=0.05)
            if isinstance(told, bytes) and told[0] == 1:
                yield told
    raise TimeoutError("no message of the subscription")


def test_every_topic_is_offered_and_its_messages_come(port: int) -> None:
    with RunLog(None, live=Viewer("foxglove", port)) as log:
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
            message = next(shown(viewer, log, channels["/loop"]["id"]))
            subscription, _ = struct.unpack_from("<IQ", message, 1)
            assert subscription == SUBSCRIPTION and json.loads(message[13:])["late_us"] == 1.5
    assert log.close() is None and log.summary()["file"] is None


def test_a_port_that_is_taken_and_a_use_without_a_run(
    port: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, port))
        taken.listen()
        line = ["--arm", "franka", "--bundle", str(tmp_path), "--live", "foxglove", "--live-port", str(port)]
        assert main(line) == 2
        assert f"--live-port {port}: Address already in use; name another" in capfd.readouterr().err
    check_live(Viewer("foxglove", port))
    assert main(["--arm", "franka", "--to-home", "--live", "foxglove"]) == 2
    assert "the move home keeps no log" in capfd.readouterr().err


def test_rerun_needs_a_viewer_that_listens(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    line = ["--arm", "franka", "--bundle", str(tmp_path), "--live", "rerun", "--live-port", str(port)]
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert main(line) == 2
    assert "pip install 'vla-edge[rerun]'" in capfd.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    assert main(line) == 2
    assert f"start one first: rerun --bind {HOST} --port {port}" in capfd.readouterr().err
    with socket.socket() as viewer:
        viewer.bind((HOST, port))
        viewer.listen()
        check_live(Viewer("rerun", port))


def test_a_viewer_that_is_gone_costs_messages_alone(port: int) -> None:
    feed, data = RerunFeed(port), b"x" * 100_000
    feed.add_channel(1, "/camera/front", "foxglove.CompressedImage", b"{}")
    feed.add_channel(2, "/journal", "vla_edge.journal", b"{}")
    begun_s = time.monotonic()
    for _ in range(200):
        feed.add_message(1, data, 1)
        feed.add_message(2, data, 1)
    took_s = time.monotonic() - begun_s
    assert feed.dropped > 100 and took_s < 2, "20 MB for nobody: what there is room for waits, and no call does"
    feed.close()


def test_what_goes_to_the_viewer_comes_there_whole() -> None:
    sent = [("/loop", b"{}", 5), ("/camera/front", b"y" * 70_000, 1 << 60), ("/tf", b"", 0)]
    packed = b"".join(HEAD.pack(at, len(topic), len(data)) + topic.encode() + data for topic, data, at in sent)
    assert list(messages(BytesIO(packed))) == sent
    for lost in (1, 10):
        assert list(messages(BytesIO(packed[:-lost]))) == sent[:2], "its beginning alone is none"


def test_a_recording_for_rerun_needs_its_sdk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    assert main(["--replay", str(tmp_path / "run.mcap"), "--rrd", str(tmp_path / "run.rrd")]) == 2
    assert "--rrd needs rerun, which is missing: pip install 'vla-edge[rerun]'" in capfd.readouterr().err
    assert not (tmp_path / "run.rrd").exists()


def test_each_of_two_arms_has_a_root_of_its_own() -> None:
    arm = load_arm("bi_so101")
    links = [{"parent_frame_id": one.parent, "child_frame_id": one.child} for one in arm.frames]
    assert roots_of(links) == {one.child: f"{one.child.partition('_')[0]}_base" for one in arm.frames}
    circle = [{"parent_frame_id": "a", "child_frame_id": "b"}, {"parent_frame_id": "b", "child_frame_id": "a"}]
    assert set(roots_of(circle)) == {"a", "b"}
