"""The log: the official reader opens it, each topic says what its schema promises, no end leaves it unreadable."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mcap.reader import make_reader
from mcap.writer import Writer

from edge.arms.frames import poses
from edge.cli.run import main
from edge.inference.layout import pack_plain
from edge.log.mcap_log import LogError, LogReader
from edge.log.pictures import schema as frame_schema
from edge.log.records import Beat, Kind, Loop, Record, Sample
from edge.log.run_log import RunLog
from edge.log.seen import POSES_US
from edge.log.topics import TOPICS, Messages, fields_of, schema
from edge.run.replay import Replay
from tests.edge.log.support import HEADER, LoggedRun, rewrite, write_log
from tests.edge.run.test_controller import wave
from tests.support import FRANKA

ROOT = Path(__file__).resolve().parents[3]
KILLED = """
import os, signal, sys, time
from io import BytesIO
from pathlib import Path
from edge.log.run_log import RunLog
from edge.log.records import Kind, Loop
log = RunLog(Path(sys.argv[1]))
log.begin({})
for tick in range(1000):
    log.journal.put(Kind.LOOP, Loop.body(tick, 0, 0))
print(log.process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def messages(path: Path) -> list[tuple[str, int, dict[str, Any]]]:
    """Topic, log time and content of every message, by the official reader."""
    with path.open("rb") as file:
        return [
            (channel.topic, message.log_time, json.loads(message.data))
            for _, channel, message in make_reader(file, validate_crcs=True).iter_messages()
        ]


def wait_for(condition: Any, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def run() -> Iterator[LoggedRun]:
    """6 s; one chunk is refused, the last is NaN and stops the arm."""

    def script(request: Any) -> np.ndarray:
        return wave(request) * {4: 20.0, 10: np.nan}.get(request.id, 1.0)

    run = LoggedRun(script).go(6000).end()
    assert run.stop is not None
    run.rig.journal.put(Kind.LOOP, Loop.body(3, 1500, 0))
    run.rig.journal.put(Kind.BEAT, Beat(3, 9).pack())
    yield run
    run.close()


@pytest.fixture
def log(run: LoggedRun, tmp_path: Path) -> Path:
    return write_log(tmp_path / "run.mcap", run.records)


def test_every_topic_is_there_and_every_message_has_its_fields(log: Path) -> None:
    seen = Counter()
    for topic, _, content in messages(log):
        assert content.keys() == fields_of(topic).keys(), topic
        seen[topic] += 1
    assert seen.keys() == TOPICS.keys()


def wrong_for_foxglove(schema: Any, at: str = "") -> list[str]:
    """Where a schema breaks the rules of Foxglove's viewer, which drops the whole topic then."""
    kind = schema.get("type")
    if not isinstance(kind, str) or kind not in ("object", "array", "string", "number", "integer", "boolean"):
        return [f"{at}: type {kind}"]
    if kind == "object":
        if not isinstance(schema.get("properties"), dict):
            return [f"{at}: an object without properties"]
        return [
            wrong for name, one in schema["properties"].items() for wrong in wrong_for_foxglove(one, f"{at}.{name}")
        ]
    if kind == "array":
        items = schema.get("items")
        if not isinstance(items, dict) or items.get("type") == "array":
            return [f"{at}: an array of {items}"]
        return wrong_for_foxglove(items, f"{at}[]")
    return []


def fits(schema: dict[str, Any], value: Any) -> bool:
    """Whether a message is as its schema says; null may stand for a number."""
    kind = schema["type"]
    if kind == "object":
        return isinstance(value, dict) and all(
            name in value and fits(one, value[name]) for name, one in schema["properties"].items()
        )
    if kind == "array":
        return isinstance(value, list) and all(fits(schema["items"], one) for one in value)
    types = {"string": str, "boolean": bool, "integer": int, "number": (int, float, type(None))}
    return isinstance(value, types[kind]) and (kind == "boolean" or not isinstance(value, bool))


WELL_KNOWN = {
    "foxglove.JointStates": {"timestamp": {"sec", "nsec"}, "joints": {"name", "position"}},
    "foxglove.Log": {"timestamp": {"sec", "nsec"}, "level": {}, "message": {}, "name": {}, "file": {}, "line": {}},
    "foxglove.FrameTransforms": {
        "transforms": {"timestamp", "parent_frame_id", "child_frame_id", "translation", "rotation"}
    },
    "foxglove.CompressedImage": {"timestamp": {"sec", "nsec"}, "frame_id": {}, "data": {}, "format": {}},
}
"""What the SDK's own schemas require; https://github.com/foxglove/foxglove-sdk/tree/main/schemas/jsonschema."""


def test_every_schema_keeps_to_foxgloves_rules_and_every_message_to_its_schema(log: Path) -> None:
    with log.open("rb") as file:
        reader = make_reader(file)
        summary = reader.get_summary()
        assert summary is not None and summary.statistics is not None
        assert summary.statistics.message_count > 2000 and summary.statistics.chunk_count > 1
        assert summary.statistics.metadata_count == 1
        schemas = {id: json.loads(schema.data) for id, schema in summary.schemas.items()}
        assert [wrong for schema in schemas.values() for wrong in wrong_for_foxglove(schema)] == []
        for schema, channel, message in reader.iter_messages():
            assert schema is not None and (channel.message_encoding, schema.encoding) == ("json", "jsonschema")
            assert fits(schemas[schema.id], json.loads(message.data)), channel.topic


@pytest.mark.parametrize("schema", [json.loads(schema(topic)) for topic in TOPICS] + [json.loads(frame_schema())])
def test_a_schema_by_a_name_of_foxgloves_has_its_fields(schema: dict[str, Any]) -> None:
    assert wrong_for_foxglove(schema) == []
    assert schema["title"].startswith("vla_edge.") or schema["title"] in WELL_KNOWN
    for name, inner in WELL_KNOWN.get(schema["title"], {}).items():
        field = schema["properties"][name]
        assert name in schema["required"] and set(inner) <= set(field.get("items", field).get("properties", {}))


def test_the_links_are_shown_twenty_times_a_second_as_measured(log: Path) -> None:
    told = [content for topic, _, content in messages(log) if topic == "/tf"]
    states = {content["device_us"]: content for topic, _, content in messages(log) if topic == "/joints/measured"}
    apart_us = np.diff([content["device_us"] for content in told])
    assert len(told) > 20 and apart_us.min() >= POSES_US and np.median(apart_us) <= POSES_US + 10_000
    for content in told:
        state = {joint["name"]: joint["position"] for joint in states[content["device_us"]]["joints"]}
        for frame, (one, position, rotation) in zip(content["transforms"], poses(FRANKA.frames, state), strict=True):
            assert (frame["parent_frame_id"], frame["child_frame_id"]) == (one.parent, one.child)
            np.testing.assert_allclose([frame["translation"][name] for name in "xyz"], position, atol=1e-6)
            np.testing.assert_allclose([frame["rotation"][name] for name in "wxyz"], rotation, atol=2e-6)


@pytest.mark.parametrize("frames", [None, 1, [], [{}], [{"parent": "a", "child": "b", "quaternion": [0, 0, 0, 0]}]])
def test_a_header_without_links_or_with_nonsense_shows_none(frames: Any) -> None:
    told = Messages()
    header = {**HEADER, "frames": frames}
    records = [
        Record(0, 0, Kind.HEADER, pack_plain(header)),
        Record(1, 1, Kind.SAMPLE, Sample.body(1000, 0, 2, 1, [0], [0])),
    ]
    assert [topic for record in records for topic, _ in told.of(record) if topic == "/tf"] == []


def test_the_rules_find_what_the_viewer_drops() -> None:
    assert wrong_for_foxglove({"type": "array"}) and wrong_for_foxglove({"type": "object"})
    nested = {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}
    assert wrong_for_foxglove({"type": "object", "properties": {"table": nested}}) == [
        f".table: an array of {nested['items']}"
    ]
    assert wrong_for_foxglove({"type": "object", "properties": {"x": {"type": ["number", "null"]}}})


def test_notices_say_what_a_person_should_hear_of(log: Path) -> None:
    notices = [content for topic, _, content in messages(log) if topic == "/notices"]
    assert [notice["level"] for notice in notices if notice["message"].startswith("stop: ")] == [4]
    assert all(notice["message"] and notice["level"] in (2, 3, 4) for notice in notices)
    assert any(notice["message"].startswith("refused: ") and notice["level"] == 3 for notice in notices)


def test_counts_agree_with_the_run(run: LoggedRun, log: Path) -> None:
    found = messages(log)
    counters = run.controller.counters
    topics = Counter(topic for topic, _, _ in found)
    decided = Counter(content["decision"] for topic, _, content in found if topic == "/decisions")
    assert topics["/plan/request"] == counters.requests == 10
    assert topics["/plan/result"] == topics["/latency"] == counters.requests
    assert decided["committed"] == len(counters.committed_ids) and decided["refused"] == len(counters.refused) == 1
    assert decided["stop"] == 1
    assert topics["/joints/measured"] == topics["/state"] == run.controller.recorder._count


def positions(content: dict[str, Any]) -> list[float]:
    assert [joint["name"] for joint in content["joints"]] == list(FRANKA.joints)
    return [joint["position"] for joint in content["joints"]]


def test_values_are_those_of_the_run(run: LoggedRun, log: Path) -> None:
    found = messages(log)
    samples = run.controller.recorder.samples()
    measured = [content for topic, _, content in found if topic == "/joints/measured"]
    kept = len(samples.device_us)
    assert [content["device_us"] for content in measured[-kept:]] == samples.device_us.tolist()
    assert np.array([positions(content) for content in measured[-kept:]]) == pytest.approx(samples.measured_rad)
    bad = [content for topic, _, content in found if topic == "/plan/result" and content["not_finite"]]
    assert len(bad) == 1 and bad[0]["increments_rad"][0] == {"joints": [None] * 7}


def test_frames_both_ways_are_kept_byte_by_byte(run: LoggedRun, log: Path) -> None:
    for topic, kind in (("/wire/received", Kind.RECEIVED), ("/wire/sent", Kind.SENT)):
        logged = b"".join(b64decode(content["data"]) for name, _, content in messages(log) if name == topic)
        assert logged == b"".join(record.body for record in run.records if record.kind is kind)
    sent = [frame for topic, _, content in messages(log) if topic == "/wire/sent" for frame in content["frames"]]
    assert {"Hello", "Limits", "Heartbeat", "Chunk", "Commit", "Stop"} <= set(sent)


def test_times_are_on_the_calendar_and_device_time_is_close_to_the_samples_own(run: LoggedRun, log: Path) -> None:
    to_wall_ns = HEADER["anchor"]["wall_ns"] - HEADER["anchor"]["monotonic_ns"]  # type: ignore[index]
    found = messages(log)
    sample = next(record for record in reversed(run.records) if record.kind is Kind.SAMPLE)
    times = [at for topic, at, _ in found if topic == "/joints/measured"]
    assert times[-1] == sample.host_ns + to_wall_ns and times == sorted(times)
    decision = next(content for topic, _, content in found if topic == "/decisions")
    assert decision["device_us"] == pytest.approx(decision["host_ns"] / 1000, abs=2000)  # both clocks are the rig's


def test_a_damaged_frame_is_counted_and_kept(tmp_path: Path) -> None:
    records = [
        Record(0, 0, Kind.HEADER, pack_plain(HEADER)),
        Record(1, 1, Kind.RECEIVED, b"\x05broken"),
        Record(2, 2, Kind.RECEIVED, b"rest\x00"),
    ]
    wire = [c for topic, _, c in messages(write_log(tmp_path / "bad.mcap", records)) if topic == "/wire/received"]
    assert [content["bad_frames"] for content in wire] == [0, 1]
    assert b64decode(wire[0]["data"]) == b"\x05broken"


def test_the_records_come_back_as_they_were(run: LoggedRun, log: Path) -> None:
    reader = LogReader(log)
    assert list(reader.records()) == run.records
    assert not reader.truncated and reader.checked > 2000


def test_a_message_that_says_something_else_than_the_journal_is_found(run: LoggedRun, log: Path) -> None:
    """The file is written again with one position moved by a microradian."""
    moved = []

    def move(topic: str, content: dict[str, Any]) -> dict[str, Any]:
        if topic == "/joints/measured" and not moved:
            content["joints"][2]["position"] += 1e-6
            moved.append(topic)
        return content

    rewrite(log, move)
    with pytest.raises(LogError, match=r"a message of /joints/measured differs from the journal"):
        list(LogReader(log).records())


@pytest.mark.parametrize("share", [0.3, 0.7, 0.98])
def test_a_truncated_file_gives_what_it_holds(run: LoggedRun, log: Path, share: float, capsys: Any) -> None:
    data = log.read_bytes()
    log.write_bytes(data[: int(share * len(data))])
    reader = LogReader(log)
    records = list(reader.records())
    assert reader.truncated and len(records) > 1000 and records == run.records[: len(records)]
    assert Replay(iter(records)).run().difference is None
    assert main(["--replay", str(log)]) == 0
    assert "truncated" in capsys.readouterr().out


def test_a_flipped_bit_ends_the_log_there(run: LoggedRun, log: Path) -> None:
    with log.open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    second = summary.chunk_indexes[1]
    data = bytearray(log.read_bytes())
    data[second.chunk_start_offset + second.chunk_length // 2] ^= 4
    log.write_bytes(data)
    reader = LogReader(log)
    records = list(reader.records())
    assert reader.truncated and 0 < len(records) < len(run.records) and records == run.records[: len(records)]


def other_profile() -> bytes:
    stream = BytesIO()
    writer = Writer(stream)
    writer.start(profile="ros2", library="")
    writer.finish()
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "is not an MCAP file, or ends in its first bytes"),
        (b"tick_us,state,q0\n1,IDLE,0.0\n", "is not an MCAP file"),
        (other_profile(), "profile 'ros2'; this version reads vla-edge-2"),
    ],
)
def test_a_foreign_file_is_refused_in_one_line(tmp_path: Path, capsys: Any, data: bytes, text: str) -> None:
    path = tmp_path / "foreign.mcap"
    path.write_bytes(data)
    assert main(["--replay", str(path)]) == 2
    error = capsys.readouterr().err
    assert text in error and error.count("\n") == 1


