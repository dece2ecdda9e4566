"""From the observation to the last byte on the wire, in a run with everything but the arm.

The inference process, the control loop with what rights the system grants, and the firmware behind a pseudo-terminal
run as they do on a robot; only the arm is an ideal one, and the camera a test pattern. What a policy makes of a test
pattern is scaled to nothing, or the firmware would rightly refuse it. The line notes when the last byte of each commit
has left, the planner when a chunk was requested for and when it was in control's hands.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness import summary
from bench.policy_run import STILL_RAD, Runner
from edge.arms import load_arm
from edge.bundle import MANIFEST, Bundle, load_bundle
from edge.inference.handle import InferenceProcess
from edge.inference.records import Planner, PlannerStatus, PlanRequest, PlanResult
from edge.realtime.rights import cpus_here
from edge.run.display import Display
from edge.run.outcome import RunOutcome
from edge.run.session import Session
from edge.run.settings import RunSettings
from firmware_bridge.codes import MessageType
from firmware_bridge.simulator import SimulatedArm, SimulatorProcess
from firmware_bridge.transports import SerialTransport, Transport

RATE_HZ = 250.0
EXECUTE_STEPS = 2
"""Chunks follow each other faster than in a normal run (5), so that a short run has a hundred of them."""
WIRE_BOUNDARY = (
    "from control's request (the frames are captured after it) to the last byte of the chunk's commit handed to the "
    f"kernel; two processes, control at {RATE_HZ:g} Hz, a pseudo-terminal without a baud rate, simulated device"
)


class NotingTransport:
    """A line that notes when the last byte of each commit was written."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.commits_ns: list[int] = []

    def read(self) -> bytes:
        return self._inner.read()

    def write(self, data: bytes) -> None:
        self._inner.write(data)
        if len(data) > 1 and data[1] & 0x1F == MessageType.COMMIT:  # behind the first COBS code, as in can_stream
            self.commits_ns.append(time.monotonic_ns())

    def close(self) -> None:
        self._inner.close()


class NotingPlanner:
    """A planner that notes when chunks were requested for, and when they were in control's hands."""

    def __init__(self, inner: Planner) -> None:
        self._inner = inner
        self.requested_ns: dict[int, int] = {}
        self.held_ns: dict[int, int] = {}

    def request(self, request: PlanRequest) -> None:
        self.requested_ns[request.id] = time.monotonic_ns()
        self._inner.request(request)

    def result(self) -> PlanResult | None:
        result = self._inner.result()
        if result is not None:
            self.held_ns[result.id] = time.monotonic_ns()
        return result

    def status(self) -> PlannerStatus | None:
        return self._inner.status()


def wire_run(bundle: Bundle, how: Runner, seconds: float) -> dict[str, Any]:
    """Runs for `seconds`; times in ms, and what became of the chunks and of the loop's deadlines."""
    with tempfile.TemporaryDirectory(prefix="vla-edge-bench-") as folder:
        return _still_run(stilled(bundle, Path(folder) / "bundle"), how, seconds)


def stilled(bundle: Bundle, out: Path) -> Bundle:
    """The same engines, whose actions are scaled to nothing."""
    shutil.copytree(bundle.path, out, copy_function=_link_or_copy)
    arms = []
    for arm in bundle.manifest.arms:
        axes = [replace(axis, action=replace(axis.action, offset=0.0, scale=STILL_RAD)) for axis in arm.axes]
        arms.append(replace(arm, axes=tuple(axes)))
    (out / MANIFEST).unlink()  # it may be the same file as the original
    (out / MANIFEST).write_text(replace(bundle.manifest, arms=tuple(arms)).to_json(), encoding="utf-8")
    return load_bundle(out)


def _link_or_copy(source: str, target: str) -> None:
    """Engines may have gigabytes, and the system's folder for temporary files little room."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _still_run(bundle: Bundle, how: Runner, seconds: float) -> dict[str, Any]:
    arm = load_arm(how.arm)
    cameras = ("pattern:",) * len(bundle.manifest.cameras)
    run = RunSettings(how.arm, str(bundle.path), how.task, cameras, how.seed, how.engine, how.threads)
    run = replace(run, cpus=cpus_here().others, duration_s=seconds, rate_hz=RATE_HZ, execute_steps=EXECUTE_STEPS)
    with ExitStack() as stack:
        device = stack.enter_context(closing(SimulatorProcess(SimulatedArm(arm.name, arm.home_rad))))
        line = NotingTransport(SerialTransport(device.port))
        stack.callback(line.close)
        inference = stack.enter_context(closing(InferenceProcess(bundle, arm, run, NotingPlanner)))
        outcome = Session(arm, line, run, Display(), None).run(inference)
        assert isinstance(inference.planner, NotingPlanner)
        return _times(inference.planner, line.commits_ns, how.seed) | _figures(outcome)


def _figures(outcome: RunOutcome) -> dict[str, Any]:
    counters, loop = outcome.counters, outcome.lateness
    return {
        "cold": {"first_call_ms": outcome.planner.cold_ns / 1e6},
        "replan_hz": len(counters.committed_ids) / outcome.moved_s,
        "control_hz": loop.ticks / outcome.moved_s,
        "execute_steps": EXECUTE_STEPS,
        "chunks": {
            "computed": counters.chunks,
            "committed": len(counters.committed_ids),
            "late": counters.late,
            "refused": len(counters.refused),
        },
        "loop": {
            "ticks": loop.ticks,
            "overruns": loop.overruns,
            "late_p50_us": loop.lateness.percentile_us(50),
            "late_p99_us": loop.lateness.percentile_us(99),
        },
        "realtime": {setting.what: setting.granted for setting in outcome.realtime},
        "stop": outcome.error,
    }


def _times(planner: NotingPlanner, commits_ns: list[int], seed: int) -> dict[str, Any]:
    """Each chunk in control's hands belongs to the first commit after it, if that comes before the next chunk."""
    held = sorted((ns, number) for number, ns in planner.held_ns.items())
    to_chunk, to_wire = [], []
    commits = np.array(commits_ns, dtype=np.int64)
    for index, (ns, number) in enumerate(held):
        requested = planner.requested_ns.get(number)
        if requested is None:
            continue
        to_chunk.append(ns - requested)
        after = np.searchsorted(commits, ns)
        until = held[index + 1][0] if index + 1 < len(held) else np.iinfo(np.int64).max
        if after < len(commits) and commits[after] < until:
            to_wire.append(int(commits[after]) - requested)
    return {
        name: {**summary(np.array(values) / 1e6, seed, "ms"), "raw_ns": values} if values else None
        for name, values in (("observation_to_chunk", to_chunk), ("observation_to_wire", to_wire))
    }
