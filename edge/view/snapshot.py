"""What the live page shows of a run, as one record of fixed size, and the commands that come back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.inference.mailbox import Mailbox, SharedMemory
from edge.plan.trajectory import from_micro
from edge.realtime.scheduler import FixedStep
from edge.run.commands import Command
from edge.run.controller import Controller
from edge.run.motion import Motion
from firmware_bridge.codes import DeviceState
from firmware_bridge.messages import StateReport

LATENESS_EDGES_US = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 100_000)
"""Upper edges of the bins of lateness on the page."""
PLAN_KNOTS = 64
TEXT_BYTES = 240
STATES = {state.value: state.name.lower() for state in DeviceState}
MOTIONS = tuple(Motion)


class ViewRecords:
    """The two mailboxes between a run and its page: snapshots one way, presses of buttons the other."""

    def __init__(self, joints: int, descriptor: int | None = None) -> None:
        self.snapshot_type = np.dtype(
            [
                ("device_us", "<i8"),
                ("state", "<i4"),
                ("motion", "<i4"),
                ("buffered_ms", "<i4"),
                ("step_ms", "<f4"),
                ("committed", "<i8"),
                ("late", "<i8"),
                ("refused", "<i8"),
                ("interventions", "<i8"),
                ("overruns", "<i8"),
                ("ticks", "<i8"),
                ("chunks", "<i8"),
                ("latency_ms", "<f4"),
                ("engines_ms", "<f4", (4,)),
                ("splice_us", "<i8"),
                ("commanded", "<f8", (joints,)),
                ("measured", "<f8", (joints,)),
                ("knots", "<i4"),
                ("plan_us", "<i8", (PLAN_KNOTS,)),
                ("plan", "<f8", (PLAN_KNOTS, joints)),
                ("lateness", "<u8", (len(LATENESS_EDGES_US),)),
                ("refusal", f"S{TEXT_BYTES}"),
                ("note", f"S{TEXT_BYTES}"),
            ]
        )
        self.press_type = np.dtype([("count", "<i8", (len(Command),))])
        snapshot_size = Mailbox.size_of(self.snapshot_type)
        self.memory = SharedMemory(snapshot_size + Mailbox.size_of(self.press_type), descriptor)
        self.snapshots = Mailbox(self.snapshot_type, self.memory, 0)
        self.presses = Mailbox(self.press_type, self.memory, snapshot_size)


def fill_report(record: NDArray[Any], report: StateReport, device_us: int) -> None:
    """Writes what the device says of itself; `device_us` is its time, unwrapped."""
    row = record[0]
    row["device_us"], row["state"], row["buffered_ms"] = device_us, report.state, report.buffered_ms
    row["commanded"] = from_micro(report.commanded_urad)
    row["measured"] = from_micro(report.measured_urad)


def fill(record: NDArray[Any], controller: Controller, loop: FixedStep | None) -> None:
    """Writes the state of the run into a record of shape (1,)."""
    row, counters, timeline = record[0], controller.counters, controller.timeline
    state = controller.last_state
    if state is not None:
        fill_report(record, state, controller.client.link.clock.unwrap(state.device_us))
    row["motion"] = MOTIONS.index(controller.motion)
    row["committed"], row["late"], row["refused"] = len(counters.committed_ids), counters.late, len(counters.refused)
    row["interventions"], row["chunks"] = counters.interventions, counters.chunks
    row["step_ms"] = timeline.spacing_us(timeline.last) / 1000
    if counters.engine_us:
        row["latency_ms"] = counters.latency_us[-1] / 1000
        row["engines_ms"] = np.multiply(counters.engine_us[-1], 1e-3)
    first = max(timeline.step_at(float(row["device_us"])), 0)
    knots = min(timeline.last - first + 1, PLAN_KNOTS) if timeline.last > 0 else 0
    row["knots"], row["splice_us"] = knots, timeline.splice_us
    if knots > 0:
        row["plan"][:knots] = timeline.knots(first, knots).q_rad
        row["plan_us"][:knots] = [timeline.due_us(first + index) for index in range(knots)]
    row["refusal"] = counters.refused[-1].encode()[:TEXT_BYTES] if counters.refused else b""
    if loop is not None:
        row["overruns"], row["ticks"] = loop.overruns, loop.ticks
        row["lateness"] = loop.lateness.coarse(LATENESS_EDGES_US)


def plain(record: NDArray[Any]) -> dict[str, Any]:
    """A record as plain data, for JSON."""
    row = record[0]
    knots = int(row["knots"])
    lists = {name: np.round(row[name], 5).tolist() for name in ("commanded", "measured", "engines_ms")}
    numbers = {
        name: row[name].item()
        for name in (
            "device_us",
            "buffered_ms",
            "committed",
            "late",
            "refused",
            "interventions",
            "overruns",
            "ticks",
            "chunks",
            "splice_us",
        )
    }
    return {
        **numbers,
        **lists,
        "state": STATES.get(int(row["state"]), str(row["state"])),
        "motion": MOTIONS[int(row["motion"])].value,
        "step_ms": round(float(row["step_ms"]), 2),
        "latency_ms": round(float(row["latency_ms"]), 2),
        "plan_us": row["plan_us"][:knots].tolist(),
        "plan": np.round(row["plan"][:knots], 5).tolist(),
        "lateness": row["lateness"].tolist(),
        "refusal": bytes(row["refusal"]).decode("utf-8", "replace"),
        "note": bytes(row["note"]).decode("utf-8", "replace"),
    }
