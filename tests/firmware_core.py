"""The core's functions and structures for tests that call them one by one, through ctypes.

`fresh` gives a structure whose every byte, padding included, holds a pattern: what a function forgets to write, or
writes where it should not, shows.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import TypeVar

from firmware_bridge.codes import MAX_FRAME, MAX_JOINTS, MAX_KNOTS
from firmware_bridge.constants import CHUNK_SLOTS, WINDOW_SAMPLES
from firmware_bridge.native import build, load
from firmware_bridge.replay import JointState

POISON = 0xA5
CHANNELS, TRANSMIT_SIZE = 2, 2048
"""VE_CHANNELS and VE_TRANSMIT_SIZE."""
Row = ctypes.c_double * MAX_JOINTS
IntRow = ctypes.c_int32 * MAX_JOINTS
S = TypeVar("S", bound=ctypes.Structure)
u8, u16, u32, u64, flag = ctypes.c_uint8, ctypes.c_uint16, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_bool


class Frame(ctypes.Structure):
    """`ve_frame_t`."""

    _fields_ = (
        ("type", u8),
        ("session", u16),
        ("sequence", u16),
        ("length", u16),
        ("payload", ctypes.POINTER(u8)),
    )


class Reader(ctypes.Structure):
    """`ve_frame_reader_t`."""

    _fields_ = (("bytes", u8 * MAX_FRAME), ("count", u16), ("bad_frames", u32))


class Limits(ctypes.Structure):
    """`ve_limits_t`."""

    _fields_ = tuple((name, Row) for name in ("position_min", "position_max", "velocity", "acceleration", "jerk"))


class Edges(ctypes.Structure):
    """`ve_edges_t`."""

    _fields_ = tuple((name, Row) for name in ("offset", "slope", "low", "high"))


class Profile(ctypes.Structure):
    """`ve_profile_t`."""

    _fields_ = (
        ("name", ctypes.c_char * 16),
        ("joints", u8),
        ("hash", u32),
        ("limits", Limits),
        ("following", Row),
        ("edges", Edges),
    )


class Knot(ctypes.Structure):
    """`ve_knot_t`."""

    _fields_ = (("q", IntRow), ("dq", IntRow))


class Chunk(ctypes.Structure):
    """`ve_chunk_t`."""

    _fields_ = (("id", u16), ("knots", u8), ("start_us", u64), ("spacing_us", u32), ("knot", Knot * MAX_KNOTS))


class Plan(ctypes.Structure):
    """`ve_plan_t`."""

    _fields_ = (
        ("joints", u8),
        ("slot", Chunk * CHUNK_SLOTS),
        ("chain", u8 * (CHUNK_SLOTS - 1)),
        ("chained", u8),
        ("staging", u8),
        ("staged", u64),
        ("staged_with_dq", flag),
    )


class PlanPoint(ctypes.Structure):
    """`ve_plan_point_t`."""

    _fields_ = (("q", Row), ("dq", Row), ("ended", flag))


class Commit(ctypes.Structure):
    """`ve_commit_t`."""

    _fields_ = (
        ("chunk", u16),
        ("knots", u8),
        ("has_velocity", flag),
        ("start_us", u64),
        ("spacing_us", u32),
        ("crc", u32),
    )


class Verdict(ctypes.Structure):
    """`ve_verdict_t`."""

    _fields_ = (("refusal", u8), ("joint", u8), ("knot", u8))


class Window(ctypes.Structure):
    """`ve_window_t`."""

    _fields_ = (("count", u8), ("next", u8), ("time_us", u64 * WINDOW_SAMPLES), ("q", Row * WINDOW_SAMPLES))


class Inputs(ctypes.Structure):
    """`ve_inputs_t`."""

    _fields_ = (("now_us", u64), ("measured", Row), ("feedback_ok", flag), ("drive_is_on", flag))


class Outputs(ctypes.Structure):
    """`ve_outputs_t`."""

    _fields_ = (("set_point", Row), ("velocity", Row), ("drive_enable", flag))


class Device(ctypes.Structure):
    """`ve_device_t`."""

    _fields_ = (
        ("profile", ctypes.POINTER(Profile)),
        ("firmware_hash", u32),
        ("state", u8),
        ("reason", u8),
        ("session", u16),
        ("latched_session", u16),
        ("sequence", u16),
        ("has_session", flag),
        ("drive_enable", flag),
        ("drive_commanded_on", flag),
        ("inputs", Inputs),
        ("last_tick_us", u64),
        ("ticked", flag),
        ("ticks", u32),
        ("limits", Limits),
        ("plan", Plan),
        ("last_commit", u16),
        ("has_commit", flag),
        ("joint", JointState * MAX_JOINTS),
        ("window", Window),
        ("heartbeat_tick", u32),
        ("heartbeat_us", u64),
        ("has_heartbeat", flag),
        ("interventions", u32),
        ("refusals", u32),
        ("reader", Reader * CHANNELS),
        ("transmit", u8 * TRANSMIT_SIZE),
        ("transmit_count", u16),
        ("transmit_dropped", u32),
    )


def fresh(kind: type[S]) -> S:
    """A structure full of the pattern."""
    return kind.from_buffer(bytearray([POISON]) * ctypes.sizeof(kind))


@cache
def core() -> ctypes.CDLL:
    """The core as a shared library, its functions typed."""
    at, number = ctypes.c_void_p, ctypes.c_double
    signatures = {
        "ve_frame_reader_push": (flag, at, u8, at),
        "ve_frame_encode": (u16, at, u8, u16, u16, ctypes.c_char_p, u16),
        "ve_plan_init": (None, at, u8),
        "ve_plan_clear": (None, at),
        "ve_plan_stage": (Verdict, at, u16, u8, u8, ctypes.c_char_p, u16),
        "ve_plan_commit": (Verdict, at, at, at, at, u64),
        "ve_plan_at": (flag, at, u64, at),
        "ve_plan_finish": (None, at),
        "ve_plan_retire": (None, at, u64),
        "ve_plan_chunk_at": (u16, at, u64),
        "ve_plan_buffered_us": (u64, at, u64),
        "ve_plan_free_slots": (u8, at),
        "ve_window_clear": (None, at),
        "ve_window_add": (None, at, at, u8, u64),
        "ve_window_holds": (flag, at, at, at, u8, u64),
        "ve_stop_acceleration": (number, at, at, number),
        "ve_stop_reach": (number, number, number, at, number),
        "ve_limiter_stop": (None, at, at, number),
        "ve_limiter_follow": (flag, at, number, number, at, number),
        "ve_joint_at_rest": (flag, at),
        "ve_device_init": (None, at, at, u32, at),
        "ve_device_receive": (None, at, u8, u8, u64),
        "ve_device_tick": (None, at, at, at),
        "ve_device_transmit": (u16, at, at, u16),
    }
    return load(build().library, signatures)
