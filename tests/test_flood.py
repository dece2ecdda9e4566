"""A flood on the line and on the page at once: the loop keeps its time, and the stop works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from array import array
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.doors.view.launch import LiveView
from edge.log.trace import Trace, read_trace
from edge.realtime.scheduler import BIN_US, FixedStep
from edge.run.commands import CommandQueue
from edge.run.controller import Controller
from edge.run.display import Display
from edge.run.front import open_arm
from edge.run.outcome import RunOutcome
from firmware_bridge.codes import DeviceState, StopReason
from firmware_bridge.messages import StateReport
from firmware_bridge.simulator import SimulatedArm, SimulatorProcess
from tests.edge.doors.view.test_page import STOP_TICKS
from tests.support import FRANKA, HOME, broken_limits

pytestmark = pytest.mark.real_time

SETTLE_S = 0.5
MOST_RATIO = 2.0
"""Of the loop's lateness, p99, in a flood and in the quiet just before it; the median of the turns."""
RESOLUTION_US = 200
"""Below this, lateness is that of the machine's timers and not of our work."""


@dataclass
class Watched:
    """The live page, with what it is told of the loop written down."""

    page: LiveView
    looks: list[tuple[float, array[int]]] = field(default_factory=list)
    reports: list[StateReport] = field(default_factory=list)
    frames = None
    """It shows no camera."""

    def publish(self, controller: Controller, loop: FixedStep | None) -> None:
        if loop is not None:
            self.looks.append((time.monotonic(), loop.lateness.counts()))
        self.page.publish(controller, loop)

    def publish_report(self, report: StateReport, device_us: int) -> None:
        self.reports.append(report)
        self.page.publish_report(report, device_us)

    def note(self, text: str) -> None:
        self.page.note(text)

    def pass_on(self, commands: CommandQueue) -> None:
        self.page.pass_on(commands)

    def p99_us(self, from_s: float, to_s: float) -> float:
        """Of the steps between two times."""
        within = [counts for at_s, counts in self.looks if from_s <= at_s <= to_s]
        steps = np.cumsum(np.array(within[-1], np.int64) - np.array(within[0], np.int64))
        assert steps[-1] > 100
        return float(np.searchsorted(steps, 0.99 * steps[-1]) * BIN_US)


def wave(observation: Any) -> Sequence[Any]:
    steps = observation.step + 1 + np.arange(15)
    return HOME + 0.1 * (1 - np.cos(0.25 * steps))[:, None] * np.ones(7)  # type: ignore[no-any-return]


def flooded_run(
    folder: Path, quiet_s: float, flood_s: float, turns: int
) -> tuple[RunOutcome, Watched, list[float], Trace]:
    """A run that is left alone and flooded, in turns, then stopped from the page."""
    with ExitStack() as stack:
        simulator = SimulatorProcess(SimulatedArm(FRANKA.name, FRANKA.home_rad, trace=folder / "trace.csv"))
        closed = stack.enter_context(ExitStack())
        closed.callback(simulator.close)
        command = [sys.executable, "-m", "tests.flooding"]
        line = subprocess.Popen([*command, "line", f"serial:{simulator.port}"], stdout=subprocess.PIPE, text=True)
        stack.callback(line.wait)
        stack.callback(line.kill)
        assert line.stdout is not None
        port = json.loads(line.stdout.readline())["port"]
        about = {"arm": "test", "joints": list(FRANKA.joints), "units": ["rad"] * 7, "parts": [], "step_ms": 100}
        live = LiveView(7, about)
        stack.callback(live.close)
        watched = Watched(live)
        page_port, token = live.url.rsplit(":", 1)[1].split("/#")
        # A token may begin with a hyphen.
        arguments = [page_port, token, *map(str, (line.pid, quiet_s, flood_s, turns))]
        arm = stack.enter_context(open_arm("franka", f"serial:{port}", scene_seed=None))
        enemy = subprocess.Popen([*command, "enemy", "--", *arguments], stdout=subprocess.PIPE, text=True)
        stack.callback(enemy.kill)
        outcome = arm.run(
            wave, duration_s=turns * (quiet_s + flood_s) + 30, display=Display(page=watched), realtime=True
        )
        assert outcome.error is None, outcome.error
        said, _ = enemy.communicate(timeout=30)
        assert enemy.returncode == 0
    return outcome, watched, [float(line) for line in said.split()], read_trace(folder / "trace.csv")


def judge(outcome: RunOutcome, watched: Watched, times_s: list[float], trace: Trace) -> None:
    *turns_s, answered_s = times_s
    ratios, quiet_from_s = [], watched.looks[0][0]
    for began_s, ended_s in zip(turns_s[::2], turns_s[1::2]):
        quiet = watched.p99_us(quiet_from_s + SETTLE_S, began_s)
        flood = watched.p99_us(began_s + SETTLE_S, ended_s)
        print(f"lateness p99: quiet {quiet:.0f} us, flood {flood:.0f} us")
        ratios.append(flood / max(quiet, RESOLUTION_US))
        quiet_from_s = ended_s
    print(f"ratios {sorted(round(ratio, 2) for ratio in ratios)}; press answered in {answered_s - turns_s[-1]:.3f} s")
    assert (outcome.ended, outcome.error) == ("user", None)
    assert outcome.counters.refused.total == 0
    stopping = [report for report in watched.reports if report.state in (DeviceState.DECEL, DeviceState.HOLD)]
    assert stopping and stopping[-1].reason == StopReason.HOST_STOP, "the stop that was pressed, and no watchdog's"
    stop = int(np.flatnonzero(trace.state == "DECEL")[0])
    moved = np.flatnonzero(np.abs(np.diff(trace.q[stop:], axis=0)).max(axis=1))
    print(f"at rest {moved[-1] if moved.size else 0} ms after the stop began; {STOP_TICKS} ms are allowed")
    assert moved.size == 0 or moved[-1] < STOP_TICKS, "at rest within the safety case's time"
    assert broken_limits(trace, FRANKA) == []
    assert np.median(ratios) <= MOST_RATIO


def test_a_flood_on_line_and_page_at_once(tmp_path: Path) -> None:
    judge(*flooded_run(tmp_path, 4.0, 4.0, 1))


@pytest.mark.slow(reason="ten minutes of flood: make flood")
def test_a_long_flood_on_line_and_page_at_once(tmp_path: Path) -> None:
    """Each minute of it beside ten quiet seconds just before: what else the machine does meanwhile is in both."""
    judge(*flooded_run(tmp_path, 10.0, 60.0, int(os.environ.get("VLA_EDGE_FLOOD_MINUTES", "10"))))