def test_a_file_that_is_not_there_is_said(tmp_path: Path, capsys: Any) -> None:
    assert main(["--replay", str(tmp_path / "none.mcap")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_without_the_extra_the_cure_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "mcap", None)
    monkeypatch.setitem(sys.modules, "mcap.writer", None)
    text = ["--log", str(tmp_path / "run.mcap"), "--arm", "franka", "--bundle", str(tmp_path)]
    for arguments in (text, ["--replay", str(tmp_path / "run.mcap")]):
        assert main(arguments) == 2
        assert "pip install 'vla-edge[log]'" in capsys.readouterr().err


def test_the_writer_beside_the_loop_finishes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    with RunLog(path) as log:
        log.begin({"arm": {"name": "franka"}})
        for tick in range(2000):
            log.journal.put(Kind.LOOP, Loop.body(tick, tick * 1000, 0))
        log.end({"ended": "duration"})
        assert log.close() is None
    found = messages(path)
    assert [content["ticks"] for topic, _, content in found if topic == "/loop"] == list(range(2000))
    assert found[-1][0] == "/log" and found[-1][2] == {"records": 2002, "missing": 0, "complete": True}
    assert abs(found[0][1] - time.time_ns()) < 60e9


def test_an_error_before_the_motion_is_in_the_log(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such port"), RunLog(tmp_path / "run.mcap") as log:
        log.begin({})
        raise ValueError("no such port")
    report = next(content for topic, _, content in messages(tmp_path / "run.mcap") if topic == "/report")
    assert report["report"] == {"ended": "error", "error": "no such port"}


def test_a_killed_control_process_leaves_a_finished_file(tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    result = subprocess.run([sys.executable, "-c", KILLED, str(path)], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == -signal.SIGKILL
    wait_for(lambda: not Path(f"/proc/{int(result.stdout)}").exists())
    found = messages(path)
    assert sum(topic == "/loop" for topic, _, _ in found) == 1000
    assert found[-1][2]["complete"] is False


def test_a_writer_that_is_held_up_costs_records_and_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    log = RunLog(path, capacity=1 << 16)
    log.begin({})
    assert log.process is not None
    wait_for(lambda: log._ring.used == 0)
    os.kill(log.process.pid, signal.SIGSTOP)
    slowest_s = 0.0
    for tick in range(5000):
        began = time.perf_counter()
        log.journal.put(Kind.LOOP, Loop.body(tick, 0, 0))
        slowest_s = max(slowest_s, time.perf_counter() - began)
    dropped = log.summary()["missing_records"]
    os.kill(log.process.pid, signal.SIGCONT)
    problem = log.close()
    assert 3000 < dropped < 5000 and slowest_s < 1.0, "it never waits for the writer"
    assert problem is not None and f"{dropped} records are missing" in problem
    last = messages(path)[-1][2]
    assert last["missing"] == dropped and last["records"] == 5001 - dropped


def test_a_writer_that_dies_is_said_and_what_it_wrote_is_there(tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    log = RunLog(path)
    log.begin({})
    for tick in range(1000):
        log.journal.put(Kind.LOOP, Loop.body(tick, 0, 0))
    wait_for(lambda: path.stat().st_size > 10_000)
    assert log.process is not None
    log.process.kill()
    problem = log.close()
    assert problem is not None and "exit -9" in problem and "mcap recover" in problem
    reader = LogReader(path)
    assert len(list(reader.records())) == 1001 and reader.truncated


def test_a_log_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="No such file or directory"):
        RunLog(tmp_path / "no" / "run.mcap").begin({})


def test_the_docs_name_every_topic() -> None:
    text = (ROOT / "docs" / "reference" / "telemetry.md").read_text()
    for topic in TOPICS:
        assert f"| `{topic}` |" in text
        for name in TOPICS[topic].fields:
            assert f"`{name}`" in text, f"{topic} {name}"


def test_a_run_that_waits_long_for_its_start_loses_no_record(tmp_path: Path) -> None:
    """The ring holds a minute; an operator may take an hour."""
    path = tmp_path / "run.mcap"
    with RunLog(path, capacity=1 << 16) as log:
        log.prepare({})
        for tick in range(20_000):  # many times the ring
            log.journal.put(Kind.LOOP, Loop.body(tick, 0, 0))
            if tick % 500 == 0:
                wait_for(lambda: log._ring.used == 0)
        assert list(tmp_path.iterdir()) == [], "nothing has a name yet"
        log.open()
        log.journal.put(Kind.LOOP, Loop.body(20_000, 0, 0))
        assert log.close() is None
    assert [content["ticks"] for topic, _, content in messages(path) if topic == "/loop"] == list(range(20_001))


def test_a_writer_that_has_died_before_the_start_keeps_the_arm_from_moving(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "run.mcap")
    log.prepare({})
    assert log.process is not None
    log.process.kill()
    log.process.wait()
    with pytest.raises(LogError, match="the log's writer ended by itself"):
        log.open()
    assert not (tmp_path / "run.mcap").exists()


def test_a_full_disk_ends_the_log_in_words_and_not_the_run(tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    log = RunLog(path)
    log.begin({})
    assert log.process is not None
    for tick in range(1000):
        log.journal.put(Kind.LOOP, Loop.body(tick, 0, 0))
    wait_for(lambda: path.stat().st_size > 10_000)
    resource.prlimit(log.process.pid, resource.RLIMIT_FSIZE, (path.stat().st_size + 5000, resource.RLIM_INFINITY))
    told: list[str] = []
    for tick in range(100_000):
        log.journal.put(Kind.LOOP, Loop.body(tick, 0, 0))
        told += [text for text in [log.check()] if text]
        if told:
            break
        time.sleep(0.0002)
    assert len(told) == 1 and "the log ends early (File too large)" in told[0] and "mcap recover" in told[0]
    for tick in range(20_000):  # the ring is still emptied, and the run goes on
        log.journal.put(Kind.LOOP, Loop.body(tick, 0, 0))
        log.check()
    assert log.close() == told[0]
    reader = LogReader(path)
    assert len(list(reader.records())) >= 1000, "what was written before is whole"


def test_the_layout_shows_fields_that_there_are() -> None:
    text = (ROOT / "docs" / "reference" / "foxglove-layout.json").read_text()
    shown = re.findall(r'"(?:value|topicPath|topicToRender)": "(/[a-z/]+)(?:\.([a-z_]+))?', text)
    assert len(shown) > 8 and json.loads(text)["layout"]
    for topic, field in shown:
        assert not field or field in fields_of(topic), f"{topic}.{field}"
