"""Logs of whole runs in rerun: as recordings of its own, and live; `make rerun`.

Its SDK is large, and in an environment of its own; VLA_EDGE_RERUN names its Python.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.log.live import HOST, NOT_SHOWN
from edge.log.mcap_log import CAMERAS
from edge.log.pictures import H264
from edge.log.reading import LogMessage, read_log
from edge.sim.scenes import open_scene
from firmware_bridge.children import end
from tests.edge.log.test_log import wait_for
from tests.edge.policy.test_foreign import TASK, in_degrees
from tests.foreign_bundle import SO101, write_foreign

pytestmark = pytest.mark.slow
PYTHON = os.environ.get("VLA_EDGE_RERUN", "")
needs_rerun = pytest.mark.skipif(not PYTHON, reason="VLA_EDGE_RERUN names no Python; `make rerun` does")
CONTENTS = Path(__file__).with_name("rerun_contents.py")
SHOWN = (
    *("Scalars:scalars", "TextLog:text", "TextDocument:text", "Tensor:data"),
    *("EncodedImage:blob", "VideoStream:sample", "Transform3D:translation"),
)
"""What rerun's viewer has a view for."""
Contents = dict[str, dict[str, list[Any]]]


def edge_run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    line = [PYTHON, "-m", "edge.cli.run", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=180)


