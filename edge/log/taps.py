"""What stands between the decisions and the world: each call goes through and leaves a record in the journal.

A run and its replay use the same taps. In a run the world behind them is real; in a replay it is the log, and the
journal compares. Clock, line and planner are the only sources of anything that two runs could see differently.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from inspect import signature
from typing import Any

import numpy as np

from edge.inference.layout import pack_plain
from edge.inference.records import Planner, PlannerStatus, PlanRequest, PlanResult
from edge.log import records as rec
from edge.log.recorder import Recorder
from edge.log.records import Journal, Kind
from firmware_bridge.client import DeviceClient, Inbox, KnotChunk
from firmware_bridge.errors import LinkLost
from firmware_bridge.link import Link
from firmware_bridge.messages import Limits
from firmware_bridge.transports import Transport

DEVICE_CALLS = frozenset(
    {"connect", "set_limits", "synchronise_clock", "wait_for_state", "arm", "stop", "disarm", "clear", "estop"}
)
"""The client's methods whose calls are on record, by name and arguments."""


def open_client(
    transport: Transport,
    clock_ns: Callable[[], int],
    session: int,
    idle: Callable[[float], None],
    journal: Journal | None,
) -> DeviceClient:
    """A client on a line; with a journal, one that records what it is called with, reads and sends."""
    if journal is None:
        return DeviceClient(Link(transport, clock_ns, session), idle)
    journal.put(Kind.SESSION, rec.SessionOpened(session).pack())
    line = TappedTransport(transport, journal)
    return TappedClient(Link(line, tapped_clock(clock_ns, journal), session), idle, journal)


def open_recorder(capacity: int, joints: int, journal: Journal | None) -> Recorder:
    """A recorder; with a journal, one that also records what control decides."""
    return Recorder(capacity, joints) if journal is None else TappedRecorder(capacity, joints, journal)


def tapped_planner(planner: Planner, journal: Journal | None) -> Planner:
    """A planner; with a journal, one that records requests and results."""
    return planner if journal is None else TappedPlanner(planner, journal)


def tapped_clock(clock_ns: Callable[[], int], journal: Journal) -> Callable[[], int]:
    """The same clock, with each reading on record."""

    def read() -> int:
        now_ns = clock_ns()
        journal.put(Kind.CLOCK, rec.Clock.body(now_ns))
        return now_ns

    return read


class TappedTransport:
    """Records the bytes of a line; a read that brought nothing leaves no record."""

    def __init__(self, transport: Transport, journal: Journal) -> None:
        self._transport, self._journal = transport, journal

    def read(self) -> bytes:
        try:
            data = self._transport.read()
        except LinkLost as lost:
            self._lost(lost)
            raise
        if data:
            self._journal.put(Kind.RECEIVED, data)
        return data

    def write(self, data: bytes) -> None:
        self._journal.put(Kind.SENT, data)
        try:
            self._transport.write(data)
        except LinkLost as lost:
            self._lost(lost)
            raise

    def close(self) -> None:
        self._transport.close()

    def _lost(self, lost: LinkLost) -> None:
        self._journal.put(Kind.LINE_LOST, rec.LineLost(str(lost)).pack())


