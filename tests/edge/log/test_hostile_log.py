"""A log that no run has written is refused in one short line: bounded, whatever it says of itself."""

from __future__ import annotations

import copy
import json
import struct
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import zstandard
from mcap.writer import CompressionType, Writer

from edge.cli.run import main
from edge.inference.layout import pack_plain
from edge.log.mcap_log import LENGTH, MOST_CHUNK_BYTES, PROFILE, LogReader, encode_message, unpack_batch
from edge.log.older import messages_then
from edge.log.records import Kind, Record, unpack
from edge.log.topics import TOPICS, Messages

RECORDED = Path(__file__).parents[1] / "run" / "recorded" / "stop.mcap"
FEW = 400
"""Messages of the recorded log that are enough to begin a replay."""
Change = Callable[[Record], bytes]


def rewritten(path: Path, kind: Kind, change: Change) -> Path:
    """The recorded log's beginning, with the first record of a kind changed, and the messages that follow from it."""
    found, messages = False, Messages()
    with path.open("wb") as file:
        writer = Writer(file, compression=CompressionType.ZSTD)
        writer.start(profile=PROFILE, library="a test")
        channels = {topic: writer.register_channel(topic, "json", 0) for topic in (*TOPICS, "/journal")}
        for count, (topic, time_ns, data) in enumerate(LogReader(RECORDED).messages()):
            if topic != "/journal":
                continue
            batch = b""
            for record in unpack_batch(data, path):
                if record.kind is kind and not found:
                    found, record = True, Record(record.number, record.host_ns, record.kind, change(record))
                with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
                    for name, content in messages_then(messages, record, PROFILE)[1]:
                        writer.add_message(channels[name], time_ns, encode_message(content), time_ns)
                batch += LENGTH.pack(len(record.pack())) + record.pack()
            packed = json.dumps({"records": b64encode(batch).decode()}).encode()
            writer.add_message(channels[topic], time_ns, packed, time_ns)
            if count >= FEW and found:
                break
        writer.finish()
    assert found, f"the recorded log has no {kind.name}"
    return path


def refused(path: Path, capsys: pytest.CaptureFixture[str], told: str) -> None:
    assert main(["--replay", str(path)]) == 2
    _, err = capsys.readouterr()
    assert told in err and err.count("\n") == 1 and len(err) <= 301 and err[:-1].isprintable()


def plainly(*names: str, to: Any) -> Change:
    def change(record: Record) -> bytes:
        plain = copy.deepcopy(unpack(record.kind, record.body))
        inside = plain
        for name in names[:-1]:
            inside = inside[name]
        inside[names[-1]] = to
        return pack_plain(plain)

    return change


def bounds(joints: int, start_rad: float) -> dict[str, list[float]]:
    return {"deviation_rad": [0.1] * joints, "beyond_rad": [0.1] * joints, "start_rad": [start_rad] * joints}


DEEP = b"[" * 100_000
MADE = [
    (("shape", "horizon"), 10**9, "shape.horizon must be a whole number from 1 to 1024"),
    (("shape", "horizon"), "15", "shape.horizon must be a whole number"),
    (("shape", "history"), 10**9, "shape.history must be a whole number from 0 to 1024"),
    (("shape", "history"), None, "shape.history must be"),
    (("shape", "max_delay"), 10**18, "shape.max_delay must be"),
    (("shape",), [], "shape must be a table"),
    (("arm", "limits"), None, "arm.limits must be a table, not null"),
    (("arm", "operating"), {}, "arm.operating.position_min_rad is missing"),
    (("arm", "limits", "velocity_rad_s"), [1.0] * 6, "a row has not 7 numbers, one per joint"),
    (("arm", "home_rad", 3), 1e30, "arm.home_rad[3] must be a number"),
    (("arm", "joints"), ["j"] * 5000, "arm.joints must be a list of 1 to 16"),
    (("arm", "gripper"), 99, "arm.gripper must be"),
    (("arm", "goals"), [1.0], "arm.goals must be a table"),
    (("arm", "goals"), {"deviation_rad": [0.1] * 7}, "arm.goals.beyond_rad is missing"),
    (("arm", "goals"), bounds(7, 0.0), "arm.goals.start_rad[0] must be a number"),
    (("arm", "goals"), bounds(6, 0.1), "a row has not 7 numbers, one per joint"),
    (("arm",), "franka", "arm must be a table"),
    (("settings", "lead_us"), 1e10, "settings.lead_us must be"),
    (("settings", "execute_steps"), -3, "settings.execute_steps must be"),
    (("step_s",), 0, "step_s must be a number from 0.001 to 10"),
    (("latency_us",), 10**18, "latency_us must be"),
]


