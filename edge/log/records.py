"""The records of a run's journal: every input of the decisions, and every decision, in the order in which they came.

A record is a kind and a body of bytes. Bodies hold exact values (integers, doubles, raw bytes), so that two runs can be
compared bit by bit. Each is described once, by the fields of its class; the messages of a log's topics and the replay
read it through that class.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from enum import IntEnum
from typing import Annotated, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge.inference.layout import Described, parse_table
from edge.inference.records import PlanRequest, PlanResult
from firmware_bridge.layout import Item, JointRow, Packed

STAMP = struct.Struct("<QqB")
"""In front of every body: number of the record, counted from 0; host time, monotonic ns; kind."""


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
    CONTROL_CALL = 22


HostTime = Annotated[int, Item("q", "host time, monotonic, ns")]


@dataclass(frozen=True)
class Clock(Packed):
    """A reading of the host's clock."""

    now_ns: HostTime


@dataclass(frozen=True)
class Poll(Packed):
    """The client looks what has arrived."""

    now_ns: HostTime


@dataclass(frozen=True)
class KeepClock(Packed):
    """The client may compare the clocks."""

    now_ns: HostTime
    slack_s: Annotated[float, Item("d", "time to spare, s")]


@dataclass(frozen=True)
class Step(Packed):
    """Control begins a step."""

    now_ns: HostTime
    loop_tick: Annotated[int, Item("q", "of the control loop, from 1")]


@dataclass(frozen=True)
class Mapping(Packed):
    """The host's estimate of the device's clock, after an exchange of clocks."""

    at_ns: HostTime
    device_us: Annotated[float, Item("d", "device time then, unwrapped, us")]
    drift: Annotated[float, Item("d", "of the device's clock against the host's, a share")]
    uncertainty_us: Annotated[float, Item("d", "bound of the error, us")]


@dataclass(frozen=True)
class Loop(Packed):
    """A tick of the control loop."""

    ticks: Annotated[int, Item("q", "of the control loop")]
    late_ns: Annotated[int, Item("q", "how long after its deadline this tick began, ns")]
    overruns: Annotated[int, Item("q", "ticks missed so far")]


@dataclass(frozen=True)
class Sample(Packed):
    """What a state report of the device brought."""

    device_us: Annotated[int, Item("q", "device time, unwrapped, us")]
    buffered_ms: Annotated[int, Item("i", "motion that the device still holds, ms")]
    state: Annotated[int, Item("B", "device state, its number")]
    joints: Annotated[int, Item("B", "how many")]
    commanded_urad: JointRow
    measured_urad: JointRow


@dataclass(frozen=True)
class ProposedChunk(Described):
    """A chunk on its way to the device."""

    chunk: Annotated[int, Item("<i8", "id on the wire")]
    start_us: Annotated[int, Item("<i8", "first knot, device time modulo 2^32, us")]
    spacing_us: Annotated[int, Item("<i8", "between knots, us")]
    q_urad: Annotated[NDArray[np.int32], Item("<i4", "knots, microradians", ("knots", "joints"))]
    dq_urad_s: Annotated[NDArray[np.int32], Item("<i4", "knots, microradians per second", ("knots", "joints"))]


@dataclass(frozen=True)
class SessionOpened(Described):
    """The number of the session with the device."""

    session: Annotated[int, Item("<i8", "drawn at random")]


@dataclass(frozen=True)
class DeviceCall(Described):
    """A method of the client that is called."""

    command: Annotated[str, Item("json", "of the host to the device")]
    arguments: Annotated[list[Any], Item("json", "as given")]


@dataclass(frozen=True)
class ControlCall(Described):
    """A method of the controller that is called from outside of its step; `word` is its name."""

    word: Annotated[str, Item("json", "of the controller")]
    arguments: Annotated[list[Any], Item("json", "as given")]


@dataclass(frozen=True)
class LineLost(Described):
    """The line to the device broke."""

    text: Annotated[str, Item("json", "what the system reports")]


@dataclass(frozen=True)
class Beat(Described):
    """A sign of life of the inference process."""

    phase: Annotated[int, Item("<i8", "of the inference process")]
    beat: Annotated[int, Item("<i8", "its counter")]


RECORDS: dict[Kind, type[Packed] | type[Described]] = {
    Kind.SESSION: SessionOpened,
    Kind.COMMAND: DeviceCall,
    Kind.CLOCK: Clock,
    Kind.LINE_LOST: LineLost,
    Kind.POLL: Poll,
    Kind.KEEP_CLOCK: KeepClock,
    Kind.STEP: Step,
    Kind.RESULT: PlanResult,
    Kind.REQUEST: PlanRequest,
    Kind.CHUNK: ProposedChunk,
    Kind.SAMPLE: Sample,
    Kind.MAPPING: Mapping,
    Kind.LOOP: Loop,
    Kind.BEAT: Beat,
    Kind.CONTROL_CALL: ControlCall,
}
"""The class of each kind's body. `RAW` bodies are bytes, all others a JSON object with keys of its own."""
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


def unpack(kind: Kind, body: bytes) -> Any:
    """A body as its record; bytes of a `RAW` one, a dictionary of a free one. Raises `ValueError`, `TypeError`."""
    if kind in RAW:
        return body
    if kind in RECORDS:
        return RECORDS[kind].unpack(body)
    return parse_table(body)


def decode(kind: Kind, body: bytes) -> dict[str, Any]:
    """A body as plain data: arrays become lists, raw bytes hexadecimal digits. Raises `ValueError`, `TypeError`."""
    record = unpack(kind, body)
    if isinstance(record, bytes):
        return {"bytes": record.hex()}
    if is_dataclass(record):
        return {field.name: listed(getattr(record, field.name)) for field in fields(record)}
    return dict(record)


def listed(value: Any) -> Any:
    """A value with lists for arrays and tuples."""
    return value.tolist() if isinstance(value, np.ndarray) else list(value) if isinstance(value, tuple) else value


class RingJournal:
    """Stamps records and puts them into a ring: what a run uses."""

    def __init__(self, push: Callable[[bytes], bool], clock_ns: Callable[[], int]) -> None:
        self._push, self._clock_ns = push, clock_ns
        self._number = 0

    def put(self, kind: Kind, body: bytes) -> None:
        self._push(STAMP.pack(self._number, self._clock_ns(), kind) + body)
        self._number += 1  # also when the ring was full: the gap says how many are missing
