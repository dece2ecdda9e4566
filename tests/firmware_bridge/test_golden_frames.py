"""The bytes on the line, spelled out: Python and C write and read the same frames, and refuse the same garbage.

`tests/vectors/frames.json` is written by `make generate`. Good cases hold one frame of every message type; the bad ones
are damaged in every way that a reader has to notice.
"""

from __future__ import annotations

import ctypes
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from firmware_bridge.codes import CRC_SIZE, HEADER, MAX_FRAME, MAX_PAYLOAD, PROTOCOL_VERSION, MessageType
from firmware_bridge.framing import FrameReader, cobs_encode, decode_frame, encode_frame
from firmware_bridge.messages import BY_TYPE, Chunk
from tests.firmware_core import Frame, Reader, core

DOCUMENT = json.loads((Path(__file__).parents[1] / "vectors" / "frames.json").read_text())
GOOD = [pytest.param(case, id=case["type"]) for case in DOCUMENT["good"]]
BAD = [pytest.param(case, id=case["name"]) for case in DOCUMENT["bad"]]
SESSION, SEQUENCE = DOCUMENT["session"], DOCUMENT["sequence"]


class Firmware:
    """The core's frame functions."""

    def __init__(self) -> None:
        self.library = core()
        self.reader = Reader()

    def feed(self, data: bytes) -> list[tuple[int, int, int, bytes]]:
        found, frame = [], Frame()
        for byte in data:
            if self.library.ve_frame_reader_push(ctypes.byref(self.reader), byte, ctypes.byref(frame)):
                found.append((frame.type, frame.session, frame.sequence, bytes(frame.payload[: frame.length])))
        return found

    def encode(self, kind: int, payload: bytes) -> bytes:
        out = (ctypes.c_uint8 * MAX_FRAME)()
        size = self.library.ve_frame_encode(out, kind, SESSION, SEQUENCE, payload, len(payload))
        return bytes(out[:size])


@pytest.fixture
def firmware() -> Iterator[Firmware]:
    yield Firmware()


def message_of(case: dict[str, Any]) -> Any:
    kind = MessageType[case["type"]]
    return BY_TYPE[kind].unpack(bytes.fromhex(case["payload"]))


def test_every_message_type_has_a_vector() -> None:
    assert {case["type"] for case in DOCUMENT["good"]} == {kind.name for kind in BY_TYPE}


@pytest.mark.parametrize("case", GOOD)
def test_host(case: dict[str, Any]) -> None:
    encoded = bytes.fromhex(case["frame"])
    assert encode_frame(SESSION, SEQUENCE, message_of(case)) == encoded
    frame = decode_frame(encoded[:-1])
    assert (frame.session, frame.sequence, frame.message) == (SESSION, SEQUENCE, message_of(case))


@pytest.mark.parametrize("case", GOOD)
def test_firmware(case: dict[str, Any], firmware: Firmware) -> None:
    payload, encoded = bytes.fromhex(case["payload"]), bytes.fromhex(case["frame"])
    kind = MessageType[case["type"]]
    assert firmware.encode(kind, payload) == encoded
    assert firmware.feed(encoded) == [(kind, SESSION, SEQUENCE, payload)]
    assert firmware.reader.bad_frames == 0


@pytest.mark.parametrize("case", BAD)
def test_both_drop_and_count_what_is_damaged_and_read_the_next_frame(case: dict[str, Any], firmware: Firmware) -> None:
    data, after = bytes.fromhex(case["bytes"]), bytes.fromhex(DOCUMENT["good"][0]["frame"])
    reader = FrameReader()
    assert reader.feed(data) == [] and firmware.feed(data) == []
    assert reader.bad_frames == firmware.reader.bad_frames == case["bad_frames"]
    assert len(reader.feed(after)) == len(firmware.feed(after)) == 1
    assert firmware.reader.bad_frames == case["bad_frames"]


def test_the_firmware_sends_no_frame_that_is_too_long(firmware: Firmware) -> None:
    largest = Chunk(0x0101, 1, 1, tuple([0x01010101] * ((MAX_PAYLOAD - 4) // 4)))  # runs longer than one COBS code
    encoded = firmware.encode(MessageType.CHUNK, largest.pack())
    assert encoded == encode_frame(SESSION, SEQUENCE, largest) and len(encoded) <= MAX_FRAME
    assert firmware.feed(encoded) == [(MessageType.CHUNK, SESSION, SEQUENCE, largest.pack())]
    assert firmware.encode(MessageType.CHUNK, bytes([1]) * (MAX_PAYLOAD + 1)) == b""


@pytest.mark.parametrize("value", [0, 1, -1, 2**31 - 1, -(2**31), -(2**31) + 1])
def test_the_firmware_reads_every_int32(firmware: Firmware, value: int) -> None:
    firmware.library.ve_get_i32.restype = ctypes.c_int32
    assert firmware.library.ve_get_i32(value.to_bytes(4, "little", signed=True)) == value
    out = (ctypes.c_uint8 * 4)()
    firmware.library.ve_put_i32(out, ctypes.c_int32(value))
    assert bytes(out) == value.to_bytes(4, "little", signed=True)


@pytest.mark.parametrize("filling", [0x00, 0x01, 0xFF])
def test_the_longest_payload_fits_and_one_byte_more_does_not(firmware: Firmware, filling: int) -> None:
    longest = bytes([filling]) * MAX_PAYLOAD
    encoded = firmware.encode(MessageType.HELLO, longest)
    assert len(encoded) <= MAX_FRAME
    assert firmware.feed(encoded) == [(MessageType.HELLO, SESSION, SEQUENCE, longest)]
    assert firmware.encode(MessageType.HELLO, longest + b"x") == b""


def frame_of(payload: bytes) -> bytes:
    """A frame with any payload, also one that is too long to be sent."""
    body = HEADER.pack(PROTOCOL_VERSION << 5 | MessageType.HELLO, SESSION, SEQUENCE, len(payload)) + payload
    return cobs_encode(body + zlib.crc32(body).to_bytes(CRC_SIZE, "little")) + b"\0"


def test_a_payload_longer_than_the_longest_is_refused_even_where_it_would_fit(firmware: Firmware) -> None:
    assert frame_of(b"abc") == firmware.encode(MessageType.HELLO, b"abc")
    too_long = frame_of(bytes(MAX_PAYLOAD + 1))
    assert len(too_long) <= MAX_FRAME
    assert firmware.feed(too_long) == []
    assert firmware.reader.bad_frames == 1


def test_a_good_frame_at_the_head_of_an_overlong_run_is_not_read(firmware: Firmware) -> None:
    """The byte after a full reader must go nowhere, whatever lies behind it in memory."""
    good = firmware.encode(MessageType.HELLO, bytes(range(1, 256)))[:-1]
    for count in range(MAX_FRAME - 256, MAX_FRAME + 1):
        run = good + bytes([7]) * (MAX_FRAME - len(good)) + bytes([max(1, (len(good) - 1) & 0xFF)]) * (count - 255)
        assert firmware.feed(run + b"\0") == []
    assert firmware.reader.bad_frames == 257
