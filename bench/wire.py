"""From the observation to the last byte on the wire, in a run with everything but the arm.

The inference process, the control loop with what rights the system grants, and the firmware behind a pseudo-terminal
run as they do on a robot; only the arm is an ideal one, and the camera a test pattern. What a policy makes of a test
pattern is scaled to nothing, or the firmware would rightly refuse it. The line notes when the last byte of each commit
has left, the planner when a chunk was asked for and when it was in control's hands.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness import summary
from bench.policy_run import Runner, STILL_RAD
from edge.arms import load_arm
from edge.bundle import MANIFEST, Bundle, load_bundle
from edge.plan.replanner import ControlSettings
from edge.run.controller import Controller
from edge.errors import SafetyStop
from edge.inference.process import InferenceSettings
from edge.inference.handle import InferenceProcess
from edge.inference.records import Planner, PlannerStatus, PlanRequest, PlanResult
from edge.realtime.rights import cpus_here, realtime
from edge.realtime.scheduler import FixedStep, measured_spin_ns
from edge.run.arm import ConnectedArm, client_in_real_time
from edge.log.recorder import Recorder
from firmware_bridge.client import DeviceClient
from firmware_bridge.codes import MessageType
from firmware_bridge.errors import LinkLost
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
    """A planner that notes when chunks were asked for, and when they were in control's hands."""

    def __init__(self, inner: Planner) -> None:
        self._inner = inner
        self.asked_ns: dict[int, int] = {}
        self.held_ns: dict[int, int] = {}

    def request(self, request: PlanRequest) -> None:
        self.asked_ns[request.id] = time.monotonic_ns()
        self._inner.request(request)

    def result(self) -> PlanResult | None:
        result = self._inner.result()
        if result is not None:
            self.held_ns[result.id] = time.monotonic_ns()
        return result

    def status(self) -> PlannerStatus | None:
        return self._inner.status()


class WarmInference:
    """An inference process, and how long its first call took once it is warm."""

    def __init__(self, process: InferenceProcess) -> None:
        assert isinstance(process.planner, NotingPlanner)
        self._process, self.planner = process, process.planner
        self.cold_ns = 0

    def wait_warm(self, idle: Callable[[], None]) -> int:
        """Waits; returns the slowest warm call in ns. Raises `InputError` if the process fails."""
        status = self._process.wait_ready(lambda text: None, idle)
        self.cold_ns = status.cold_ns
        return status.warm_ns


def wire_run(bundle: Bundle, how: Runner, seconds: float) -> dict[str, Any]:
    """Runs for `seconds`; times in ms, and what became of the chunks and of the loop's deadlines."""
    with tempfile.TemporaryDirectory(prefix="vla-edge-bench-") as folder:
        return _still_run(stilled(bundle, Path(folder) / "bundle"), how, seconds)


def stilled(bundle: Bundle, out: Path) -> Bundle:
    """The same engines, whose actions are scaled to nothing."""
    shutil.copytree(bundle.path, out, copy_function=_link_or_copy)
    arms = []
    for arm in bundle.manifest.embodiments:
        count = len(arm.actions.slots)
        actions = replace(arm.actions, offset=(0.0,) * count, scale=(STILL_RAD,) * count)
        arms.append(replace(arm, actions=actions))
    (out / MANIFEST).unlink()  # it may be the same file as the original
    (out / MANIFEST).write_text(replace(bundle.manifest, embodiments=tuple(arms)).to_json(), encoding="utf-8")
    return load_bundle(out)


