"""Authenticated datagrams: what each end of a network line makes of the frames that it sends and of what arrives.

Nothing here reads a clock or a socket. A datagram bears a tag, BLAKE2b keyed with what both ends were given (RFC 7693);
it is authenticated and not encrypted. Four of them open a line, `OPEN`, `ANSWER`, `CONFIRM` and `READY`: each end draws
a number that has not been used before, and the key of the session is made of both, so that nothing that was recorded
opens a line or passes in another session. Within a session a datagram counts; each passes once, in any order within the
last 64, as datagrams overtake each other. Whole frames travel in one, so that one that is lost damages no other.

    OPEN, ANSWER, CONFIRM, READY, BUSY   magic 3, kind 1, host's number 16, device's number 16, tag 16
    TO_DEVICE, TO_HOST                   magic 3, kind 1, count 8 (little-endian), frames, tag 16

Without a key the tag is a checksum. Such a line does not leave the computer (`network.py`).
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b
from hmac import compare_digest
from pathlib import Path
from typing import Any, TypeAlias

from firmware_bridge.codes import MAX_FRAME, MessageType
from firmware_bridge.errors import PortError
from firmware_bridge.framing import type_of
from firmware_bridge.reading import ReadError, read_bytes

Address: TypeAlias = "tuple[Any, ...] | None"
"""Where a datagram came from, or is to go; None at an end that has but one other."""
MAGIC = b"VN1"
NUMBER_SIZE, COUNT_SIZE, TAG_SIZE = 16, 8, 16
HEAD_SIZE = len(MAGIC) + 1
OPENING_SIZE = HEAD_SIZE + 2 * NUMBER_SIZE + TAG_SIZE
LEAST_DATA_SIZE = HEAD_SIZE + COUNT_SIZE + TAG_SIZE
MOST_FRAMES_SIZE = 1200
"""Of the frames in one datagram, which then fits into any link's packet."""
WINDOW = 64
AGAIN_NS = 100_000_000
"""An opening datagram without an answer is sent again after this time."""
SILENT_NS = 1_000_000_000
"""A host that has not been heard for so long has left: another one may open the line."""
LEAST_KEY, MOST_KEY = 16, 1024
NO_NUMBER = bytes(NUMBER_SIZE)
NEVER_LATE = frozenset(
    {MessageType.HELLO, MessageType.LIMITS, MessageType.ARM, MessageType.HEARTBEAT, MessageType.CLEAR}
)
"""What counts only in the order in which it was sent: held back on the way, an old heartbeat would keep an arm moving
whose host has gone, and an old ARM would switch it on again. Chunks say when they are due; a stop is never too late."""


class Kind(IntEnum):
    """What a datagram is for."""

    OPEN = 1
    ANSWER = 2
    CONFIRM = 3
    READY = 4
    BUSY = 5
    TO_DEVICE = 6
    TO_HOST = 7


TO_DEVICE_HEAD = MAGIC + bytes([Kind.TO_DEVICE])


def read_key(path: Path) -> bytes:
    """The key of a line, from a file that its owner alone can read. Raises `PortError`."""
    try:
        secret = read_bytes(path, 1 << 16).strip()
        rights = stat.S_IMODE(path.stat().st_mode)
    except (ReadError, OSError) as error:
        raise PortError(f"key file {path}: {error}") from None
    if rights & 0o077:
        raise PortError(f"key file {path}: others can read or write it; chmod 600 {path}, and make a new key")
    if not LEAST_KEY <= len(secret) <= MOST_KEY:
        raise PortError(
            f"key file {path}: a key has {LEAST_KEY} to {MOST_KEY} bytes, not {len(secret)}; make one with "
            f"(umask 077; head -c 32 /dev/urandom | base64 > {path})"
        )
    return blake2b(secret, digest_size=32, person=b"vla-edge key").digest()


def tag_of(key: bytes, data: bytes) -> bytes:
    """The tag that stands behind `data`."""
    return blake2b(data, key=key, digest_size=TAG_SIZE).digest()


def tagged(key: bytes, data: bytes) -> bytes:
    """`data` with its tag behind it."""
    return data + tag_of(key, data)


