"""The records of a run's journal: every input of the decisions, and every decision, in the order in which they came.

A record is a kind and a body of bytes. Bodies hold exact values (integers, doubles, raw bytes), so that two runs can be
compared bit by bit; `decode` turns one into plain data for people and for the topics of a log.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

STAMP = struct.Struct("<QqB")
"""In front of every body: number of the record, counted from 0; host time, monotonic ns; kind."""
HEAD_SIZE = struct.Struct("<I")
SAMPLE_HEAD = struct.Struct("<qiBB")
"""Device time in us, buffered ms, device state, number of joints; then int32 commanded, int32 measured, urad."""


class Kind(IntEnum):
    """What a record is. The numbers are part of the log's format."""

    HEADER = 1
    SESSION = 2
    CONTROLLER = 3
    COMMAND = 4
    CLOCK = 5
    RECEIVED = 6
    SENT = 7
    LINE_LOST = 8
    POLL = 9
    KEEP_CLOCK = 10
    STEP = 11
    RESULT = 12
    REQUEST = 13
    CHUNK = 14
    SAMPLE = 15
    DECISION = 16
    MAPPING = 17
    LOOP = 18
    BEAT = 19
    ENDED = 20
    NOTE = 21
    WORD = 22


WORDS: dict[Kind, tuple[struct.Struct, tuple[str, ...]]] = {
    Kind.CLOCK: (struct.Struct("<q"), ("now_ns",)),
    Kind.POLL: (struct.Struct("<q"), ("now_ns",)),
    Kind.KEEP_CLOCK: (struct.Struct("<qd"), ("now_ns", "slack_s")),
    Kind.STEP: (struct.Struct("<qq"), ("now_ns", "loop_tick")),
    Kind.MAPPING: (struct.Struct("<qddd"), ("at_ns", "device_us", "drift", "uncertainty_us")),
    Kind.LOOP: (struct.Struct("<qqq"), ("ticks", "late_ns", "overruns")),
}
"""Kinds whose body is a few numbers."""
ARRAYS = frozenset({Kind.RESULT, Kind.REQUEST, Kind.CHUNK})
"""Kinds whose body is a JSON head and raw arrays: a few in a second."""
RAW = frozenset({Kind.RECEIVED, Kind.SENT})
INFORMATION = frozenset({Kind.HEADER, Kind.LOOP, Kind.BEAT, Kind.ENDED, Kind.NOTE})
"""Kinds that no decision depends on."""


class Journal(Protocol):
    """Where records go: into a ring during a run, against the log in a replay."""

    def put(self, kind: Kind, body: bytes) -> None:
        """Takes one record; never waits."""


@dataclass(frozen=True)
class Record:
    """One record; `host_ns` is when it was put."""

    number: int
    host_ns: int
    kind: Kind
    body: bytes

    @staticmethod
    def unpack(data: bytes) -> Record:
        """From a stamp and a body. Raises `ValueError` for what is not a record."""
        if len(data) < STAMP.size:
            raise ValueError("a record is shorter than its stamp")
        number, host_ns, kind = STAMP.unpack_from(data)
        return Record(number, host_ns, Kind(kind), data[STAMP.size :])

    def pack(self) -> bytes:
        return STAMP.pack(self.number, self.host_ns, self.kind) + self.body


def pack_words(kind: Kind, *values: float) -> bytes:
    """The body of one of the kinds in `WORDS`."""
    return WORDS[kind][0].pack(*values)


def pack_plain(value: Any) -> bytes:
    """A body of JSON; floats survive exactly."""
    return json.dumps(value, separators=(",", ":")).encode()


def pack_arrays(head: dict[str, Any], **arrays: NDArray[Any]) -> bytes:
    """A JSON head that also names the arrays, then their bytes."""
    head["arrays"] = [(name, array.dtype.str, array.shape) for name, array in arrays.items()]
    text = pack_plain(head)
    return b"".join((HEAD_SIZE.pack(len(text)), text, *(array.tobytes() for array in arrays.values())))


def unpack_arrays(body: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Inverse of `pack_arrays`. Raises `ValueError`."""
    if len(body) < HEAD_SIZE.size:
        raise ValueError("an array record is shorter than its head")
    at = HEAD_SIZE.size + HEAD_SIZE.unpack_from(body)[0]
    head = json.loads(body[HEAD_SIZE.size : at])
    arrays = {}
    for name, dtype, shape in head.pop("arrays"):
        array = np.frombuffer(body, np.dtype(dtype), count=int(np.prod(shape)), offset=at).reshape(shape)
        arrays[name] = array
        at += array.nbytes
    return head, arrays


def pack_sample(
    device_us: int, commanded_urad: Sequence[int], measured_urad: Sequence[int], buffered_ms: int, state: int
) -> bytes:
    """The body of a sample."""
    joints = len(commanded_urad)
    head = SAMPLE_HEAD.pack(device_us, buffered_ms, state, joints)
    return head + struct.pack(f"<{2 * joints}i", *commanded_urad, *measured_urad)


def unpack_sample(body: bytes) -> dict[str, Any]:
    """Inverse of `pack_sample`. Raises `struct.error` for another length."""
    device_us, buffered_ms, state, joints = SAMPLE_HEAD.unpack_from(body)
    rows = struct.unpack(f"<{2 * joints}i", body[SAMPLE_HEAD.size :])
    return {
        "device_us": device_us,
        "commanded_urad": list(rows[:joints]),
        "measured_urad": list(rows[joints:]),
        "buffered_ms": buffered_ms,
        "state": state,
    }


def decode(kind: Kind, body: bytes) -> dict[str, Any]:
    """A body as plain data; arrays become lists, raw bytes hexadecimal digits. Raises `ValueError`, `struct.error`."""
    if kind in WORDS:
        layout, names = WORDS[kind]
        if len(body) != layout.size:
            raise ValueError(f"{kind.name}: {len(body)} bytes, not {layout.size}")
        return dict(zip(names, layout.unpack(body)))
    if kind is Kind.SAMPLE:
        return unpack_sample(body)
    if kind in RAW:
        return {"bytes": body.hex()}
    if kind in ARRAYS:
        head, arrays = unpack_arrays(body)
        return head | {name: array.tolist() for name, array in arrays.items()}
    plain = json.loads(body)
    if not isinstance(plain, dict):
        raise ValueError(f"{kind.name}: not an object")
    return plain


class RingJournal:
    """Stamps records and puts them into a ring: what a run uses."""

    def __init__(self, push: Callable[[bytes], bool], clock_ns: Callable[[], int]) -> None:
        self._push, self._clock_ns = push, clock_ns
        self._number = 0

    def put(self, kind: Kind, body: bytes) -> None:
        self._push(STAMP.pack(self._number, self._clock_ns(), kind) + body)
        self._number += 1  # also when the ring was full: the gap says how many are missing
