"""What the live page shows of a run, as one record of fixed size, and the commands that come back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from edge.inference.layout import Layout, RecordMailbox
from edge.inference.mailbox import Mailbox, SharedMemory
from edge.inference.records import MOST_ENGINES
from edge.plan.trajectory import FloatArray, IntArray, from_micro
from edge.realtime.scheduler import FixedStep
from edge.run.commands import Command, Verdict
from edge.run.controller import Controller
from edge.run.motion import Motion
from firmware_bridge.codes import DeviceState
from firmware_bridge.layout import Item
from firmware_bridge.messages import StateReport

LATENESS_EDGES_US = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 100_000)
"""Upper edges of the bins of lateness on the page."""
PLAN_KNOTS = 64
STATES = {state.value: state.name.lower() for state in DeviceState}
PRESSES: tuple[Command | Verdict, ...] = (*Command, *Verdict)
"""What a button of the page stands for."""
DIGITS = 5
Count = Annotated[int, Item("<i8")]
Name = Annotated[str, Item("S16")]
Text = Annotated[str, Item("S240")]
Milliseconds = Annotated[float, Item("<f8", "ms")]


class Phase(Enum):
    """How far a run has come."""

    STARTING = "starting"
    WAITING = "waiting"
    """For the start command; nothing is armed."""
    RUNNING = "running"
    ENDED = "ended"
    """The note says why."""


@dataclass(frozen=True)
class Snapshot:
    """A run as it is now. Before the first report all is zero or empty."""

    device_us: Annotated[int, Item("<i8", "device time, unwrapped, us")]
    state: Name
    phase: Name
    motion: Name
    buffered_ms: Count
    step_ms: Milliseconds
    committed: Count
    late: Count
    refused: Count
    interventions: Count
    overruns: Count
    ticks: Count
    chunks: Count
    latency_ms: Milliseconds
    reaction_ms: Annotated[
        float, Item("<f8", "from the capture of a frame to the first motion that follows from it, ms")
    ]
    engines_ms: Annotated[
        FloatArray, Item("<f8", "the frames, then each of the policy's parts, ms", ("up to engines",))
    ]
    splice_us: Annotated[int, Item("<i8", "device time of the last splice, us")]
    commanded: Annotated[FloatArray, Item("<f8", "rad", ("joints",))]
    measured: Annotated[FloatArray, Item("<f8", "rad", ("joints",))]
    plan_us: Annotated[IntArray, Item("<i8", "device times of the knots ahead, us", ("up to knots",))]
    plan: Annotated[FloatArray, Item("<f8", "the knots ahead, rad", ("up to knots", "joints"))]
    lateness: Annotated[NDArray[np.uint64], Item("<u8", "ticks in each bin", ("bins",))]
    refusal: Text
    note: Text

    def plain(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return {
            name: value if isinstance(value, str) else np.round(value, DIGITS).tolist()
            for name, value in vars(self).items()
        }


@dataclass(frozen=True)
class Presses:
    """How often each of `PRESSES` was pressed."""

    counts: Annotated[IntArray, Item("<i8", "presses", ("buttons",))]


class ViewRecords:
    """The two mailboxes between a run and its page: snapshots one way, presses of buttons the other."""

    def __init__(self, joints: int, descriptor: int | None = None) -> None:
        snapshot = Layout(
            Snapshot, joints=joints, engines=MOST_ENGINES + 1, knots=PLAN_KNOTS, bins=len(LATENESS_EDGES_US)
        )
        presses = Layout(Presses, buttons=len(PRESSES))
        size = Mailbox.size_of(snapshot.dtype)
        self.memory = SharedMemory(size + Mailbox.size_of(presses.dtype), descriptor)
        self.snapshots = RecordMailbox(snapshot, self.memory, 0)
        self.presses = RecordMailbox(presses, self.memory, size)
        self.blank = replace(snapshot.blank(), phase=Phase.STARTING.value, motion=Motion.RUNNING.value)


def of_report(report: StateReport, device_us: int) -> dict[str, Any]:
    """Fields of a snapshot from a state report; `device_us` is its time, unwrapped."""
    return {
        "device_us": device_us,
        "state": STATES.get(report.state, str(report.state)),
        "buffered_ms": report.buffered_ms,
        "commanded": from_micro(report.commanded_urad),
        "measured": from_micro(report.measured_urad),
    }


def of_run(controller: Controller, loop: FixedStep | None) -> dict[str, Any]:
    """Fields of a snapshot from the state of a run."""
    counters, timeline, report = controller.counters, controller.timeline, controller.last_state
    device_us = controller.client.link.clock.unwrap(report.device_us) if report is not None else 0
    found = of_report(report, device_us) if report is not None else {}
    if counters.engine_us:
        found["latency_ms"] = counters.latency_us[-1] / 1000
        found["engines_ms"] = np.multiply(counters.engine_us[-1], 1e-3)
    if counters.delays and counters.frame_age_us:
        delay_us = counters.delays[-1] * timeline.spacing_us(timeline.last)
        found["reaction_ms"] = (counters.frame_age_us[-1] + delay_us) / 1000
    first = max(timeline.step_at(device_us), 0)
    knots = min(timeline.last - first + 1, PLAN_KNOTS) if timeline.last > 0 else 0
    if loop is not None:
        found |= {"overruns": loop.overruns, "ticks": loop.ticks, "lateness": loop.lateness.coarse(LATENESS_EDGES_US)}
    return found | {
        "motion": controller.motion.value,
        "committed": counters.committed_ids.total,
        "late": counters.late,
        "refused": counters.refused.total,
        "interventions": counters.interventions,
        "chunks": counters.chunks,
        "step_ms": timeline.spacing_us(timeline.last) / 1000,
        "splice_us": timeline.splice_us,
        "plan": timeline.knots(first, knots).q_rad,
        "plan_us": [timeline.due_us(first + index) for index in range(knots)],
        "refusal": counters.refused[-1] if counters.refused else "",
    }
