"""From the records of a journal to the messages that people look at. A function of the records alone."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.inference.records import Outcome, Phase
from edge.log.records import Kind, Record, decode, unpack_arrays
from firmware_bridge.codes import MICRO, DeviceState
from firmware_bridge.framing import FrameReader

View = tuple[str, dict[str, Any]]
OUTCOME_NAMES = {outcome: outcome.name for outcome in Outcome} | {Outcome.HOMING: "WAY"}
"""As logs have named them since version 0.1.0."""


class Views:
    """Turns records into messages; remembers the clocks' mapping and the requests that wait for an answer."""

    def __init__(self) -> None:
        self._mapping: dict[str, Any] | None = None
        self._sent_ns: dict[int, int] = {}
        self._received, self._sent = FrameReader(), FrameReader()
        self._views = {
            Kind.HEADER: lambda record: [("/run", {"header": decode(record.kind, record.body)})],
            Kind.CONTROLLER: lambda record: [("/control", {"made_from": decode(record.kind, record.body)})],
            Kind.ENDED: lambda record: [("/report", {"report": decode(record.kind, record.body)})],
            Kind.COMMAND: _command,
            Kind.DECISION: _decision,
            Kind.NOTE: _decision,
            Kind.WORD: _word,
            Kind.LINE_LOST: lambda record: [
                ("/decisions", {"decision": "line lost", "details": decode(record.kind, record.body)})
            ],
            Kind.SAMPLE: _sample,
            Kind.CHUNK: _chunk,
            Kind.LOOP: _loop,
            Kind.BEAT: _beat,
            Kind.REQUEST: self._request,
            Kind.RESULT: self._result,
            Kind.MAPPING: self._clock,
            Kind.RECEIVED: self._wire_received,
            Kind.SENT: self._wire_sent,
        }

    def of(self, record: Record) -> list[View]:
        """The messages of one record, each as topic and content."""
        make = self._views.get(record.kind)
        if make is None:
            return []
        common = {"host_ns": record.host_ns, "device_us": self._device_us(record.host_ns)}
        return [(topic, {**common, **content}) for topic, content in make(record)]

    def _device_us(self, host_ns: int) -> float:
        if self._mapping is None:
            return -1.0
        since_us = (host_ns - self._mapping["at_ns"]) / 1000
        return round(float(self._mapping["device_us"] + since_us * (1 + self._mapping["drift"])), 1)

    def _clock(self, record: Record) -> list[View]:
        self._mapping = mapping = decode(record.kind, record.body)
        content = {
            "offset_us": mapping["device_us"] - mapping["at_ns"] / 1000,
            "drift_ppm": mapping["drift"] * 1e6,
            "uncertainty_us": mapping["uncertainty_us"],
        }
        return [("/clock", content)]

    def _request(self, record: Record) -> list[View]:
        head, arrays = unpack_arrays(record.body)
        self._sent_ns = {head["id"]: head["sent_ns"]}
        content = {"id": head["id"], "step": head["step"]}
        return [("/plan/request", content | {name: _finite(array) for name, array in arrays.items()})]

    def _result(self, record: Record) -> list[View]:
        head, arrays = unpack_arrays(record.body)
        increments = arrays["increments_rad"]
        result = {
            "id": head["id"],
            "outcome": OUTCOME_NAMES[Outcome(head["outcome"])],
            "message": head["message"],
            "increments_rad": _finite(increments),
            "not_finite": int(np.count_nonzero(~np.isfinite(increments))),
        }
        sent_ns = self._sent_ns.get(head["id"])
        if sent_ns is None:
            return [("/plan/result", result)]
        times = {f"{name}_ms": head[f"{name}_ns"] / 1e6 for name in ("camera", "history", "backbone", "decoder")}
        whole = {"id": head["id"], "observation_to_chunk_ms": (record.host_ns - sent_ns) / 1e6}
        return [("/plan/result", result), ("/latency", whole | times)]

    def _wire_received(self, record: Record) -> list[View]:
        frames = [type(frame.message).__name__ for frame in self._received.feed(record.body)]
        content = {"data": _base64(record.body), "frames": frames, "bad_frames": self._received.bad_frames}
        return [("/wire/received", content)]

    def _wire_sent(self, record: Record) -> list[View]:
        frames = [type(frame.message).__name__ for frame in self._sent.feed(record.body)]
        return [("/wire/sent", {"data": _base64(record.body), "frames": frames})]


def _command(record: Record) -> list[View]:
    command = decode(record.kind, record.body)
    arguments = {str(index): value for index, value in enumerate(command["arguments"])}
    return [("/commands", {"command": command["command"], "arguments": arguments})]


def _word(record: Record) -> list[View]:
    body = decode(record.kind, record.body)
    return [("/decisions", {"decision": body["word"], "details": {"arguments": body["arguments"]}})]


def _decision(record: Record) -> list[View]:
    details = decode(record.kind, record.body)
    return [("/decisions", {"decision": details.pop("decision"), "details": details})]


def _sample(record: Record) -> list[View]:
    """The device's own time of the sample takes the place of the estimate."""
    sample = decode(record.kind, record.body)
    device_us, state = {"device_us": sample["device_us"]}, sample["state"]
    name = DeviceState(state).name if state in set(DeviceState) else str(state)
    return [
        ("/joints/commanded", {**device_us, "position_rad": _radians(sample["commanded_urad"])}),
        ("/joints/measured", {**device_us, "position_rad": _radians(sample["measured_urad"])}),
        ("/buffer", {**device_us, "buffered_ms": sample["buffered_ms"]}),
        ("/state", {**device_us, "state": state, "name": name}),
    ]


def _chunk(record: Record) -> list[View]:
    return [("/chunks", decode(record.kind, record.body))]


def _loop(record: Record) -> list[View]:
    loop = decode(record.kind, record.body)
    return [("/loop", {"ticks": loop["ticks"], "late_us": loop["late_ns"] / 1000, "overruns": loop["overruns"]})]


def _beat(record: Record) -> list[View]:
    beat = decode(record.kind, record.body)
    return [("/inference", {"phase": Phase(beat["phase"]).name, "beat": beat["beat"]})]


def _radians(urad: list[int]) -> list[float]:
    return [round(value * MICRO, 6) for value in urad]


def _finite(array: NDArray[Any]) -> Any:
    """Lists with null for what JSON cannot say."""
    if np.isfinite(array).all():
        return array.tolist()
    boxed = array.astype(object)
    boxed[~np.isfinite(array)] = None
    return boxed.tolist()


def _base64(data: bytes) -> str:
    return b64encode(data).decode("ascii")
