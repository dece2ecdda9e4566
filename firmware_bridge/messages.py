"""The one description of what crosses the wire.

The C header, the byte tables of `PROTOCOL.md` and the schema hash are generated from the tables here and in
`codes.py` (`make generate`), so host and firmware cannot drift apart unnoticed. All numbers are little-endian.
Positions are int32 microradians, velocities int32 microradians per second.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from firmware_bridge.codes import ENUMS, HEADER, MAX_FRAME, MAX_JOINTS, MAX_KNOTS, PROTOCOL_VERSION, MessageType


class WireError(Exception):
    """A payload that does not have the form its type demands."""


M = TypeVar("M", bound="Message")


@dataclass(frozen=True)
class Message:
    """Base of all messages: `FIXED` fields, then `JOINT_ROWS` rows of one int32 per joint."""

    TYPE: ClassVar[MessageType]
    FIXED: ClassVar[tuple[tuple[str, str], ...]] = ()
    JOINT_ROWS: ClassVar[tuple[str, ...]] = ()

    def pack(self) -> bytes:
        """The payload. Raises `WireError` when a value does not fit its field."""
        try:
            payload = struct.pack(self._codes(), *(getattr(self, name) for name, _ in self.FIXED))
            for row in self.JOINT_ROWS:
                values = getattr(self, row)
                payload += struct.pack(f"<{len(values)}i", *values)
        except struct.error as error:
            raise WireError(f"{type(self).__name__}: {error}") from None
        return payload

    @classmethod
    def unpack(cls: type[M], payload: bytes) -> M:
        """Inverse of `pack`. Raises `WireError`."""
        size = struct.calcsize(cls._codes())
        rows = len(cls.JOINT_ROWS)
        extra = len(payload) - size
        if extra < 0 or (extra and not rows) or (rows and extra % (4 * rows)):
            raise WireError(f"{cls.__name__}: {len(payload)} bytes")
        values = list(struct.unpack_from(cls._codes(), payload))
        joints = extra // (4 * rows) if rows else 0
        for row in range(rows):
            values.append(struct.unpack_from(f"<{joints}i", payload, size + 4 * joints * row))
        return cls(*values)

    @classmethod
    def payload_size(cls, joints: int) -> int:
        """Bytes of the payload with one value per joint in every joint row."""
        return struct.calcsize(cls._codes()) + 4 * joints * len(cls.JOINT_ROWS)

    @classmethod
    def _codes(cls) -> str:
        return "<" + "".join(code for _, code in cls.FIXED)


@dataclass(frozen=True)
class Hello(Message):
    """Opens a session. Its layout and its CRC seed (0) never change, so any two versions can tell each other apart."""

    TYPE = MessageType.HELLO
    FIXED = (("magic", "I"), ("schema", "I"))
    magic: int
    schema: int


@dataclass(frozen=True)
class Caps(Message):
    """Answer to HELLO, also with CRC seed 0: who the device is and what it holds."""

    TYPE = MessageType.CAPS
    FIXED = (
        ("magic", "I"),
        ("schema", "I"),
        ("firmware", "I"),
        ("profile", "I"),
        ("arm", "16s"),
        ("joints", "B"),
        ("state", "B"),
        ("tick_us", "H"),
        ("max_frame", "H"),
        ("max_knots", "B"),
        ("chunk_slots", "B"),
        ("min_lead_us", "I"),
        ("heartbeat_limit_us", "I"),
    )
    magic: int
    schema: int
    firmware: int
    profile: int
    arm: bytes
    joints: int
    state: int
    tick_us: int
    max_frame: int
    max_knots: int
    chunk_slots: int
    min_lead_us: int
    heartbeat_limit_us: int


@dataclass(frozen=True)
class Limits(Message):
    """Limits for this session; each must be as tight as the compiled one or tighter."""

    TYPE = MessageType.LIMITS
    JOINT_ROWS = (
        "position_min_urad",
        "position_max_urad",
        "velocity_urad_s",
        "acceleration_mrad_s2",
        "jerk_mrad_s3",
    )
    position_min_urad: tuple[int, ...]
    position_max_urad: tuple[int, ...]
    velocity_urad_s: tuple[int, ...]
    acceleration_mrad_s2: tuple[int, ...]
    jerk_mrad_s3: tuple[int, ...]


@dataclass(frozen=True)
class Arm(Message):
    """Asks to switch the drive on; `pose_urad` is where the host believes the arm to be."""

    TYPE = MessageType.ARM
    JOINT_ROWS = ("pose_urad",)
    pose_urad: tuple[int, ...]


@dataclass(frozen=True)
class Disarm(Message):
    """Switches the drive off, from standstill."""

    TYPE = MessageType.DISARM


@dataclass(frozen=True)
class Chunk(Message):
    """A fragment of a chunk: knots `first` onwards. A knot is q of every joint, then dq of every joint if sent."""

    TYPE = MessageType.CHUNK
    FIXED = (("chunk", "H"), ("first", "B"), ("count", "B"))
    JOINT_ROWS = ("values",)
    chunk: int
    first: int
    count: int
    values: tuple[int, ...]


@dataclass(frozen=True)
class Commit(Message):
    """Makes a chunk whole: knot i is due at `start_us + i * spacing_us`; `crc` covers all knots in order."""

    TYPE = MessageType.COMMIT
    FIXED = (("chunk", "H"), ("knots", "B"), ("flags", "B"), ("start_us", "I"), ("spacing_us", "I"), ("crc", "I"))
    chunk: int
    knots: int
    flags: int
    start_us: int
    spacing_us: int
    crc: int


@dataclass(frozen=True)
class Heartbeat(Message):
    """Carries the control loop's own tick: a live I/O thread cannot hide a loop that hangs."""

    TYPE = MessageType.HEARTBEAT
    FIXED = (("loop_tick", "I"),)
    loop_tick: int


