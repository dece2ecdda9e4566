"""The topics of a log: for each its records, and of every field the JSON type, the meaning and the value.

Where a message shows a field of a record as it is, type and meaning are those of the record's own description.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from typing import Any

import numpy as np

from edge.inference.records import Outcome, Phase, PlanRequest, PlanResult
from edge.log import records as rec
from edge.log.records import Kind, Record, listed, unpack
from edge.log.seen import Seen
from firmware_bridge.codes import MICRO, DeviceState
from firmware_bridge.layout import Item, items_of

INTEGER, NUMBER, STRING, BOOLEAN, OBJECT = ("integer", "number", "string", "boolean", "object")
ROW, TABLE = "row", "table"
"""Lists of numbers, and of rows of numbers; null stands for a number that is not finite."""
Message = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Shown:
    """A field of a message: its JSON type, its meaning with the unit, and its value from a record."""

    kind: str
    text: str
    value: Callable[[Any, Seen], Any] = lambda record, seen: None


@dataclass(frozen=True)
class Topic:
    """The kinds of record of which each makes a message, if `when` holds, and the fields of the message in order."""

    kinds: tuple[Kind, ...]
    fields: dict[str, Shown]
    when: Callable[[Any, Seen], bool] = lambda record, seen: True


def same(record: type, *names: str) -> dict[str, Shown]:
    """Fields that are shown as the record has them."""
    return {name: _shown(items_of(record)[name], attrgetter(name)) for name in names}


def _shown(item: Item, value: Callable[[Any], Any]) -> Shown:
    code = item.code.lstrip("<")[0]
    kind = STRING if code in "Sj" else NUMBER if code in "fd" else INTEGER
    return Shown((kind, ROW, TABLE)[len(item.shape)], item.text, lambda record, _: finite(value(record)))


def finite(value: Any) -> Any:
    """Lists for arrays, with null for what JSON has no number for."""
    if isinstance(value, np.ndarray) and not np.isfinite(value).all():
        boxed = value.astype(object)
        boxed[~np.isfinite(value)] = None
        return boxed.tolist()
    return listed(value)


def _position(name: str) -> dict[str, Shown]:
    def radians(sample: rec.Sample, seen: Seen) -> list[float]:
        return [round(urad * MICRO, 6) for urad in getattr(sample, name)]

    return {"position_rad": Shown(ROW, "rad, one per joint, at device_us", radians)}


def _engine_ms(result: PlanResult, seen: Seen) -> list[float]:
    return [time_ns / 1e6 for time_ns in result.engine_ns.tolist()]


def _state_name(sample: rec.Sample, seen: Seen) -> str:
    return DeviceState(sample.state).name if sample.state in set(DeviceState) else str(sample.state)


def _outcome(result: PlanResult, seen: Seen) -> str:
    """Its name; logs have had WAY for HOMING since version 0.1.0."""
    return "WAY" if result.outcome is Outcome.HOMING else result.outcome.name


def _not_finite(result: PlanResult, seen: Seen) -> int:
    return int(np.count_nonzero(~np.isfinite(result.rows_rad)))


def _decision(record: Any, seen: Seen) -> str:
    if isinstance(record, dict):
        return str(record["decision"])
    return record.word if isinstance(record, rec.ControlCall) else "line lost"


def _details(record: Any, seen: Seen) -> dict[str, Any]:
    if isinstance(record, dict):
        return {name: value for name, value in record.items() if name != "decision"}
    return {"text": record.text} if isinstance(record, rec.LineLost) else {"arguments": record.arguments}


def _base64(record: bytes, seen: Seen) -> str:
    return b64encode(record).decode("ascii")


def _frames(record: bytes, seen: Seen) -> list[str]:
    return seen.frames


HOST_NS = Shown(INTEGER, "host time, monotonic, ns", lambda _, seen: seen.host_ns)
DEVICE_US = Shown(NUMBER, "device time, unwrapped, us; -1 before the clocks agree", lambda _, seen: seen.device_us)
COMMON = {"host_ns": HOST_NS, "device_us": DEVICE_US}
"""In every message of every topic but `/journal` and `/log`."""
HEADER = "versions, arm, task, seeds, settings, hashes of the bundle, time anchors"
MADE_FROM = "arm profile, policy shape and settings that the controller was made from"
LATE = "how long after its deadline this tick began, us"
TO_CHUNK = "from the request to the moment control took the result, ms"

TOPICS: dict[str, Topic] = {
    "/run": Topic((Kind.HEADER,), {"header": Shown(OBJECT, HEADER, lambda header, _: header)}),
    "/control": Topic((Kind.CONTROLLER,), {"made_from": Shown(OBJECT, MADE_FROM, lambda made_from, _: made_from)}),
    "/joints/commanded": Topic((Kind.SAMPLE,), _position("commanded_urad")),
    "/joints/measured": Topic((Kind.SAMPLE,), _position("measured_urad")),
    "/buffer": Topic((Kind.SAMPLE,), same(rec.Sample, "buffered_ms")),
    "/state": Topic(
        (Kind.SAMPLE,), same(rec.Sample, "state") | {"name": Shown(STRING, "device state, its name", _state_name)}
    ),
    "/plan/request": Topic(
        (Kind.REQUEST,),
        same(
            PlanRequest,
            "id",
            "step",
            "states_rad",
            "actions_rad",
            "mask",
            "prefix_rad",
            "measured_rad",
            "commanded_rad",
        ),
    ),
    "/plan/result": Topic(
        (Kind.RESULT,),
        same(PlanResult, "id")
        | {"outcome": Shown(STRING, "CHUNK, FAILED, PAUSED or WAY (home)", _outcome)}
        | same(PlanResult, "message", "increments_rad", "goals_rad")
        | {"not_finite": Shown(INTEGER, "numbers that are NaN or infinite", _not_finite)},
    ),
    "/latency": Topic(
        (Kind.RESULT,),
        same(PlanResult, "id")
        | {"observation_to_chunk_ms": Shown(NUMBER, TO_CHUNK, lambda result, seen: seen.waited_ms(result.id))}
        | {"camera_ms": Shown(NUMBER, "ms", lambda result, _: result.camera_ns / 1e6)}
        | {"engine_ms": Shown(ROW, "each of the policy's engines, in their order, ms", _engine_ms)},
        when=lambda result, seen: result.id in seen.sent_ns,
    ),
    "/chunks": Topic((Kind.CHUNK,), same(rec.ProposedChunk, *items_of(rec.ProposedChunk))),
    "/decisions": Topic(
        (Kind.DECISION, Kind.NOTE, Kind.CONTROL_CALL, Kind.LINE_LOST),
        {
            "decision": Shown(STRING, "what was decided", _decision),
            "details": Shown(OBJECT, "its numbers and its reason", _details),
        },
    ),
    "/commands": Topic(
        (Kind.COMMAND,),
        same(rec.DeviceCall, "command")
        | {"arguments": Shown(OBJECT, "as given", lambda call, _: {str(i): v for i, v in enumerate(call.arguments)})},
    ),
    "/loop": Topic(
        (Kind.LOOP,),
        same(rec.Loop, "ticks")
        | {"late_us": Shown(NUMBER, LATE, lambda loop, _: loop.late_ns / 1000)}
        | same(rec.Loop, "overruns"),
    ),
    "/clock": Topic(
        (Kind.MAPPING,),
        {
            "offset_us": Shown(NUMBER, "device minus host clock, us", lambda at, _: at.device_us - at.at_ns / 1000),
            "drift_ppm": Shown(NUMBER, "of the device clock against the host's, ppm", lambda at, _: at.drift * 1e6),
        }
        | same(rec.Mapping, "uncertainty_us"),
    ),
    "/inference": Topic(
        (Kind.BEAT,),
        {"phase": Shown(STRING, "of the inference process", lambda beat, _: Phase(beat.phase).name)}
        | same(rec.Beat, "beat"),
    ),
    "/wire/received": Topic(
        (Kind.RECEIVED,),
        {
            "data": Shown(STRING, "bytes of one read, base64; frames are cut anywhere", _base64),
            "frames": Shown(ROW, "types of the frames that end here", _frames),
            "bad_frames": Shown(INTEGER, "damaged so far", lambda _, seen: seen.bad_frames),
        },
    ),
    "/wire/sent": Topic(
        (Kind.SENT,),
        {"data": Shown(STRING, "one frame, base64", _base64), "frames": Shown(ROW, "its type", _frames)},
    ),
    "/report": Topic((Kind.ENDED,), {"report": Shown(OBJECT, "the run's report, as in run.json", lambda end, _: end)}),
    "/journal": Topic(
        (), {"records": Shown(STRING, "records as they left the loop, base64; each: u32 length, stamp, body")}
    ),
    "/log": Topic(
        (),
        {
            "records": Shown(INTEGER, "written so far"),
            "missing": Shown(INTEGER, "found no room in the ring so far"),
            "complete": Shown(BOOLEAN, "whether the run has ended in order"),
        },
    ),
}
OF_KIND = {kind: [name for name, topic in TOPICS.items() if kind in topic.kinds] for kind in Kind}


class Messages:
    """From the records of a journal to the messages that people look at: a function of the records alone."""

    def __init__(self) -> None:
        self._seen = Seen()

    def of(self, record: Record) -> list[Message]:
        """The messages of one record, each as topic and content."""
        topics = OF_KIND[record.kind]
        if not topics:
            return []
        body = unpack(record.kind, record.body)
        self._seen.take(record, body)
        return [
            (name, {field: shown.value(body, self._seen) for field, shown in fields_of(name).items()})
            for name in topics
            if TOPICS[name].when(body, self._seen)
        ]


@cache
def fields_of(topic: str) -> dict[str, Shown]:
    """The fields of a topic's messages, in order."""
    return (COMMON if TOPICS[topic].kinds else {}) | TOPICS[topic].fields


def schema(topic: str) -> bytes:
    """JSON Schema of a topic's messages."""
    fields = fields_of(topic)
    properties = {name: _type(shown.kind) | {"description": shown.text} for name, shown in fields.items()}
    whole = {"type": "object", "title": schema_name(topic), "properties": properties, "required": list(fields)}
    return json.dumps(whole).encode()


def schema_name(topic: str) -> str:
    """Name of a topic's schema: `vla_edge.joints.measured`."""
    return "vla_edge" + topic.replace("/", ".")


def _type(kind: str) -> dict[str, Any]:
    if kind == ROW:
        return {"type": "array"}
    if kind == TABLE:
        return {"type": "array", "items": {"type": "array", "items": {"type": ["number", "null"]}}}
    return {"type": kind}
