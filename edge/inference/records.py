"""What control and inference say to each other, and the two mailboxes they say it through."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge.bundle import PolicyShape
from edge.inference.mailbox import Mailbox, SharedMemory

FloatArray = NDArray[np.float64]
TEXT_BYTES = 400


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
    """A chunk of the way home: no inference was needed, and its latency says nothing of inference."""


@dataclass(frozen=True)
class PlanRequest:
    """Asks for a chunk as of policy step `step`; `sent_ns` is host time. Arrays as in `PolicyInput`."""

    id: int
    step: int
    sent_ns: int
    states_rad: FloatArray
    actions_rad: FloatArray
    mask: NDArray[np.bool_]
    prefix_rad: FloatArray


@dataclass(frozen=True)
class PlanResult:
    """The answer: increments (horizon, J) from the request's step on, and where the time went.

    `captured_ns` is the host time at which the oldest of its frames was captured; 0 without frames.
    """

    id: int
    outcome: Outcome
    increments_rad: FloatArray
    camera_ns: int
    history_ns: int
    backbone_ns: int
    decoder_ns: int
    message: str
    captured_ns: int = 0


@dataclass(frozen=True)
class PlannerStatus:
    """State of the inference process.

    `warm_ns` is the slowest warm call of the prewarming, `cold_ns` the first call.
    """

    phase: Phase
    beat: int
    cold_ns: int
    warm_ns: int
    message: str


class Planner(Protocol):
    """Control's view of inference. No call waits."""

    def request(self, request: PlanRequest) -> None:
        """Asks for a chunk; a newer request replaces one that has not been taken up."""

    def result(self) -> PlanResult | None:
        """The newest answer, once."""

    def status(self) -> PlannerStatus | None:
        """The newest status, once."""


class PlanningRecords:
    """Record layouts for one policy and arm, and the shared memory that holds the three mailboxes."""

    def __init__(self, shape: PolicyShape, joints: int, descriptor: int | None = None) -> None:
        self.request_type = np.dtype(
            [
                ("id", "<i8"),
                ("step", "<i8"),
                ("sent_ns", "<i8"),
                ("states", "<f8", (shape.history, joints)),
                ("actions", "<f8", (shape.history, joints)),
                ("mask", "?", (shape.history,)),
                ("prefix", "<f8", (shape.horizon, joints)),
                ("committed", "<i8"),
            ]
        )
        self.result_type = np.dtype(
            [
                ("id", "<i8"),
                ("outcome", "<i8"),
                ("increments", "<f8", (shape.horizon, joints)),
                ("times_ns", "<i8", (4,)),
                ("captured_ns", "<i8"),
                ("message", f"S{TEXT_BYTES}"),
            ]
        )
        self.status_type = np.dtype(
            [("phase", "<i8"), ("beat", "<i8"), ("cold_ns", "<i8"), ("warm_ns", "<i8"), ("message", f"S{TEXT_BYTES}")]
        )
        types = (self.request_type, self.result_type, self.status_type)
        sizes = [Mailbox.size_of(dtype) for dtype in types]
        self.memory = SharedMemory(sum(sizes), descriptor)
        self.requests, self.results, self.statuses = (
            Mailbox(dtype, self.memory, sum(sizes[:index])) for index, dtype in enumerate(types)
        )

    # The control side is a `Planner`.

    def pack_request(self, request: PlanRequest) -> NDArray[Any]:
        record = np.zeros(1, self.request_type)
        record["id"], record["step"], record["sent_ns"] = request.id, request.step, request.sent_ns
        record["states"][0], record["actions"][0], record["mask"][0] = (
            request.states_rad,
            request.actions_rad,
            request.mask,
        )
        record["committed"] = len(request.prefix_rad)
        record["prefix"][0, : len(request.prefix_rad)] = request.prefix_rad
        return record

    def unpack_request(self, record: NDArray[Any]) -> PlanRequest:
        row = record[0]
        return PlanRequest(
            id=int(row["id"]),
            step=int(row["step"]),
            sent_ns=int(row["sent_ns"]),
            states_rad=row["states"],
            actions_rad=row["actions"],
            mask=row["mask"],
            prefix_rad=row["prefix"][: int(row["committed"])],
        )

    def pack_result(self, result: PlanResult) -> NDArray[Any]:
        record = np.zeros(1, self.result_type)
        record["id"], record["outcome"] = result.id, int(result.outcome)
        record["increments"][0] = result.increments_rad
        record["times_ns"][0] = result.camera_ns, result.history_ns, result.backbone_ns, result.decoder_ns
        record["message"] = result.message.encode()[:TEXT_BYTES]
        record["captured_ns"] = result.captured_ns
        return record

    def unpack_result(self, record: NDArray[Any]) -> PlanResult:
        row = record[0]
        camera, history, backbone, decoder = (int(value) for value in row["times_ns"])
        message = bytes(row["message"]).decode("utf-8", "replace")
        return PlanResult(
            int(row["id"]),
            Outcome(int(row["outcome"])),
            row["increments"],
            camera,
            history,
            backbone,
            decoder,
            message,
            int(row["captured_ns"]),
        )

    def pack_status(self, status: PlannerStatus) -> NDArray[Any]:
        record = np.zeros(1, self.status_type)
        record["phase"], record["beat"] = int(status.phase), status.beat
        record["cold_ns"], record["warm_ns"] = status.cold_ns, status.warm_ns
        record["message"] = status.message.encode()[:TEXT_BYTES]
        return record

    def unpack_status(self, record: NDArray[Any]) -> PlannerStatus:
        row = record[0]
        message = bytes(row["message"]).decode("utf-8", "replace")
        return PlannerStatus(
            Phase(int(row["phase"])), int(row["beat"]), int(row["cold_ns"]), int(row["warm_ns"]), message
        )


class SharedPlanner:
    """The `Planner` that speaks to another process."""

    def __init__(self, records: PlanningRecords) -> None:
        self._records = records
        self._seen_result = 0
        self._seen_status = 0

    def request(self, request: PlanRequest) -> None:
        self._records.requests.write(self._records.pack_request(request))

    def result(self) -> PlanResult | None:
        found = self._records.results.read(self._seen_result)
        if found is None:
            return None
        self._seen_result, record = found
        return self._records.unpack_result(record)

    def status(self) -> PlannerStatus | None:
        found = self._records.statuses.read(self._seen_status)
        if found is None:
            return None
        self._seen_status, record = found
        return self._records.unpack_status(record)