@dataclass(frozen=True)
class TimeRequest(Message):
    """First half of a clock exchange; `host_ns` comes back unchanged."""

    TYPE = MessageType.TIME_REQUEST
    FIXED = (("host_ns", "Q"),)
    host_ns: int


@dataclass(frozen=True)
class TimeReply(Message):
    """Second half: device times of the request's arrival and of this reply, microseconds, modulo 2**32."""

    TYPE = MessageType.TIME_REPLY
    FIXED = (("host_ns", "Q"), ("received_us", "I"), ("sent_us", "I"))
    host_ns: int
    received_us: int
    sent_us: int


@dataclass(frozen=True)
class StateReport(Message):
    """The device at one tick: state, buffer, counters since boot, commanded and measured positions."""

    TYPE = MessageType.STATE
    FIXED = (
        ("device_us", "I"),
        ("state", "B"),
        ("reason", "B"),
        ("flags", "B"),
        ("free_slots", "B"),
        ("chunk", "H"),
        ("buffered_ms", "H"),
        ("interventions", "I"),
        ("refusals", "H"),
        ("bad_frames", "H"),
    )
    JOINT_ROWS = ("commanded_urad", "measured_urad")
    device_us: int
    state: int
    reason: int
    flags: int
    free_slots: int
    chunk: int
    buffered_ms: int
    interventions: int
    refusals: int
    bad_frames: int
    commanded_urad: tuple[int, ...]
    measured_urad: tuple[int, ...]


@dataclass(frozen=True)
class Ack(Message):
    """The message with this sequence number and type was carried out."""

    TYPE = MessageType.ACK
    FIXED = (("sequence", "H"), ("type", "B"), ("state", "B"))
    sequence: int
    type: int
    state: int


@dataclass(frozen=True)
class Nak(Message):
    """The message was refused and nothing changed; `joint` and `knot` are 255 where none is to blame."""

    TYPE = MessageType.NAK
    FIXED = (("sequence", "H"), ("type", "B"), ("refusal", "B"), ("state", "B"), ("joint", "B"), ("knot", "B"))
    sequence: int
    type: int
    refusal: int
    state: int
    joint: int
    knot: int


@dataclass(frozen=True)
class Stop(Message):
    """Controlled stop within the session's limits; the drive stays on."""

    TYPE = MessageType.STOP


@dataclass(frozen=True)
class Estop(Message):
    """Emergency stop: fastest stop within the compiled limits, then drive off; accepted from any session, latches."""

    TYPE = MessageType.ESTOP


@dataclass(frozen=True)
class Clear(Message):
    """Leaves FAULT or ESTOP for IDLE: needs a new session, the cause gone and the drive measured off."""

    TYPE = MessageType.CLEAR


@dataclass(frozen=True)
class Event(Message):
    """Sent at every change of state."""

    TYPE = MessageType.EVENT
    FIXED = (("device_us", "I"), ("state", "B"), ("reason", "B"))
    device_us: int
    state: int
    reason: int


MESSAGES: tuple[type[Message], ...] = (
    Hello,
    Caps,
    Limits,
    Arm,
    Disarm,
    Chunk,
    Commit,
    Heartbeat,
    TimeRequest,
    TimeReply,
    StateReport,
    Ack,
    Nak,
    Stop,
    Estop,
    Clear,
    Event,
)
BY_TYPE = {message.TYPE: message for message in MESSAGES}


def schema_text() -> str:
    """A canonical description of everything that both sides must agree on."""
    lines = [
        f"version {PROTOCOL_VERSION} header {HEADER.format} frame {MAX_FRAME} knots {MAX_KNOTS} joints {MAX_JOINTS}"
    ]
    for enum in ENUMS:
        lines += [f"{enum.__name__}.{member.name}={member.value}" for member in enum]
    for message in MESSAGES:
        layout = ",".join(f"{name}:{code}" for name, code in message.FIXED) + "|" + ",".join(message.JOINT_ROWS)
        lines.append(f"{message.TYPE.name}({layout})")
    return "\n".join(lines)


SCHEMA_HASH = zlib.crc32(schema_text().encode())
"""Seeds the CRC of every frame but HELLO and CAPS: builds that disagree cannot talk."""