def is_authentic(key: bytes, datagram: bytes) -> bool:
    """Whether the tag is that of what stands before it."""
    return compare_digest(tag_of(key, datagram[:-TAG_SIZE]), datagram[-TAG_SIZE:])


@dataclass
class Counts:
    """What became of the datagrams that arrived."""

    passed: int = 0
    forged: int = 0
    """Of another key, or damaged on the way."""
    replayed: int = 0
    """Seen before, or more than 64 behind the newest."""
    foreign: int = 0
    """Of no such line, of a session that is over, from another address."""

    late: int = 0
    """Sound, and overtaken, with what must not be late in it."""


class Window:
    """Which of the last `WINDOW` counts have passed."""

    def __init__(self) -> None:
        self._newest = -1
        self._seen = 0
        self.is_overtaken = False
        """Whether the last one taken is older than the newest."""

    def takes(self, count: int) -> bool:
        """Whether this count is new; it is not the next time."""
        ahead = count - self._newest
        self.is_overtaken = ahead < 0
        if ahead > 0:
            self._seen = (self._seen << min(ahead, WINDOW) | 1) & ((1 << WINDOW) - 1)
            self._newest = count
            return True
        bit = 1 << -ahead
        if -ahead >= WINDOW or self._seen & bit:
            return False
        self._seen |= bit
        return True


class Session:
    """One end of an open line."""

    def __init__(self, key: bytes, numbers: bytes, sends: Kind, takes: Kind, counts: Counts) -> None:
        self._key = blake2b(numbers, key=key, digest_size=32, person=b"vla-edge session").digest()
        self._sends, self._takes = MAGIC + bytes([sends]), MAGIC + bytes([takes])
        self._count = 0
        self._window = Window()
        self._counts = counts
        self.is_overtaken = False
        """Whether the last one that passed is older than another one that had passed before."""

    def seal(self, frames: bytes) -> bytes:
        """The datagram that carries these frames."""
        count = self._count.to_bytes(COUNT_SIZE, "little")
        self._count += 1
        return tagged(self._key, self._sends + count + frames)

    def open(self, datagram: bytes) -> bytes:
        """The frames in it; none when it is not to be trusted, which is counted."""
        counts = self._counts
        if len(datagram) < LEAST_DATA_SIZE or datagram[:HEAD_SIZE] != self._takes:
            counts.foreign += 1
        elif not is_authentic(self._key, datagram):
            counts.forged += 1
        elif not self._window.takes(int.from_bytes(datagram[HEAD_SIZE : HEAD_SIZE + COUNT_SIZE], "little")):
            counts.replayed += 1
        else:
            counts.passed += 1
            self.is_overtaken = self._window.is_overtaken
            return datagram[HEAD_SIZE + COUNT_SIZE : -TAG_SIZE]
        return b""


@dataclass(frozen=True)
class Opening:
    """A datagram that opens a line."""

    kind: Kind
    host: bytes
    device: bytes = NO_NUMBER

    def pack(self, key: bytes) -> bytes:
        return tagged(key, MAGIC + bytes([self.kind]) + self.host + self.device)

    @staticmethod
    def read(key: bytes, datagram: bytes, counts: Counts) -> Opening | None:
        """None when it is none, or not to be trusted, which is counted."""
        known = len(datagram) == OPENING_SIZE and datagram[: len(MAGIC)] == MAGIC
        if not known or not Kind.OPEN <= datagram[len(MAGIC)] <= Kind.BUSY:
            counts.foreign += 1
            return None
        if not is_authentic(key, datagram):
            counts.forged += 1
            return None
        host, device = HEAD_SIZE, HEAD_SIZE + NUMBER_SIZE
        return Opening(Kind(datagram[len(MAGIC)]), datagram[host:device], datagram[device:-TAG_SIZE])