def in_rerun(path: Path) -> Contents:
    done = subprocess.run([PYTHON, CONTENTS, path], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    found: Contents = json.loads(done.stdout)
    return found


@pytest.fixture
def so101(tmp_path: Path) -> list[str | Path]:
    """A run of three seconds of an SO-101 with two cameras."""
    target = in_degrees(np.array(open_scene(SO101, 0, TASK).start)) + np.array([17.0, 0, 0, 0, 0, 0])
    bundle = write_foreign(tmp_path / "foreign", target=target)
    cameras = ["--camera", "front=pattern:", "--camera", "wrist=pattern:"]
    return ["--arm", "so101", "--bundle", bundle, "--task", TASK, *cameras, "--duration", "3"]


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def lost(messages: list[LogMessage], found: Contents) -> list[str]:
    """Topics of a log of which rerun shows fewer messages than there are."""
    counts: dict[str, set[int]] = {}
    for message in messages:
        counts.setdefault(message.topic, set()).add(message.time_ns)
    shown: dict[str, set[int]] = {topic: set() for topic in counts}
    for entity, components in found.items():
        for name in SHOWN:
            for time_ns, _ in components.get(name, []):
                for topic in (one for one in counts if f"{entity}/".startswith(f"{one}/")):
                    shown[topic].add(time_ns)
    return [topic for topic in counts if not shown[topic] >= counts[topic]]


def check_known(messages: list[LogMessage], found: Contents) -> None:
    """Pictures, positions, links and notices arrive as what they are, each at its time."""
    of_topic: dict[str, list[LogMessage]] = {}
    for message in messages:
        of_topic.setdefault(message.topic, []).append(message)
    for topic, told in of_topic.items():
        if topic.startswith(CAMERAS):
            files = [[one.time_ns, [sha256(b64decode(one.content["data"])).hexdigest()]] for one in told]
            kind = "VideoStream:sample" if told[0].content["format"] == H264 else "EncodedImage:blob"
            assert found[topic][kind] == sorted(files), topic
        elif topic.startswith("/joints/"):
            states = [[one.time_ns, [joint["position"] for joint in one.content["joints"]]] for one in told]
            assert found[topic]["Scalars:scalars"] == states, topic
        elif topic == "/notices":
            assert found[topic]["TextLog:text"] == sorted([one.time_ns, [one.content["message"]]] for one in told)
        elif topic == "/tf":
            root = told[0].content["transforms"][0]["parent_frame_id"]
            for index, pose in enumerate(told[0].content["transforms"]):
                rows = found[f"/tf/{root}/{pose['child_frame_id']}"]["Transform3D:translation"]
                places = [list(one.content["transforms"][index]["translation"].values()) for one in told]
                np.testing.assert_allclose([row[1][0] for row in rows], places, atol=1e-6)


@needs_rerun
@pytest.mark.parametrize(("arm", "kept"), [("franka", "jpeg"), ("so101", "jpeg"), ("so101", H264)])
def test_every_topic_of_a_run_is_shown(
    arm: str, kept: str, so101: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    line = so101
    if arm == "franka":
        line = ["--arm", "franka", "--bundle", request.getfixturevalue("bundle_path"), "--duration", "4"]
    log, recording = tmp_path / "run.mcap", tmp_path / "run.rrd"
    ran = edge_run(*line, "--log", log, "--log-frames", kept, "--report", tmp_path / "run.json")
    assert ran.returncode == 0, ran.stderr
    written = edge_run("--replay", log, "--rrd", recording)
    assert written.returncode == 0 and f"wrote {recording}" in written.stdout, written.stderr
    messages, found = list(read_log(log)), in_rerun(recording)
    topics = {message.topic for message in messages}
    assert {"/tf", "/notices", "/camera/front", "/camera/front/used", "/chunks", "/report"} <= topics
    assert lost(messages, found) == []
    check_known(messages, found)
    assert edge_run("--replay", log, "--rrd", recording).returncode == 2, "there is a recording of that name"


def test_a_topic_that_is_lost_is_found() -> None:
    messages = [LogMessage("/a", 1, {}), LogMessage("/a", 2, {}), LogMessage("/a/b", 1, {}), LogMessage("/c", 1, {})]
    found: Contents = {"/a/x": {"Scalars:scalars": [[1, [0.0]], [2, [0.0]]]}, "/a/b": {"McapMessage:data": [[1, [7]]]}}
    assert lost(messages, found) == ["/a/b", "/c"]


def start_rerun(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([Path(PYTHON).parent / "rerun", *arguments], start_new_session=True)


@pytest.fixture
def viewer(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """rerun's own program without a window, which passes what it is told on to others."""
    process = start_rerun("--serve-grpc", "--bind", HOST, "--port", str(port))
    yield process
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    end(process, 5)


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


@needs_rerun
def test_a_run_is_shown_live(so101: Any, port: int, viewer: subprocess.Popen[bytes], tmp_path: Path) -> None:
    wait_for(lambda: listening(port))
    log = tmp_path / "run.mcap"
    ran = edge_run(*so101, "--log", log, "--report", tmp_path / "run.json", "--live", "rerun", "--live-port", str(port))
    assert ran.returncode == 0, ran.stderr
    keeps = start_rerun(f"rerun+http://{HOST}:{port}/proxy", "--bind", HOST, "--save", str(tmp_path / "live.rrd"))
    time.sleep(5)  # for what it is told
    os.killpg(viewer.pid, signal.SIGKILL)
    keeps.wait(30)  # it ends when nobody tells it any more
    messages, found = list(read_log(log)), in_rerun(tmp_path / "live.rrd")
    for topic in {message.topic for message in messages} - {*NOT_SHOWN}:
        assert any(f"{entity}/".startswith(f"{topic}/") for entity in found), topic
    assert len(found["/joints/measured"]["Scalars:scalars"]) > 0.5 * sum(
        m.topic == "/joints/measured" for m in messages
    )


@needs_rerun
def test_a_viewer_that_takes_nothing_holds_up_nothing(so101: Any, tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind((HOST, 0))
        silent.listen()
        port, log = silent.getsockname()[1], tmp_path / "run.mcap"
        begun_s = time.monotonic()
        line = [*so101, "--log", log, "--report", tmp_path / "run.json", "--live", "rerun", "--live-port", str(port)]
        ran = edge_run(*line)
        took_s = time.monotonic() - begun_s
    assert ran.returncode == 0, ran.stderr
    report = json.loads((tmp_path / "run.json").read_text())
    assert report["log"]["missing_records"] == 0 and took_s < 60
    assert edge_run("--replay", log).returncode == 0
