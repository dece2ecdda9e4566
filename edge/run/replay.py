"""Runs a logged run's decisions again, on the log's own inputs, and compares everything that comes out bit by bit.

The same client, controller and taps as in the run; clock, line and planner are read from the log. A source looks at the
next record and the tap puts it to the comparison, so inputs and decisions are held to the same order. The comparison
ends at the first difference: what came later in the log answers to something that was not decided now.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from edge.arms import ArmProfile, GoalBounds, JointLimits
from edge.bundle import ChunkShape
from edge.errors import SafetyStop
from edge.inference.records import PlannerStatus, PlanRequest, PlanResult
from edge.log import records as rec
from edge.log.logged_run import grippers_of
from edge.log.mcap_log import LogError
from edge.log.records import INFORMATION, Kind, Record, decode, unpack
from edge.log.taps import DEVICE_CALLS, TappedPlanner, TappedRecorder, open_client
from edge.plan.replanner import ControlSettings
from edge.run.controller import Controller
from edge.run.made_from import check_controller, pack_controller
from firmware_bridge.client import DeviceClient
from firmware_bridge.errors import BridgeError, LinkLost
from firmware_bridge.messages import Limits
from firmware_bridge.reading import one_line, shown

SENSELESS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, struct.error)
"""What control makes of inputs that no run has had."""
SAMPLES_KEPT = 1
"""The replay's own recorder needs to keep nothing."""
SHAPE = {one.name for one in fields(ChunkShape)}
"""What control needs of a shape; older logs have more of the policy's sizes there."""
CONTROL_CALLS = frozenset({"expect", "run_out", "pause", "resume", "replan_every"})
"""The controller's methods that a log may call."""


@dataclass(frozen=True)
class Difference:
    """Where the replay left the log: `logged` and `replayed` are the first values that differ."""

    at_s: float
    tick: int | None
    kind: Kind
    logged: str
    replayed: str


@dataclass
class Verdict:
    """What a replay found. `missing` counts records that are not in the log at the place where the replay ended."""

    compared: Counter[Kind] = field(default_factory=Counter)
    decisions: Counter[str] = field(default_factory=Counter)
    difference: Difference | None = None
    missing: int = 0
    ended: bool = False
    duration_s: float = 0.0

    @property
    def steps(self) -> int:
        return self.compared[Kind.STEP]


class Differs(Exception):
    """The replay has left the log."""

    def __init__(self, difference: Difference) -> None:
        super().__init__(difference)
        self.difference = difference


class EndOfLog(Exception):
    """Nothing is left to compare with; `missing` records are known to be absent here."""

    def __init__(self, missing: int = 0) -> None:
        super().__init__(missing)
        self.missing = missing


class Comparison:
    """The journal of a replay: each record must be the log's next one."""

    def __init__(self, records: Iterator[Record], verdict: Verdict) -> None:
        self._records = records
        self.verdict = verdict
        self._next: Record | None = None
        self._expected_number = 0
        self._first_ns: int | None = None
        self._tick: int | None = None

    def peek(self) -> Record:
        """The next record that matters. Raises `EndOfLog`."""
        while self._next is None:
            record = next(self._records, None)
            if record is None:
                raise EndOfLog
            if record.number != self._expected_number:
                raise EndOfLog(record.number - self._expected_number)
            self._expected_number += 1
            if self._first_ns is None:
                self._first_ns = record.host_ns
            self.verdict.duration_s = (record.host_ns - self._first_ns) / 1e9
            self.verdict.ended = self.verdict.ended or record.kind is Kind.ENDED
            if record.kind not in INFORMATION:
                self._next = record
        return self._next

    def put(self, kind: Kind, body: bytes) -> None:
        """Compares what the replay did with what the run did. Raises `Differs`."""
        logged = self.peek()
        if (logged.kind, logged.body) != (kind, body):
            raise self.differs(kind, *_first_difference(logged, kind, body))
        if kind is Kind.STEP:
            self._tick = rec.Step.unpack(body).loop_tick
        self.verdict.compared[kind] += 1
        if kind is Kind.DECISION:
            self.verdict.decisions[decode(kind, body)["decision"]] += 1
        self._next = None

    def differs(self, kind: Kind, logged: str, replayed: str) -> Differs:
        return Differs(Difference(self.verdict.duration_s, self._tick, kind, logged, replayed))


class LoggedWorld:
    """Clock, line and planner of a replay."""

    def __init__(self, comparison: Comparison) -> None:
        self._comparison = comparison

    def clock_ns(self) -> int:
        record = self._comparison.peek()
        if record.kind is not Kind.CLOCK:
            raise self._comparison.differs(Kind.CLOCK, _text(record), "reads the clock")
        return rec.Clock.unpack(record.body).now_ns

    def idle(self, seconds: float) -> None:
        """Time passes by itself: the next reading of the clock is in the log."""

    def read(self) -> bytes:
        record = self._comparison.peek()
        self._raise_lost(record)
        return record.body if record.kind is Kind.RECEIVED else b""

    def write(self, data: bytes) -> None:
        self._raise_lost(self._comparison.peek())

    def close(self) -> None:
        """There is no line."""

    def request(self, request: PlanRequest) -> None:
        """The answer, if there was one, is in the log."""

    def result(self) -> PlanResult | None:
        record = self._comparison.peek()
        return PlanResult.unpack(record.body) if record.kind is Kind.RESULT else None

    def status(self) -> PlannerStatus | None:
        return None

    def _raise_lost(self, record: Record) -> None:
        if record.kind is Kind.LINE_LOST:
            raise LinkLost(rec.LineLost.unpack(record.body).text)