@pytest.mark.parametrize(("names", "value", "told"), MADE)
def test_what_a_controller_is_made_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], names: tuple[str, ...], value: Any, told: str
) -> None:
    refused(rewritten(tmp_path / "l.mcap", Kind.CONTROLLER, plainly(*names, to=value)), capsys, told)


@pytest.mark.parametrize("kind", [Kind.CONTROLLER, Kind.COMMAND, Kind.SESSION, Kind.DECISION, Kind.HEADER, Kind.RESULT])
@pytest.mark.parametrize("body", [DEEP, b"", b"{}", b"[]", b"null", b'{"a":' * 50_000, b"\xff" * 9, b'{"a":1,"a":2}'])
def test_records_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: Kind, body: bytes) -> None:
    try:
        refused(rewritten(tmp_path / "l.mcap", kind, lambda record: body), capsys, "edge-run: ")
    except AssertionError:
        if kind is not Kind.HEADER or body != b"{}":  # an empty header is nothing that a decision depends on
            raise


def array_record(arrays: Any) -> Change:
    head = json.dumps({"arrays": arrays}).encode()
    return lambda record: struct.pack("<I", len(head)) + head + bytes(64)


@pytest.mark.parametrize(
    "arrays",
    [
        [["increments_rad", "<f8", [10**9, 10**9]]],
        [["increments_rad", "<f8", [-1]]],
        [["increments_rad", "|O", [1]]],
        [["increments_rad", "V2000000000", [1]]],
        [["increments_rad", "(1000000,1000000)f8", [1]]],
        [["increments_rad", "<f8", [2**40]]],
        [["increments_rad", "<f8"]],
        {"increments_rad": 1},
        None,
    ],
)
def test_arrays_that_are_announced_and_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arrays: Any
) -> None:
    refused(rewritten(tmp_path / "l.mcap", Kind.RESULT, array_record(arrays)), capsys, "is damaged")


def with_chunk(path: Path, data: bytes, uncompressed: int, compression: bytes = b"zstd") -> Path:
    """A log of one chunk, by hand."""
    header = struct.pack("<I", len(PROFILE)) + PROFILE.encode() + struct.pack("<I", 0)
    body = struct.pack("<QQQI", 0, 0, uncompressed, 0) + struct.pack("<I", len(compression)) + compression
    body += struct.pack("<Q", len(data)) + data
    magic = b"\x89MCAP0\r\n"
    path.write_bytes(
        magic + b"\x01" + struct.pack("<Q", len(header)) + header + b"\x06" + struct.pack("<Q", len(body)) + body
    )
    return path


@pytest.mark.parametrize("claims", [0, 1000, 2 * MOST_CHUNK_BYTES, 2**63])
def test_a_chunk_is_not_unpacked_beyond_its_bound(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], claims: int
) -> None:
    packer = zstandard.ZstdCompressor().compressobj()
    piece = bytes(1 << 20)
    data = b"".join([*(packer.compress(piece) for _ in range(300)), packer.flush()])
    assert main(["--replay", str(with_chunk(tmp_path / "l.mcap", data, claims))]) == 2
    assert "nothing to compare" in capsys.readouterr().out
    assert main(["--replay", str(with_chunk(tmp_path / "l.mcap", b"", 2**40, b"lz4"))]) == 2


@pytest.mark.parametrize("length", [2**31, 2**40, 2**63, 2**64 - 1])
@pytest.mark.parametrize("opcode", range(1, 16))
def test_a_record_is_no_longer_than_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], opcode: int, length: int
) -> None:
    path = with_chunk(tmp_path / "l.mcap", b"", 0, b"")
    path.write_bytes(path.read_bytes() + bytes([opcode]) + struct.pack("<Q", length) + b"\xff" * 100)
    assert main(["--replay", str(path)]) == 2
    assert "verdict      nothing to compare" in capsys.readouterr().out


def test_what_is_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(tmp_path, capsys, "is not a regular file")
    refused(tmp_path / "none.mcap", capsys, "No such file")
    refused(Path("/dev/zero"), capsys, "is not a regular file")
