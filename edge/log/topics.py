"""The topics of a log: for each its records, and of every field the JSON type, the meaning and the value.

Where a message shows a field of a record as it is, type and meaning are those of the record's own description. Schemas
keep to what Foxglove's viewer reads: arrays with `items`, objects with `properties`, no array directly in an array, one
type a field. Topics that it knows by its own schemas have those names.
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

from edge.arms.frames import poses
from edge.inference.records import Outcome, Phase, PlanRequest, PlanResult
from edge.log import records as rec
from edge.log.records import Kind, Record, listed, unpack
from edge.log.seen import Seen
from firmware_bridge.codes import MICRO, DeviceState
from firmware_bridge.layout import Item, items_of

INTEGER, NUMBER, STRING, BOOLEAN, OBJECT = ("integer", "number", "string", "boolean", "object")
ROW, TABLE, WORDS, FLAGS, STAMP, JOINTS, POSES = "row", "table", "words", "flags", "stamp", "joints", "poses"
"""Lists of numbers, of rows of numbers (`joints`), of words, of booleans; a Unix time; the states of joints; the poses
of links. Null stands for a number that is not finite."""
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
    schema: str | None = None
    """Of a schema that Foxglove knows by this name; the fields are its fields and ours."""


def same(record: type, *names: str) -> dict[str, Shown]:
    """Fields that are shown as the record has them."""
    return {name: _shown(items_of(record)[name], attrgetter(name)) for name in names}


def _shown(item: Item, value: Callable[[Any], Any]) -> Shown:
    code = item.code.lstrip("<")[0]
    kind = STRING if code in "Sj" else NUMBER if code in "fd" else INTEGER
    if len(item.shape) == 2:
        return Shown(TABLE, item.text, lambda record, _: [{"joints": row} for row in finite(value(record))])
    row = FLAGS if code == "?" else ROW
    return Shown(row if item.shape else kind, item.text, lambda record, _: finite(value(record)))


def finite(value: Any) -> Any:
    """Lists for arrays, with null for what JSON has no number for."""
    if isinstance(value, np.ndarray) and not np.isfinite(value).all():
        boxed = value.astype(object)
        boxed[~np.isfinite(value)] = None
        return boxed.tolist()
    return listed(value)


def _joints(name: str) -> Topic:
    def states(sample: rec.Sample, seen: Seen) -> list[dict[str, Any]]:
        positions = [round(urad * MICRO, 6) for urad in getattr(sample, name)]
        names = seen.joints if len(seen.joints) == len(positions) else map(str, range(1, len(positions) + 1))
        return [{"name": name, "position": position} for name, position in zip(names, positions)]

    return Topic((Kind.SAMPLE,), STAMPED | {"joints": Shown(JOINTS, STATES, states)}, schema="foxglove.JointStates")


def _transforms(sample: rec.Sample, seen: Seen) -> list[dict[str, Any]]:
    q = dict(zip(seen.joints, (urad * MICRO for urad in sample.measured_urad)))
    return [
        {
            "timestamp": _timestamp(sample, seen),
            "parent_frame_id": frame.parent,
            "child_frame_id": frame.child,
            "translation": {name: round(value, 6) for name, value in zip("xyz", position)},
            "rotation": {name: round(value, 6) for name, value in zip("wxyz", rotation)},
        }
        for frame, position, rotation in poses(seen.links, q)
    ]


def _timestamp(record: Any, seen: Seen) -> dict[str, int]:
    return {"sec": seen.wall_ns // NANOS, "nsec": seen.wall_ns % NANOS}


def _level(record: Any, seen: Seen) -> int:
    """Foxglove's number of how serious it is; 0 for what is no news to a person."""
    if isinstance(record, rec.LineLost):
        return ERROR
    return ERROR if record.get("error") else LEVELS.get(record["decision"], 0)