class Replay:
    """Drives client and controller as the log says they were driven."""

    def __init__(self, records: Iterator[Record]) -> None:
        self.verdict = Verdict()
        self._comparison = Comparison(records, self.verdict)
        self._world = LoggedWorld(self._comparison)
        self._client: DeviceClient | None = None
        self._controller: Controller | None = None

    def run(self) -> Verdict:
        """To the end of the log or to the first difference. Raises `LogError` for a log that makes no sense."""
        try:
            while True:
                self._perform(self._comparison.peek())
        except EndOfLog as end:
            self.verdict.missing = end.missing
        except Differs as found:
            self.verdict.difference = found.difference
        except SENSELESS as error:
            told = one_line(f"{type(error).__name__}: {error}", 160)
            raise LogError(f"the journal is not one that this version can replay: {told}") from None
        return self.verdict

    def _perform(self, record: Record) -> None:
        """What made this record in the run is done again and must make it again, with all that followed from it."""
        body = unpack(record.kind, record.body)
        try:
            if isinstance(body, rec.SessionOpened):
                world, comparison = self._world, self._comparison
                self._client = open_client(world, world.clock_ns, body.session, world.idle, comparison)
            elif self._client is None:
                raise LogError("the log does not begin with a session: its beginning is missing")
            elif record.kind is Kind.CONTROLLER:
                self._controller = self._make_controller(self._client, body)
            elif isinstance(body, rec.DeviceCall):
                self._call_device(self._client, body)
            elif isinstance(body, rec.Poll):
                self._client.poll(body.now_ns)
            elif isinstance(body, rec.KeepClock):
                self._client.keep_clock(body.now_ns, body.slack_s)
            elif isinstance(body, rec.ControlCall) and self._controller is not None:
                self._call_control(self._controller, body)
            elif isinstance(body, rec.Step) and self._controller is not None:
                self._controller.step(body.now_ns, body.loop_tick)
            else:
                raise self._comparison.differs(record.kind, _text(record), "nothing more in this step")
        except (SafetyStop, BridgeError):
            return  # the run ended a call this way too, or the next record tells

    def _call_device(self, client: DeviceClient, call: rec.DeviceCall) -> None:
        name, arguments = call.command, call.arguments
        if name not in DEVICE_CALLS:
            raise LogError(f"the log calls {shown(name)}, which this version does not know")
        if name == "set_limits":
            arguments = [Limits.unpack(bytes.fromhex(arguments[0]))]
        elif name == "arm":
            arguments = [tuple(arguments[0]), arguments[1]]
        getattr(client, name)(*arguments)

    def _call_control(self, controller: Controller, call: rec.ControlCall) -> None:
        if call.word not in CONTROL_CALLS:
            raise LogError(f"the log calls {shown(call.word)} of control, which this version does not know")
        getattr(controller, call.word)(*call.arguments)

    def _make_controller(self, client: DeviceClient, body: dict[str, Any]) -> Controller:
        check_controller(body)
        arm = body["arm"]
        limits = {name: JointLimits(**_tuples(arm[name])) for name in ("limits", "operating")}
        goals = GoalBounds(**_tuples(arm["goals"])) if "goals" in arm else None
        plain = {name: value for name, value in _tuples(arm).items() if name != "gripper"}
        profile = ArmProfile(**{**plain, **limits, "goals": goals, "grippers": grippers_of(arm)})
        controller = Controller(
            client,
            TappedPlanner(self._world, self._comparison),
            profile,
            ChunkShape(**{name: body["shape"][name] for name in SHAPE & body["shape"].keys()}),
            body["step_s"],
            ControlSettings(**body["settings"]),
            TappedRecorder(SAMPLES_KEPT, profile.dof, self._comparison),
            body["latency_us"],
        )
        self._comparison.put(
            Kind.CONTROLLER, pack_controller(controller, body["step_s"], body["latency_us"], body["shape"])
        )
        return controller


def _tuples(plain: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}


def _first_difference(logged: Record, kind: Kind, body: bytes) -> tuple[str, str]:
    """Both values where the two part."""
    if logged.kind is not kind:
        return _text(logged), _text(Record(0, 0, kind, body))
    return _parted(decode(kind, logged.body), decode(kind, body), "")


def _parted(logged: Any, replayed: Any, path: str) -> tuple[str, str]:
    if isinstance(logged, dict) and isinstance(replayed, dict) and logged.keys() == replayed.keys():
        pairs = [(f"{path}.{name}".lstrip("."), logged[name], replayed[name]) for name in logged]
    elif isinstance(logged, list) and isinstance(replayed, list) and len(logged) == len(replayed):
        pairs = [(f"{path}[{index}]", *values) for index, values in enumerate(zip(logged, replayed))]
    else:
        return f"{path} {logged!r}", f"{path} {replayed!r}"
    for where, one, other in pairs:
        if not _same(one, other):
            return _parted(one, other, where)
    return f"{path} {logged!r}", f"{path} {replayed!r}"


def _same(one: Any, other: Any) -> bool:
    both_nan = isinstance(one, float) and isinstance(other, float) and np.isnan(one) and np.isnan(other)
    return bool(both_nan or one == other or (isinstance(one, (list, dict)) and repr(one) == repr(other)))


def _text(record: Record) -> str:
    """A record in a few words."""
    if record.kind is Kind.DECISION:
        details = decode(record.kind, record.body)
        return ", ".join(str(value) if name == "decision" else f"{name} {value}" for name, value in details.items())
    text = str(decode(record.kind, record.body))
    return f"{record.kind.name.lower()} {text if len(text) <= 100 else text[:97] + '...'}"
