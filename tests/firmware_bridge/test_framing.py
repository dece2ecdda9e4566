"""Frames: every message survives the line, and nothing damaged is taken for a message."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.codes import MAX_FRAME, MAX_PAYLOAD
from firmware_bridge.framing import FrameReader, cobs_decode, cobs_encode, decode_frame, encode_frame
from firmware_bridge.layout import WireError
from firmware_bridge.messages import MESSAGES, Chunk, Heartbeat, Hello, Message

RANGES = {"B": 8, "H": 16, "I": 32, "Q": 64}
INT32 = st.integers(-(2**31), 2**31 - 1)


@st.composite
def any_message(draw: st.DrawFn) -> Message:
    kind = draw(st.sampled_from(MESSAGES))
    values: list[object] = []
    for _, code in kind.FIXED:
        if code.endswith("s"):
            size = struct.calcsize(code)
            values.append(draw(st.binary(min_size=size, max_size=size)))
        else:
            values.append(draw(st.integers(0, 2 ** RANGES[code] - 1)))
    joints = draw(st.integers(1, 8))
    for _ in kind.JOINT_ROWS:
        values.append(tuple(draw(st.lists(INT32, min_size=joints, max_size=joints))))
    return kind(*values)


@given(st.binary(max_size=600))
def test_cobs_round_trip_without_zero(data: bytes) -> None:
    encoded = cobs_encode(data)
    assert 0 not in encoded
    assert cobs_decode(encoded) == data


@given(any_message(), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
def test_every_message_survives(message: Message, session: int, sequence: int) -> None:
    encoded = encode_frame(session, sequence, message)
    assert encoded.count(0) == 1
    frame = decode_frame(encoded[:-1])
    assert (frame.session, frame.sequence, frame.message) == (session, sequence, message)


@given(any_message(), st.data())
def test_a_flipped_bit_is_never_a_message(message: Message, data: st.DataObject) -> None:
    encoded = bytearray(encode_frame(1, 2, message))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= 1 << data.draw(st.integers(0, 7))
    reader = FrameReader()
    assert reader.feed(bytes(encoded) + b"\0") == []


@given(st.binary(max_size=2000), st.lists(st.integers(1, 40), max_size=60))
def test_after_garbage_the_next_frame_is_read(garbage: bytes, cuts: list[int]) -> None:
    reader = FrameReader()
    wanted = Heartbeat(5)
    stream = garbage + b"\0" + encode_frame(3, 4, wanted)
    frames = []
    for cut in cuts:
        frames += reader.feed(stream[:cut])
        stream = stream[cut:]
    frames += reader.feed(stream)
    assert frames and frames[-1].message == wanted


def test_the_largest_payload_fits_a_frame_and_one_more_byte_does_not() -> None:
    values = (MAX_PAYLOAD - 4) // 4
    largest = Chunk(1, 0, values, tuple([0x01010101] * values))
    assert len(encode_frame(1, 1, largest)) <= MAX_FRAME
    with pytest.raises(WireError):
        encode_frame(1, 1, Chunk(1, 0, values, tuple([1] * (values + 1))))


def test_only_hello_and_caps_are_readable_across_schemas(monkeypatch: pytest.MonkeyPatch) -> None:
    hello, heartbeat = encode_frame(1, 1, Hello(1, 2)), encode_frame(1, 1, Heartbeat(1))
    monkeypatch.setattr("firmware_bridge.framing.SCHEMA_HASH", 12345)
    assert decode_frame(hello[:-1]).message == Hello(1, 2)
    with pytest.raises(WireError, match="CRC"):
        decode_frame(heartbeat[:-1])


def test_a_value_that_does_not_fit_is_refused_before_it_is_sent() -> None:
    with pytest.raises(WireError):
        encode_frame(1, 1, Heartbeat(2**32))
