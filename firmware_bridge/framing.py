"""Frames on a byte stream: COBS with a zero delimiter around header, payload and CRC-32."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from firmware_bridge.codes import CRC_SIZE, HEADER, MAX_FRAME, MAX_PAYLOAD, PROTOCOL_VERSION, MessageType
from firmware_bridge.layout import WireError
from firmware_bridge.messages import BY_TYPE, SCHEMA_HASH, Message

DELIMITER = b"\x00"
UNSEEDED = frozenset({MessageType.HELLO, MessageType.CAPS})
"""These two carry CRC seed 0, so that builds of different schemas can still tell each other apart."""


@dataclass(frozen=True)
class Frame:
    """One decoded frame."""

    session: int
    sequence: int
    message: Message


def cobs_encode(data: bytes) -> bytes:
    """Consistent Overhead Byte Stuffing: the result has no zero byte (Cheshire and Baker, 1999)."""
    out = bytearray()
    for run in data.split(DELIMITER):
        while len(run) >= 254:
            out += b"\xff" + run[:254]
            run = run[254:]
        out += bytes([len(run) + 1]) + run
    return bytes(out)


def cobs_decode(data: bytes) -> bytes:
    """Inverse of `cobs_encode`. Raises `WireError`."""
    out = bytearray()
    at = 0
    while at < len(data):
        code = data[at]
        run = data[at + 1 : at + code]
        if code == 0 or len(run) != code - 1:
            raise WireError("broken COBS code")
        out += run
        at += code
        if code != 0xFF and at < len(data):
            out += DELIMITER
    return bytes(out)


def encode_frame(session: int, sequence: int, message: Message) -> bytes:
    """The bytes of one frame, its closing delimiter included. Raises `WireError`."""
    payload = message.pack()
    if len(payload) > MAX_PAYLOAD:
        raise WireError(f"{type(message).__name__}: payload of {len(payload)} bytes, at most {MAX_PAYLOAD}")
    body = HEADER.pack(PROTOCOL_VERSION << 5 | message.TYPE, session, sequence, len(payload)) + payload
    crc = zlib.crc32(body, _seed(message.TYPE))
    return cobs_encode(body + crc.to_bytes(CRC_SIZE, "little")) + DELIMITER


def decode_frame(encoded: bytes) -> Frame:
    """Decodes what stood between two delimiters. Raises `WireError`."""
    body = cobs_decode(encoded)
    if len(body) < HEADER.size + CRC_SIZE:
        raise WireError("frame too short")
    version_type, session, sequence, length = HEADER.unpack_from(body)
    payload = body[HEADER.size : -CRC_SIZE]
    if length != len(payload):
        raise WireError("frame length does not match its header")
    number = version_type & 0x1F
    if number not in BY_TYPE:
        raise WireError(f"unknown message type {number}")
    kind = MessageType(number)
    if zlib.crc32(body[:-CRC_SIZE], _seed(kind)) != int.from_bytes(body[-CRC_SIZE:], "little"):
        raise WireError("CRC mismatch")
    if version_type >> 5 != PROTOCOL_VERSION and kind not in UNSEEDED:
        raise WireError(f"protocol version {version_type >> 5}")
    return Frame(session, sequence, BY_TYPE[kind].unpack(payload))


class FrameReader:
    """Cuts a byte stream into frames; a damaged one is counted and skipped, and the next delimiter resynchronises."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self.bad_frames = 0

    def feed(self, data: bytes) -> list[Frame]:
        """The frames completed by `data`, in order."""
        frames = []
        *complete, rest = data.split(DELIMITER)
        for part in complete:
            encoded = bytes(self._pending + part)
            self._pending.clear()
            if not encoded:
                continue
            try:
                frames.append(decode_frame(encoded))
            except WireError:
                self.bad_frames += 1
        self._pending += rest
        if len(self._pending) > MAX_FRAME:
            del self._pending[: -MAX_FRAME - 1]  # stays too long to be a frame, so the next delimiter counts it as bad
        return frames


def _seed(kind: MessageType) -> int:
    return 0 if kind in UNSEEDED else SCHEMA_HASH