class HostEnd:
    """The end that opens the line: sends `OPEN`, then `CONFIRM`, until the device is `READY`."""

    def __init__(self, key: bytes, number: bytes) -> None:
        self.counts = Counts()
        self.is_busy = False
        """Whether the device has said that another host has the line."""
        self.session: Session | None = None
        self._key, self._asks = key, Opening(Kind.OPEN, number)
        self._due_ns: int | None = None

    def asks(self, now_ns: int) -> bytes:
        """What is to be sent now to open the line; nothing when it is open, or while an answer may still come."""
        if self.session is not None or (self._due_ns is not None and now_ns < self._due_ns):
            return b""
        self._due_ns = now_ns + AGAIN_NS
        return self._asks.pack(self._key)

    def take(self, datagram: bytes) -> bytes:
        """The frames in it; it may open the line as well."""
        if self.session is not None:
            return self.session.open(datagram)
        opening = Opening.read(self._key, datagram, self.counts)
        if opening is None:
            return b""
        if opening.host != self._asks.host:
            self.counts.replayed += 1
        elif opening.kind == Kind.ANSWER and self._asks.kind == Kind.OPEN:
            self._asks = Opening(Kind.CONFIRM, opening.host, opening.device)
            self._due_ns = None
        elif opening.kind == Kind.READY and opening.device == self._asks.device:
            numbers = opening.host + opening.device
            self.session = Session(self._key, numbers, Kind.TO_DEVICE, Kind.TO_HOST, self.counts)
        elif opening.kind == Kind.BUSY:
            self.is_busy = True
        return b""


class DeviceEnd:
    """The end that is opened. It has one host at a time, the first, until that has been silent for `SILENT_NS`."""

    def __init__(self, key: bytes, draw_number: Callable[[], bytes]) -> None:
        self.counts = Counts()
        self.session: Session | None = None
        self.address: Address = None
        """Of the host."""
        self._key, self._draw = key, draw_number
        self._number = draw_number()
        """The next session's, known to whoever asks; used once."""
        self._numbers = (NO_NUMBER, NO_NUMBER)
        self._heard_ns = 0

    def take(self, datagram: bytes, address: Address, now_ns: int) -> tuple[bytes, bytes]:
        """The frames in it, and what is to be sent back to `address`."""
        if self.session is not None and address == self.address and datagram[:HEAD_SIZE] == TO_DEVICE_HEAD:
            passed = self.counts.passed
            frames = self.session.open(datagram)
            if self.counts.passed == passed:
                return b"", b""
            self._heard_ns = now_ns
            if self.session.is_overtaken and any(type_of(frame) in NEVER_LATE for frame in frames.split(b"\0")):
                self.counts.late += 1
                return b"", b""
            return frames, b""
        opening = Opening.read(self._key, datagram, self.counts)
        return b"", self._answer(opening, address, now_ns) if opening is not None else b""

    def _answer(self, asked: Opening, address: Address, now_ns: int) -> bytes:
        if asked.kind == Kind.OPEN:
            return Opening(Kind.ANSWER, asked.host, self._number).pack(self._key)
        if asked.kind != Kind.CONFIRM:
            self.counts.replayed += 1
            return b""
        if (asked.host, asked.device) == self._numbers and address == self.address:
            return Opening(Kind.READY, asked.host, asked.device).pack(self._key)  # the first one was lost
        if asked.device != self._number:
            self.counts.replayed += 1
            return b""
        if self.session is not None and now_ns - self._heard_ns < SILENT_NS:
            return Opening(Kind.BUSY, asked.host, asked.device).pack(self._key)
        self.address, self._heard_ns, self._number = address, now_ns, self._draw()
        self._numbers = (asked.host, asked.device)
        self.session = Session(self._key, asked.host + asked.device, Kind.TO_HOST, Kind.TO_DEVICE, self.counts)
        return Opening(Kind.READY, asked.host, asked.device).pack(self._key)


class Packer:
    """Cuts a stream of frames where a datagram is full; the beginning of a frame waits for its end."""

    def __init__(self) -> None:
        self._rest = b""

    def pack(self, data: bytes) -> list[bytes]:
        """Whole frames, as many to a datagram as it holds; what is too long for a frame goes as it is."""
        data = self._rest + data
        parts = []
        first = 0
        while (end := data.rfind(b"\0", first, first + MOST_FRAMES_SIZE) + 1) > 0:
            parts.append(data[first:end])
            first = end
        self._rest = data[first:]
        if len(self._rest) > MAX_FRAME:
            parts.append(self._rest)
            self._rest = b""
        return parts