def _said(record: Any, seen: Seen) -> str:
    if isinstance(record, rec.LineLost):
        return f"line lost: {record.text}"
    details = {name: value for name, value in record.items() if name != "decision"}
    words = [str(value) if name in PROSE else f"{name} {value}" for name, value in details.items() if value is not None]
    return ", ".join(words) if record["decision"] == "said" else f"{record['decision']}: {', '.join(words)}"


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
NANOS = 1_000_000_000
STAMPED = {"timestamp": Shown(STAMP, "Unix time of the record", _timestamp)}
STATES = "in the order of the profile, at device_us; position in rad, of an axis that slides in m"
INFO, WARNING, ERROR = 2, 3, 4
LEVELS = {"said": INFO, "ended": INFO, "stop": ERROR} | dict.fromkeys(
    ("refused", "paused", "late", "device event"), WARNING
)
"""Of the decisions that a person should hear of, by Foxglove's numbers."""
PROSE = ("why", "reason", "error")
HEADER = "versions, arm, task, seeds, settings, hashes of the bundle, time anchors"
MADE_FROM = "arm profile, policy shape and settings that the controller was made from"
LATE = "how long after its deadline this tick began, us"
TO_CHUNK = "from the request to the moment control took the result, ms"

TOPICS: dict[str, Topic] = {
    "/run": Topic((Kind.HEADER,), {"header": Shown(OBJECT, HEADER, lambda header, _: header)}),
    "/control": Topic((Kind.CONTROLLER,), {"made_from": Shown(OBJECT, MADE_FROM, lambda made_from, _: made_from)}),
    "/joints/commanded": _joints("commanded_urad"),
    "/joints/measured": _joints("measured_urad"),
    "/tf": Topic(
        (Kind.SAMPLE,),
        {"transforms": Shown(POSES, "of each link in its parent, as measured; m", _transforms)},
        when=lambda sample, seen: seen.shows_poses,
        schema="foxglove.FrameTransforms",
    ),
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
        | {"outcome": Shown(STRING, "CHUNK, FAILED, PAUSED, WAY (home) or LEADER", _outcome)}
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
    "/notices": Topic(
        (Kind.DECISION, Kind.NOTE, Kind.LINE_LOST),
        STAMPED
        | {
            "level": Shown(INTEGER, "2 information, 3 warning, 4 error", _level),
            "message": Shown(STRING, "what a person should hear of", _said),
            "name": Shown(STRING, "who says it", lambda _, __: "vla-edge"),
            "file": Shown(STRING, "empty", lambda _, __: ""),
            "line": Shown(INTEGER, "0", lambda _, __: 0),
        },
        when=lambda record, seen: _level(record, seen) > 0,
        schema="foxglove.Log",
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
            "frames": Shown(WORDS, "types of the frames that end here", _frames),
            "bad_frames": Shown(INTEGER, "damaged so far", lambda _, seen: seen.bad_frames),
        },
    ),
    "/wire/sent": Topic(
        (Kind.SENT,),
        {"data": Shown(STRING, "one frame, base64", _base64), "frames": Shown(WORDS, "its type", _frames)},
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
    properties = {name: field_type(shown.kind) | {"description": shown.text} for name, shown in fields.items()}
    whole = {"type": "object", "title": schema_name(topic), "properties": properties, "required": list(fields)}
    return json.dumps(whole).encode()


def schema_name(topic: str) -> str:
    """Name of a topic's schema: `vla_edge.joints.measured`."""
    return TOPICS[topic].schema or "vla_edge" + topic.replace("/", ".")


def _array(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {name: {"type": kind} for name, kind in properties.items()}}


TIME = {**_object(sec=INTEGER, nsec=INTEGER), "title": "time"}
TRANSFORM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "timestamp": TIME,
        "parent_frame_id": {"type": STRING},
        "child_frame_id": {"type": STRING},
        "translation": _object(x=NUMBER, y=NUMBER, z=NUMBER),
        "rotation": _object(x=NUMBER, y=NUMBER, z=NUMBER, w=NUMBER),
    },
}
TYPES: dict[str, dict[str, Any]] = {
    OBJECT: _object(),
    ROW: _array({"type": NUMBER}),
    WORDS: _array({"type": STRING}),
    FLAGS: _array({"type": BOOLEAN}),
    TABLE: _array({"type": "object", "properties": {"joints": _array({"type": NUMBER})}}),
    STAMP: TIME,
    JOINTS: _array(_object(name=STRING, position=NUMBER)),
    POSES: _array(TRANSFORM),
}
"""JSON Schema of the kinds of fields that are not plain types."""


def field_type(kind: str) -> dict[str, Any]:
    """JSON Schema of a field."""
    return TYPES.get(kind, {"type": kind})