def _link_or_copy(source: str, target: str) -> None:
    """Engines may have gigabytes, and the system's folder for temporary files little room."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _still_run(bundle: Bundle, how: Runner, seconds: float) -> dict[str, Any]:
    arm = load_arm(how.arm)
    cameras = ("pattern:",) * bundle.manifest.policy.cameras
    settings = InferenceSettings(
        str(bundle.path), how.arm, how.task, cameras, how.seed, how.threads, 0.0, cpus_here().others, how.engine
    )
    with ExitStack() as stack:
        device = stack.enter_context(closing(SimulatorProcess(SimulatedArm(arm.name, arm.home_rad))))
        line = NotingTransport(SerialTransport(device.port))
        stack.callback(line.close)
        inference = stack.enter_context(closing(InferenceProcess(bundle, arm, settings, NotingPlanner)))
        return _run(bundle, how, client_in_real_time(line), line, WarmInference(inference), seconds)


def _run(
    bundle: Bundle,
    how: Runner,
    client: DeviceClient,
    line: NotingTransport,
    inference: WarmInference,
    seconds: float,
) -> dict[str, Any]:
    planner = inference.planner
    stop = None
    with realtime(cpus_here()) as grants:
        spin_ns = measured_spin_ns(time.monotonic_ns, time.sleep)
        controller = _controller(bundle, how, client, inference, seconds)
        client.arm(client.wait_for_state().measured_urad, 1)
        loop = FixedStep(round(1e9 / RATE_HZ), time.monotonic_ns, time.sleep, spin_ns)
        began_ns = now_ns = time.monotonic_ns()
        try:
            while now_ns - began_ns < seconds * 1e9:
                now_ns = loop.wait()
                controller.step(now_ns, loop.ticks + 1)
                client.keep_clock(now_ns, loop.slack_s() - spin_ns / 1e9)
            client.stop()
        except (SafetyStop, LinkLost) as error:
            stop = str(error)
    moved_s = (now_ns - began_ns) / 1e9
    return {
        **_times(planner, line.commits_ns, how.seed),
        "cold": {"first_call_ms": inference.cold_ns / 1e6},
        "replan_hz": len(controller.counters.committed_ids) / moved_s,
        "control_hz": loop.ticks / moved_s,
        "execute_steps": EXECUTE_STEPS,
        "chunks": {
            "computed": controller.counters.chunks,
            "committed": len(controller.counters.committed_ids),
            "late": controller.counters.late,
            "refused": len(controller.counters.refused),
        },
        "loop": {
            "ticks": loop.ticks,
            "overruns": loop.overruns,
            "late_p50_us": loop.lateness.percentile_us(50),
            "late_p99_us": loop.lateness.percentile_us(99),
        },
        "realtime": {grant.what: grant.granted for grant in grants},
        "stop": stop,
    }


def _controller(
    bundle: Bundle, how: Runner, client: DeviceClient, inference: WarmInference, seconds: float
) -> Controller:
    """Shakes hands with the device, waits for inference, and sets control up as a session does."""
    arm = load_arm(how.arm)
    connected = ConnectedArm.connect(arm, client)

    def idle() -> None:
        client.poll(time.monotonic_ns())
        time.sleep(0.01)

    warm_ns = inference.wait_warm(idle)
    return Controller(
        client,
        inference.planner,
        arm,
        bundle.manifest.policy,
        bundle.embodiment(arm.embodiment).step_s,
        ControlSettings(EXECUTE_STEPS, connected.lead_us()),
        Recorder(round(110 * (seconds + 10)), arm.dof),
        warm_ns // 1000,
    )


def _times(planner: NotingPlanner, commits_ns: list[int], seed: int) -> dict[str, Any]:
    """Each chunk in control's hands belongs to the first commit after it, if that comes before the next chunk."""
    held = sorted((ns, number) for number, ns in planner.held_ns.items())
    to_chunk, to_wire = [], []
    commits = np.array(commits_ns, dtype=np.int64)
    for index, (ns, number) in enumerate(held):
        asked = planner.asked_ns.get(number)
        if asked is None:
            continue
        to_chunk.append(ns - asked)
        after = np.searchsorted(commits, ns)
        until = held[index + 1][0] if index + 1 < len(held) else np.iinfo(np.int64).max
        if after < len(commits) and commits[after] < until:
            to_wire.append(int(commits[after]) - asked)
    return {
        name: {**summary(np.array(values) / 1e6, seed, "ms"), "raw_ns": values} if values else None
        for name, values in (("observation_to_chunk", to_chunk), ("observation_to_wire", to_wire))
    }
