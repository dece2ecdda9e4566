"""What control needs of inference, wherever it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from edge.bundle import ArmSpec, ChunkShape
from edge.inference.records import FloatArray, Planner, PlannerStatus, PlanRequest, PlanResult


class ChunkSource(Protocol):
    """Computes the answer to a request: a policy with its cameras, or a scripted expert."""

    def answer(self, request: PlanRequest) -> PlanResult:
        """The chunk from the request's step on."""


class InferenceHandle(Protocol):
    """Inference that runs beside control: a process, or a thread. `trained` is None without training statistics; a
    chunk's times are of its `parts`."""

    planner: Planner
    shape: ChunkShape
    parts: tuple[str, ...]
    step_s: float
    trained: ArmSpec | None

    @property
    def pid(self) -> int | None:
        """The process, None for a thread of this one."""

    @property
    def ending(self) -> bool:
        """Whether the newest chunk may be the policy's last: the run then ends with it, if no other comes."""

    @property
    def finished(self) -> bool:
        """Whether the policy has no chunk left."""

    def wait_ready(self, notify: Callable[[str], None], idle: Callable[[], object]) -> PlannerStatus:
        """Waits until the first chunk can be requested, calling `idle` meanwhile. Raises `InputError`."""

    def first_goals(self, measured_rad: FloatArray, idle: Callable[[], object]) -> FloatArray | None:
        """The goals (n, J) of a chunk observed now, at rest at `measured_rad` (J,), before anything is armed; None of a
        policy that makes increments. Waits, calling `idle` meanwhile. Raises `InputError`."""

    def beat(self) -> PlannerStatus | None:
        """The newest status, once, beside what the planner hands out."""

    def exit_reason(self) -> str | None:
        """Why it has ended; None while it runs."""

    def restart(self) -> Planner:
        """Ends what is left of it and starts it again; returns the new planner."""

    def close(self) -> None:
        """Ends it."""
