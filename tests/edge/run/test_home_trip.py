"""The way home between two episodes, against the real firmware on a simulated clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge.log.taps import tapped_planner
from edge.log.trace import Trace, read_trace
from edge.run.commands import Command
from edge.run.controller import Controller
from edge.run.home_trip import HomeTrip
from edge.run.homing import MOST_VELOCITY
from edge.run.motion import Motion
from edge.run.replay import Replay
from firmware_bridge.codes import DeviceState
from firmware_bridge.constants import POSE_TOLERANCE_RAD
from tests.edge.log.support import LoggedRun
from tests.edge.run.test_supervision import ReadyPlanner, Supervised
from tests.support import FRANKA, HOME

LONGEST_WAY_MS = 6000


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Supervised]:
    """An arm that a policy has taken away from home, and that is held at rest there."""
    run = Supervised(tmp_path / "trace.csv")
    run.go(1520)
    run.commands.put(Command.PAUSE)
    run.go(600)
    assert run.controller.motion is Motion.HELD
    assert away_rad(run) > 3 * POSE_TOLERANCE_RAD
    yield run
    assert run.end().limited.sum() == 0


def away_rad(run: Supervised) -> float:
    assert run.controller.last_state is not None
    return float(np.abs(1e-6 * np.array(run.controller.last_state.commanded_urad) - HOME).max())


def trace_from(run: Supervised, row: int) -> Trace:
    run.rig.device.flush()
    return read_trace(run.trace_file).part(slice(row, None))


def rows(run: Supervised) -> int:
    return len(trace_from(run, 0).q)


def test_the_arm_goes_home_on_a_word_and_waits_there(run: Supervised) -> None:
    policy, before, latencies = run.controller.planner, rows(run), len(run.controller.counters.latency_us)
    asked = len(run.planner.requests)
    run.commands.put(Command.HOME)
    run.go(LONGEST_WAY_MS)
    assert run.controller.motion is Motion.HELD and away_rad(run) < POSE_TOLERANCE_RAD / 4
    trace = trace_from(run, before)
    assert 0.1 < np.abs(trace.dq).max() <= 1.01 * MOST_VELOCITY
    assert run.told[-2].startswith("the move home takes") and "waits for the start command" in run.told[-1]
    assert run.controller.planner is policy and len(run.planner.requests) == asked, "the policy was not asked"
    assert len(run.controller.counters.latency_us) == latencies, "and nothing was measured of it"
    still = rows(run)
    run.go(1000)
    assert np.ptp(trace_from(run, still).q, axis=0).max() == 0.0


def test_the_policy_goes_on_from_home_on_the_next_word(run: Supervised) -> None:
    run.commands.put(Command.HOME)
    run.go(LONGEST_WAY_MS)
    before, asked = rows(run), len(run.planner.requests)
    run.commands.put(Command.START)
    run.go(2000)
    assert run.controller.motion is Motion.RUNNING and len(run.planner.requests) > asked
    assert np.ptp(trace_from(run, before).q, axis=0).max() > 0.05
    first = run.planner.requests[asked]
    assert first.step == 0 and np.all(first.actions_rad == 0), "its history begins at rest"


def test_a_pause_on_the_way_ends_it(run: Supervised) -> None:
    policy = run.controller.planner
    run.commands.put(Command.HOME)
    run.go(800)
    assert run.controller.motion is Motion.RUNNING and run.controller.planner is not policy
    run.commands.put(Command.PAUSE)
    run.go(600)
    assert run.controller.motion is Motion.HELD and run.controller.planner is policy
    assert away_rad(run) > POSE_TOLERANCE_RAD


def test_the_word_means_nothing_while_the_arm_moves(run: Supervised) -> None:
    run.commands.put(Command.START)
    run.go(1000)
    told, policy = list(run.told), run.controller.planner
    run.commands.put(Command.HOME)
    run.go(200)
    assert run.controller.planner is policy and run.told == told


def test_at_home_nothing_moves(run: Supervised) -> None:
    run.commands.put(Command.HOME)
    run.go(LONGEST_WAY_MS)
    before = rows(run)
    run.commands.put(Command.HOME)
    run.go(1000)
    assert run.told[-1] == "the arm is at home already, and waits for the start command"
    assert np.ptp(trace_from(run, before).q, axis=0).max() == 0.0


def test_from_outside_the_limits_there_is_no_way(run: Supervised, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run.controller.last_state is not None
    outside = (int(1e6 * FRANKA.limits.position_max_rad[0]) + 1000, *run.controller.last_state.commanded_urad[1:])
    moved = replace(run.controller.last_state, commanded_urad=outside)
    monkeypatch.setattr(Controller, "last_state", property(lambda controller: moved))
    run.supervisor.home.begin()
    assert "outside its limits" in run.told[-1]
    assert run.controller.motion is Motion.HELD


def test_inference_that_is_lost_on_the_way(run: Supervised) -> None:
    run.commands.put(Command.HOME)
    run.go(800)
    run.inference.why_gone = "the inference process ended by itself (killed by SIGKILL)"
    run.go(4000)
    assert run.rig.device.state == DeviceState.HOLD and run.inference.restarts == 1
    assert isinstance(run.planner, ReadyPlanner)
    run.planner.ready = True
    run.go(100)
    run.commands.put(Command.START)
    run.go(2000)
    assert run.controller.planner is run.planner and len(run.planner.requests) > 1


def test_the_word_means_nothing_while_inference_is_lost(run: Supervised) -> None:
    run.commands.put(Command.START)
    run.go(1000)
    run.inference.why_gone = "the inference process ended by itself (killed by SIGKILL)"
    run.go(3000)
    before = rows(run)
    run.commands.put(Command.HOME)
    run.go(1000)
    assert run.controller.motion is Motion.HELD and run.controller.planner is run.planner
    assert np.ptp(trace_from(run, before).q, axis=0).max() == 0.0


def test_the_way_is_in_the_log_and_taken_again_in_a_replay() -> None:
    logged = LoggedRun().go(1500)
    controller, told = logged.controller, list[str]()
    trip = HomeTrip(controller, told.append, lambda way: tapped_planner(way, logged.rig.journal))
    controller.pause()
    logged.go(600)
    trip.begin()
    for _ in range(LONGEST_WAY_MS // 20):
        logged.go(20)
        trip.step()
    assert controller.motion is Motion.HELD and told[0].startswith("the move home takes")
    controller.resume()
    logged.go(1500).end()
    assert logged.stop is None
    verdict = Replay(iter(logged.records)).run()
    assert verdict.difference is None and verdict.missing == 0 and verdict.ended
    logged.close()
