"""The one description of what crosses the wire.

The C header, the byte tables of `PROTOCOL.md` and the schema hash are generated from the tables here and in
`codes.py` (`make generate`), so host and firmware cannot drift apart unnoticed. All numbers are little-endian.
Positions are int32 microradians, velocities int32 microradians per second.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Annotated, ClassVar

from firmware_bridge.codes import ENUMS, HEADER, MAX_FRAME, MAX_KNOTS, PROTOCOL_VERSION, MessageType
from firmware_bridge.layout import U8, U16, U32, U64, Item, JointRow, Packed


@dataclass(frozen=True)
class Message(Packed):
    """Base of all messages: the fields are those of the payload."""

    TYPE: ClassVar[MessageType]


@dataclass(frozen=True)
class Hello(Message):
    """Opens a session. Its layout and its CRC seed (0) never change, so any two versions can tell each other apart."""

    TYPE = MessageType.HELLO
    magic: U32
    schema: U32


@dataclass(frozen=True)
class Caps(Message):
    """Answer to HELLO, also with CRC seed 0: who the device is and what it holds."""

    TYPE = MessageType.CAPS
    magic: U32
    schema: U32
    firmware: U32
    profile: U32
    arm: Annotated[bytes, Item("16s")]
    joints: U8
    state: U8
    tick_us: U16
    max_frame: U16
    max_knots: U8
    chunk_slots: U8
    min_lead_us: U32
    heartbeat_limit_us: U32


@dataclass(frozen=True)
class Limits(Message):
    """Limits for this session; each must be as tight as the compiled one or tighter."""

    TYPE = MessageType.LIMITS
    position_min_urad: JointRow
    position_max_urad: JointRow
    velocity_urad_s: JointRow
    acceleration_mrad_s2: JointRow
    jerk_mrad_s3: JointRow


@dataclass(frozen=True)
class Arm(Message):
    """Asks to switch the drive on; `pose_urad` is where the host believes the arm to be."""

    TYPE = MessageType.ARM
    pose_urad: JointRow


@dataclass(frozen=True)
class Disarm(Message):
    """Switches the drive off, from standstill."""

    TYPE = MessageType.DISARM


@dataclass(frozen=True)
class Chunk(Message):
    """A fragment of a chunk: knots `first` onwards. A knot is q of every joint, then dq of every joint if sent."""

    TYPE = MessageType.CHUNK
    chunk: U16
    first: U8
    count: U8
    values: JointRow


@dataclass(frozen=True)
class Commit(Message):
    """Makes a chunk whole: knot i is due at `start_us + i * spacing_us`; `crc` covers all knots in order."""

    TYPE = MessageType.COMMIT
    chunk: U16
    knots: U8
    flags: U8
    start_us: U32
    spacing_us: U32
    crc: U32


@dataclass(frozen=True)
class Heartbeat(Message):
    """Carries the control loop's own tick: a live I/O thread cannot hide a loop that hangs."""

    TYPE = MessageType.HEARTBEAT
    loop_tick: U32


@dataclass(frozen=True)
class TimeRequest(Message):
    """First half of a clock exchange; `host_ns` comes back unchanged."""

    TYPE = MessageType.TIME_REQUEST
    host_ns: U64


@dataclass(frozen=True)
class TimeReply(Message):
    """Second half: device times of the request's arrival and of this reply, microseconds, modulo 2**32."""

    TYPE = MessageType.TIME_REPLY
    host_ns: U64
    received_us: U32
    sent_us: U32


@dataclass(frozen=True)
class StateReport(Message):
    """The device at one tick: state, buffer, counters since boot, commanded and measured positions."""

    TYPE = MessageType.STATE
    device_us: U32
    state: U8
    reason: U8
    flags: U8
    free_slots: U8
    chunk: U16
    buffered_ms: U16
    interventions: U32
    refusals: U16
    bad_frames: U16
    commanded_urad: JointRow
    measured_urad: JointRow


@dataclass(frozen=True)
class Ack(Message):
    """The message with this sequence number and type was carried out."""

    TYPE = MessageType.ACK
    sequence: U16
    type: U8
    state: U8


@dataclass(frozen=True)
class Nak(Message):
    """The message was refused and nothing changed; `joint` and `knot` are 255 where none is to blame."""

    TYPE = MessageType.NAK
    sequence: U16
    type: U8
    refusal: U8
    state: U8
    joint: U8
    knot: U8


@dataclass(frozen=True)
class Stop(Message):
    """Controlled stop within the compiled limits; the drive stays on."""

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
    device_us: U32
    state: U8
    reason: U8


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


SCHEMA_JOINTS = 8
"""What the description has always said of joints. It stays, and so do all frames, though devices hold more by now: how
many there are is not for a reader to know from the schema, CAPS says it, and no host connects to an arm of another
name, number of joints or profile."""


def schema_text() -> str:
    """A canonical description of everything that both sides must agree on."""
    lines = [
        f"version {PROTOCOL_VERSION} header {HEADER.format} frame {MAX_FRAME} knots {MAX_KNOTS} joints {SCHEMA_JOINTS}"
    ]
    for enum in ENUMS:
        lines += [f"{enum.__name__}.{member.name}={member.value}" for member in enum]
    for message in MESSAGES:
        layout = ",".join(f"{name}:{code}" for name, code in message.FIXED) + "|" + ",".join(message.JOINT_ROWS)
        lines.append(f"{message.TYPE.name}({layout})")
    return "\n".join(lines)


SCHEMA_HASH = zlib.crc32(schema_text().encode())
"""Seeds the CRC of every frame but HELLO and CAPS: builds that disagree cannot talk."""
