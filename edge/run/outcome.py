"""How a run went."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edge.inference.records import PlannerStatus
from edge.log.recorder import Samples
from edge.realtime.rights import RealtimeSetting
from edge.realtime.scheduler import FixedStep
from edge.run.counters import Counters
from edge.run.supervision import Loss


@dataclass(frozen=True)
class RunOutcome:
    """`ended` is "duration", "user", "policy" or "safety stop"; `error` is the reason of a safety stop.

    `report` is the run in numbers, as `edge-run --report` writes it.
    """

    ended: str
    error: str | None
    counters: Counters
    samples: Samples
    planner: PlannerStatus
    lateness: FixedStep
    realtime: list[RealtimeSetting]
    losses: list[Loss]
    clock_uncertainty_us: float
    clock_drift_ppm: float
    moved_s: float
    step_us: int
    sent_bytes: int
    resent_chunks: int
    bad_frames: int
    parts: tuple[str, ...] = ()
    """What a chunk's times are of, after the frames."""
    traceback: str | None = None
    """Where an error of our own was raised."""
    report: dict[str, Any] = field(default_factory=dict)
