"""What happened in a run, counted for its report."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from edge.inference.records import PlanResult
from edge.run.goal_counts import GoalCounts
from edge.run.kept import Kept
from edge.run.pauses import PauseLog
from firmware_bridge.codes import DeviceState
from firmware_bridge.messages import StateReport


class Slow(str, Enum):
    """Why steps take longer than trained."""

    LATENCY = "inference takes long"
    LATE = "a chunk was overdue"
    PAUSED = "the policy was paused"
    GOALS = "its goals were beyond the limits of the arm"


@dataclass(frozen=True)
class PaceChange:
    """From `device_us` on, steps take `spacing_us`; `latency_us` was expected of a chunk then."""

    device_us: int
    spacing_us: int
    latency_us: int
    why: Slow


@dataclass
class Counters:
    """What happened, for the report: single figures of the newest chunks, sums over all.

    latency_us    from the request (its states are the newest then) to the chunk in control's hands
    frame_age_us  how old the oldest frame of a chunk was at the request; 0 for one captured later
    engine_us     of each chunk: the frames, then each of the policy's parts
    """

    requests: int = 0
    chunks: int = 0
    late: int = 0
    refused: Kept[str] = field(default_factory=Kept)
    latency_us: Kept[int] = field(default_factory=Kept)
    frame_age_us: Kept[int] = field(default_factory=Kept)
    pauses: PauseLog = field(default_factory=PauseLog)
    engine_us: Kept[tuple[int, ...]] = field(default_factory=Kept)
    delays: Kept[int] = field(default_factory=Kept)
    pace_changes: Kept[PaceChange] = field(default_factory=Kept)
    retimed: int = 0
    splice_acceleration: Kept[float] = field(default_factory=Kept)
    least_buffer_ms: float = float("inf")
    interventions: int = 0
    interventions_before: int | None = None
    device_refusals: int = 0
    committed_ids: Kept[int] = field(default_factory=Kept)
    goals: GoalCounts = field(default_factory=GoalCounts)

    def reported(self, report: StateReport) -> None:
        """Takes one report of the device."""
        if self.interventions_before is None:
            self.interventions_before = report.interventions
        self.interventions = report.interventions - self.interventions_before
        if report.state == DeviceState.STREAMING:
            self.least_buffer_ms = min(self.least_buffer_ms, report.buffered_ms)

    def measured(self, sent_ns: int, result: PlanResult, latency_us: int) -> None:
        """Takes what inference needed for one chunk, requested at host time `sent_ns`."""
        self.latency_us.append(latency_us)
        self.frame_age_us.append(max(0, sent_ns - (result.captured_ns or sent_ns)) // 1000)
        self.engine_us.append((result.camera_ns // 1000, *(result.engine_ns // 1000).tolist()))
