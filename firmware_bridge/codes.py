"""Numbers that both sides of the wire share: sizes, message types, states, reasons."""

from __future__ import annotations

import struct
from enum import IntEnum

PROTOCOL_VERSION = 1
HEADER = struct.Struct("<BHHH")
"""version << 5 | type, session, sequence, payload length."""
CRC_SIZE = 4
MAX_FRAME = 512
"""Bytes on the line, COBS code bytes and the closing delimiter included."""
MAX_PAYLOAD = MAX_FRAME - HEADER.size - CRC_SIZE - 4
"""COBS adds at most 3 bytes to a body of this length, and the delimiter is one."""
MAX_KNOTS = 50
MAX_JOINTS = 16
"""Axes of an arm, at most; two arms of one run are one. A row of any message fits a frame with twice as many."""
MAGIC = 0x4C56_4145
TICK_US = 1000
MICRO = 1e-6
"""An integer of the wire times this is in rad, rad/s or s; the wire counts in microradians and microseconds."""
MILLI = 1e-3
"""The same for limits of acceleration and jerk."""


class MessageType(IntEnum):
    """Message numbers; at most 31, since the type shares a byte with the version."""

    HELLO = 1
    CAPS = 2
    LIMITS = 3
    ARM = 4
    DISARM = 5
    CHUNK = 6
    COMMIT = 7
    HEARTBEAT = 8
    TIME_REQUEST = 9
    TIME_REPLY = 10
    STATE = 11
    ACK = 12
    NAK = 13
    STOP = 14
    ESTOP = 15
    CLEAR = 16
    EVENT = 17


class DeviceState(IntEnum):
    """States of the firmware; FAULT and ESTOP latch."""

    BOOT = 0
    SILENT = 1
    IDLE = 2
    ARMED = 3
    STREAMING = 4
    DECEL = 5
    HOLD = 6
    FAULT = 7
    ESTOP = 8


LATCHED = (DeviceState.FAULT, DeviceState.ESTOP)


class StopReason(IntEnum):
    """Why the device last stopped."""

    NONE = 0
    HOST_STOP = 1
    HEARTBEAT_LOST = 2
    BUFFER_EMPTY = 3
    TRACKING_LOST = 4
    TICK_LATE = 5
    FEEDBACK_LOST = 6
    FOLLOWING_ERROR = 7
    HOST_ESTOP = 8
    RATE_WINDOW = 9


class Refusal(IntEnum):
    """Why the device refused a message."""

    WRONG_STATE = 1
    BAD_LENGTH = 2
    WIDER_THAN_COMPILED = 3
    HEARTBEAT_MISSING = 4
    POSE_MISMATCH = 5
    OUTSIDE_LIMITS = 6
    FEEDBACK_MISSING = 7
    KNOTS_MISSING = 8
    CHUNK_CRC = 9
    KNOT_COUNT = 10
    KNOT_SPACING = 11
    LEAD_TOO_SHORT = 12
    START_TOO_FAR = 13
    POSITION = 14
    VELOCITY = 15
    ACCELERATION = 16
    SPLICE_POSITION = 17
    SPLICE_VELOCITY = 18
    GAP = 19
    BUFFER_FULL = 20
    SAME_SESSION = 21
    CAUSE_REMAINS = 22
    DRIVE_ON = 23
    UNKNOWN_TYPE = 24


class CommitFlag(IntEnum):
    """Bits of `Commit.flags`."""

    HAS_VELOCITY = 1


class StateFlag(IntEnum):
    """Bits of `StateReport.flags`."""

    DRIVE_ON = 1
    BUFFER_LOW = 2
    FEEDBACK_OK = 4


ENUMS: tuple[type[IntEnum], ...] = (MessageType, DeviceState, StopReason, Refusal, CommitFlag, StateFlag)
