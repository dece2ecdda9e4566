"""The topics of a log: what each message holds, with units, as JSON Schema."""

from __future__ import annotations

import json
from typing import Any

INTEGER, NUMBER, STRING, BOOLEAN, OBJECT = ("integer", "number", "string", "boolean", "object")
ROW, TABLE = "row", "table"
"""Lists of numbers, and of rows of numbers; null stands for a number that is not finite."""

COMMON = {
    "host_ns": (INTEGER, "host time, monotonic, ns"),
    "device_us": (NUMBER, "device time, unwrapped, us; -1 before the clocks agree"),
}
"""In every message of every topic but `/journal` and `/log`."""

TOPICS: dict[str, dict[str, tuple[str, str]]] = {
    "/run": {"header": (OBJECT, "versions, arm, task, seeds, settings, hashes of the bundle, time anchors")},
    "/control": {"made_from": (OBJECT, "arm profile, policy shape and settings that the controller was made from")},
    "/joints/commanded": {"position_rad": (ROW, "rad, one per joint, at device_us")},
    "/joints/measured": {"position_rad": (ROW, "rad, one per joint, at device_us")},
    "/buffer": {"buffered_ms": (INTEGER, "motion that the device still holds, ms")},
    "/state": {"state": (INTEGER, "device state, its number"), "name": (STRING, "device state, its name")},
    "/plan/request": {
        "id": (INTEGER, "number of the request"),
        "step": (INTEGER, "policy step under way"),
        "states_rad": (TABLE, "measured positions of the history, rad"),
        "actions_rad": (TABLE, "commanded increments of the history, rad"),
        "mask": (ROW, "which rows of the history are in use"),
        "prefix_rad": (TABLE, "committed increments, rad"),
    },
    "/plan/result": {
        "id": (INTEGER, "number of the request"),
        "outcome": (STRING, "CHUNK or FAILED"),
        "message": (STRING, "why it failed"),
        "increments_rad": (TABLE, "increments of the commanded positions, rad"),
        "not_finite": (INTEGER, "numbers that are NaN or infinite"),
    },
    "/latency": {
        "id": (INTEGER, "number of the request"),
        "observation_to_chunk_ms": (NUMBER, "from the request to the moment control took the result, ms"),
        "camera_ms": (NUMBER, "ms"),
        "history_ms": (NUMBER, "history encoder, ms"),
        "backbone_ms": (NUMBER, "ms"),
        "decoder_ms": (NUMBER, "action decoder, ms"),
    },
    "/chunks": {
        "chunk": (INTEGER, "id on the wire"),
        "start_us": (INTEGER, "first knot, device time modulo 2^32, us"),
        "spacing_us": (INTEGER, "between knots, us"),
        "q_urad": (TABLE, "knots, microradians"),
        "dq_urad_s": (TABLE, "knots, microradians per second"),
    },
    "/decisions": {
        "decision": (STRING, "what was decided"),
        "details": (OBJECT, "its numbers and its reason"),
    },
    "/commands": {"command": (STRING, "of the host to the device"), "arguments": (OBJECT, "as given")},
    "/loop": {
        "ticks": (INTEGER, "of the control loop"),
        "late_us": (NUMBER, "how long after its deadline this tick began, us"),
        "overruns": (INTEGER, "ticks missed so far"),
    },
    "/clock": {
        "offset_us": (NUMBER, "device clock minus host clock, us"),
        "drift_ppm": (NUMBER, "of the device clock against the host's, ppm"),
        "uncertainty_us": (NUMBER, "bound of the error, us"),
    },
    "/inference": {"phase": (STRING, "of the inference process"), "beat": (INTEGER, "its counter")},
    "/wire/received": {
        "data": (STRING, "bytes of one read, base64; frames are cut anywhere"),
        "frames": (ROW, "types of the frames that end here"),
        "bad_frames": (INTEGER, "damaged so far"),
    },
    "/wire/sent": {"data": (STRING, "one frame, base64"), "frames": (ROW, "its type")},
    "/report": {"report": (OBJECT, "the run's report, as in run.json")},
    "/journal": {"records": (STRING, "records as they left the loop, base64; each: u32 length, stamp, body")},
    "/log": {
        "records": (INTEGER, "written so far"),
        "missing": (INTEGER, "found no room in the ring so far"),
        "complete": (BOOLEAN, "whether the run has ended in order"),
    },
}


def schema(topic: str) -> bytes:
    """JSON Schema of a topic's messages."""
    fields = TOPICS[topic] if topic in ("/journal", "/log") else COMMON | TOPICS[topic]
    properties = {name: _type(kind) | {"description": text} for name, (kind, text) in fields.items()}
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