class TappedClient(DeviceClient):
    """Records the calls that make it read or write, and what the device did with chunks."""

    def __init__(self, link: Link, idle: Callable[[float], None], journal: Journal) -> None:
        super().__init__(link, idle)
        self._journal = journal

    def set_limits(self, limits: Limits) -> None:
        self._record_command("set_limits", limits.pack().hex())
        super().set_limits(limits)

    def synchronise_clock(self) -> float:
        self._record_command("synchronise_clock")
        uncertainty_us = super().synchronise_clock()
        self._record_mapping(self.link.clock_ns())
        return uncertainty_us

    def send_chunk(self, chunk: KnotChunk) -> None:
        q_urad, dq_urad_s = np.array(chunk.q_urad, np.int32), np.array(chunk.dq_urad_s or [], np.int32)
        record = rec.ProposedChunk(chunk.id, chunk.start_us, chunk.spacing_us, q_urad, dq_urad_s)
        self._journal.put(Kind.CHUNK, record.pack())
        super().send_chunk(chunk)

    def poll(self, now_ns: int) -> Inbox:
        self._journal.put(Kind.POLL, rec.Poll.body(now_ns))
        inbox = super().poll(now_ns)
        for chunk in inbox.committed:
            self._decide({"decision": "committed", "chunk": chunk})
        for event in inbox.events:
            self._decide({"decision": "device event", "state": event.state, "reason": event.reason})
        return inbox

    def keep_clock(self, now_ns: int, slack_s: float) -> None:
        self._journal.put(Kind.KEEP_CLOCK, rec.KeepClock.body(now_ns, slack_s))
        before_ns = self._last_probe_ns
        super().keep_clock(now_ns, slack_s)
        if self._last_probe_ns != before_ns:
            self._record_mapping(now_ns)

    def _record_command(self, name: str, *arguments: Any) -> None:
        self._journal.put(Kind.COMMAND, rec.DeviceCall(name, list(arguments)).pack())

    def _decide(self, decision: dict[str, Any]) -> None:
        self._journal.put(Kind.DECISION, pack_plain(decision))

    def _record_mapping(self, now_ns: int) -> None:
        clock = self.link.clock
        body = rec.Mapping.body(now_ns, clock.device_us(now_ns), clock.drift, clock.uncertainty_us)
        self._journal.put(Kind.MAPPING, body)


def _recorded(name: str) -> Callable[..., Any]:
    """A method of the client that records its call."""
    method = getattr(DeviceClient, name)

    def call(client: TappedClient, *arguments: Any, **named: Any) -> Any:
        arguments = signature(method).bind(client, *arguments, **named).args
        client._record_command(name, *arguments[1:])
        return method(*arguments)

    return wraps(method)(call)


for _name in DEVICE_CALLS - vars(TappedClient).keys():
    setattr(TappedClient, _name, _recorded(_name))


class TappedPlanner:
    """Records requests, and results at the moment at which control takes them."""

    def __init__(self, planner: Planner, journal: Journal) -> None:
        self._planner, self._journal = planner, journal

    def request(self, request: PlanRequest) -> None:
        self._journal.put(Kind.REQUEST, request.pack())
        self._planner.request(request)

    def result(self) -> PlanResult | None:
        result = self._planner.result()
        if result is not None:
            self._journal.put(Kind.RESULT, result.pack())
        return result

    def status(self) -> PlannerStatus | None:
        return self._planner.status()


class TappedRecorder(Recorder):
    """Records samples and the decisions that control itself takes, and keeps samples as ever."""

    def __init__(self, capacity: int, joints: int, journal: Journal) -> None:
        super().__init__(capacity, joints)
        self._journal = journal

    def begin_step(self, now_ns: int, loop_tick: int) -> None:
        self._journal.put(Kind.STEP, rec.Step.body(now_ns, loop_tick))

    def call(self, name: str, *arguments: float | str) -> None:
        self._journal.put(Kind.CONTROL_CALL, rec.ControlCall(name, list(arguments)).pack())

    def decide(self, decision: str, **details: float | str) -> None:
        self._journal.put(Kind.DECISION, pack_plain({"decision": decision, **details}))

    def sample(
        self, device_us: int, commanded_urad: Sequence[int], measured_urad: Sequence[int], buffered_ms: int, state: int
    ) -> None:
        super().sample(device_us, commanded_urad, measured_urad, buffered_ms, state)
        body = rec.Sample.body(device_us, buffered_ms, state, len(commanded_urad), commanded_urad, measured_urad)
        self._journal.put(Kind.SAMPLE, body)

    def splice(self, device_us: int) -> None:
        super().splice(device_us)
        self.decide("joined", device_us=device_us)
