"""Frames on a byte stream: COBS with a zero delimiter around header, payload and CRC-32."""

from __future__ import annotations

import zlib
from collections import deque
from dataclasses import dataclass

from firmware_bridge.codes import CRC_SIZE, HEADER, MAX_FRAME, MAX_PAYLOAD, PROTOCOL_VERSION, MessageType
from firmware_bridge.layout import WireError
from firmware_bridge.messages import BY_TYPE, SCHEMA_HASH, Message

DELIMITER = b"\x00"
MOST_FRAMES = 64
"""Of one call of a bounded reader: what a device sends in the half second for which a stopped host may not look."""
REMEMBERED_FRAMES = 64
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


def type_of(encoded: bytes) -> int:
    """The message type of an encoded frame, which follows the first COBS code; 0, no type's, where there is none."""
    return encoded[1] & 0x1F if len(encoded) > 1 else 0


class FrameReader:
    """Cuts a byte stream into frames; a damaged one is counted and skipped, and the next delimiter resynchronises."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self.bad_frames = 0

    def feed(self, data: bytes) -> list[Frame]:
        """The frames completed by `data`, in order."""
        return [frame for encoded in self._cut(data) if (frame := self._decoded(encoded)) is not None]

    def _cut(self, data: bytes) -> list[bytes]:
        """What stood between delimiters, up to the last one; the rest is kept for the next call."""
        *complete, rest = data.split(DELIMITER)
        if complete:
            complete[0] = bytes(self._pending + complete[0])
            self._pending.clear()
        self._pending += rest
        if len(self._pending) > MAX_FRAME:
            del self._pending[: -MAX_FRAME - 1]  # stays too long to be a frame, so the next delimiter counts it as bad
        return complete

    def _decoded(self, encoded: bytes) -> Frame | None:
        if not encoded:
            return None
        try:
            return decode_frame(encoded)
        except WireError:
            self.bad_frames += 1
            return None


class BoundedFrameReader(FrameReader):
    """A reader whose work is bounded whatever arrives: of one call the newest `MOST_FRAMES` count, none of them twice.

    A frame carries its sender's sequence number, so one that is the same byte for byte is a copy.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[bytes] = set()
        self._order: deque[bytes] = deque()
        self.skipped_frames = 0
        """Older ones of too many at once, and copies."""

    def feed(self, data: bytes) -> list[Frame]:
        frames = []
        for encoded in self._newest(self._cut(data)):
            frame = self._decoded(encoded)
            if frame is not None:
                frames.append(frame)
                self._remember(encoded)
        return frames

    def _newest(self, complete: list[bytes]) -> list[bytes]:
        """In order, the last of them that are no copies."""
        found: dict[bytes, None] = {}
        for encoded in reversed(complete):
            if len(found) == MOST_FRAMES:
                break
            if encoded and encoded not in self._seen:
                found[encoded] = None
        self.skipped_frames += sum(map(bool, complete)) - len(found)
        return list(reversed(found))

    def _remember(self, encoded: bytes) -> None:
        self._seen.add(encoded)
        self._order.append(encoded)
        if len(self._order) > REMEMBERED_FRAMES:
            self._seen.discard(self._order.popleft())


def _seed(kind: MessageType) -> int:
    return 0 if kind in UNSEEDED else SCHEMA_HASH
