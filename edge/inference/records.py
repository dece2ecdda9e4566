"""What control and inference exchange, each record described once, and the three mailboxes that carry them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from itertools import accumulate
from typing import Annotated, Protocol

import numpy as np
from numpy.typing import NDArray

from edge.bundle import ChunkShape
from edge.inference.layout import TEXT_BYTES, Described, Layout, Newest, RecordMailbox
from edge.inference.mailbox import Mailbox, SharedMemory
from firmware_bridge.layout import Item

FloatArray = NDArray[np.float64]
MOST_ENGINES = 16


class Phase(IntEnum):
    """How far the inference process has come."""

    STARTING = 0
    LOADING = 1
    WARMING = 2
    READY = 3
    FAILED = 4


class Outcome(IntEnum):
    """What became of one request."""

    CHUNK = 0
    FAILED = 1
    PAUSED = 2
    """No chunk, because a camera is not to be trusted now; the message says which and why."""
    HOMING = 3
    """A chunk of the move home: no inference was needed, and its latency says nothing of inference."""
    LEADER = 4
    """A chunk that follows a leader arm, in the policy's place."""


@dataclass(frozen=True)
class PlanRequest(Described):
    """A request for a chunk as of policy step `step`."""

    id: Annotated[int, Item("<i8", "number of the request")]
    step: Annotated[int, Item("<i8", "policy step under way")]
    sent_ns: Annotated[int, Item("<i8", "host time, ns")]
    states_rad: Annotated[FloatArray, Item("<f8", "measured positions of the history, rad", ("history", "joints"))]
    actions_rad: Annotated[FloatArray, Item("<f8", "commanded increments of the history, rad", ("history", "joints"))]
    mask: Annotated[NDArray[np.bool_], Item("?", "which rows of the history are in use", ("history",))]
    prefix_rad: Annotated[FloatArray, Item("<f8", "committed increments, rad", ("up to horizon", "joints"))]
    measured_rad: Annotated[
        FloatArray, Item("<f8", "positions measured now and at the steps before, rad", ("up to measured", "joints"))
    ]
    commanded_rad: Annotated[
        FloatArray,
        Item("<f8", "commanded positions of the observed step and all planned, rad", ("up to planned", "joints")),
    ]


def at_rest(shape: ChunkShape, measured_rad: FloatArray) -> PlanRequest:
    """A request of no run, as of an arm that has stood still at `measured_rad` (J,)."""
    nothing = np.zeros((0, len(measured_rad)))
    return PlanRequest(
        id=0,
        step=0,
        sent_ns=0,
        states_rad=np.tile(measured_rad, (shape.history, 1)),
        actions_rad=np.zeros((shape.history, len(measured_rad))),
        mask=np.ones(shape.history, dtype=np.bool_),
        prefix_rad=nothing,
        measured_rad=np.tile(measured_rad, (shape.measured, 1)),
        commanded_rad=measured_rad[None] if shape.measured else nothing,
    )


@dataclass(frozen=True)
class PlanResult(Described):
    """The answer to a request: increments or goals from its step on, and where the time went."""

    id: Annotated[int, Item("<i8", "number of the request")]
    outcome: Annotated[Outcome, Item("<i8", "CHUNK, FAILED, PAUSED, HOMING or LEADER")]
    message: Annotated[str, Item(f"S{TEXT_BYTES}", "why there is no chunk")]
    camera_ns: Annotated[int, Item("<i8", "for the frames, ns")]
    engine_ns: Annotated[NDArray[np.int64], Item("<i8", "each engine, ns, in their order", ("up to engines",))]
    captured_ns: Annotated[int, Item("<i8", "host time at which the oldest frame was captured, ns; 0 without frames")]
    increments_rad: Annotated[
        FloatArray, Item("<f8", "increments of the commanded positions, rad", ("up to horizon", "joints"))
    ]
    goals_rad: Annotated[
        FloatArray,
        Item("<f8", "joint goals for the ends of the steps, instead of increments, rad", ("up to horizon", "joints")),
    ]

    @classmethod
    def untimed(cls, request: int, outcome: Outcome, increments_rad: FloatArray, message: str = "") -> PlanResult:
        """A result for which no time was measured."""
        nothing = np.zeros((0, increments_rad.shape[1]))
        return cls(request, outcome, message, 0, np.zeros(0, np.int64), 0, increments_rad, nothing)

    @property
    def rows_rad(self) -> FloatArray:
        """Goals where there are some, else increments."""
        return self.goals_rad if len(self.goals_rad) else self.increments_rad


@dataclass(frozen=True)
class PlannerStatus:
    """State of the inference process."""

    phase: Annotated[Phase, Item("<i8", "of the inference process")]
    beat: Annotated[int, Item("<i8", "its counter")]
    cold_ns: Annotated[int, Item("<i8", "the first call of the warm-up, ns")]
    warm_ns: Annotated[int, Item("<i8", "the slowest other call of the warm-up, ns")]
    message: Annotated[str, Item(f"S{TEXT_BYTES}", "why it failed; once it is ready, what runs the policy")]


class Planner(Protocol):
    """Control's view of inference. No call waits."""

    def request(self, request: PlanRequest) -> None:
        """Asks for a chunk; a newer request replaces one that has not been taken up."""

    def result(self) -> PlanResult | None:
        """The newest answer, once."""

    def status(self) -> PlannerStatus | None:
        """The newest status, once."""


class PlanningRecords:
    """The three mailboxes between control and inference, in one shared memory, for one policy and arm."""

    def __init__(self, shape: ChunkShape, joints: int, descriptor: int | None = None) -> None:
        sizes = {"history": shape.history, "horizon": shape.horizon, "joints": joints, "engines": MOST_ENGINES}
        sizes |= {"measured": shape.measured, "planned": shape.horizon + 1 if shape.measured else 0}
        requests, results, statuses = Layout(PlanRequest, **sizes), Layout(PlanResult, **sizes), Layout(PlannerStatus)
        starts = [0, *accumulate(Mailbox.size_of(layout.dtype) for layout in (requests, results, statuses))]
        self.memory = SharedMemory(starts[-1], descriptor)
        self.requests = RecordMailbox(requests, self.memory, starts[0])
        self.results = RecordMailbox(results, self.memory, starts[1])
        self.statuses = RecordMailbox(statuses, self.memory, starts[2])


class SharedPlanner:
    """The `Planner` in front of another process."""

    def __init__(self, records: PlanningRecords) -> None:
        self._requests, self._results, self._statuses = (
            records.requests,
            Newest(records.results),
            Newest(records.statuses),
        )

    def request(self, request: PlanRequest) -> None:
        self._requests.write(request)

    def result(self) -> PlanResult | None:
        return self._results.take()

    def status(self) -> PlannerStatus | None:
        return self._statuses.take()
