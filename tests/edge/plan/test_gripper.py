"""A gripper's axis saturates where another axis would be refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.arms import load_arm
from edge.inference.records import PlanRequest
from edge.log.recorder import Recorder
from edge.log.trace import read_trace, violations
from edge.plan.gripper import CHANGE, MARGIN, SPEED, within_travel
from edge.plan.replanner import ControlSettings
from edge.run.controller import Controller
from firmware_bridge.codes import DeviceState
from tests.edge.run.test_controller import LEAD_US, SHAPE, STEP_S, ScriptedPlanner
from tests.support import FRANKA, Rig

HAND = load_arm("franka_hand")
HOME, STILL = np.array(HAND.home_rad), np.zeros(8)


def chunk(width_m: float) -> np.ndarray:
    """Fifteen steps that move the fingers alone."""
    rows = np.zeros((15, 8))
    rows[:, 7] = width_m
    return rows


@pytest.mark.parametrize(("step_m", "end_m"), [(-0.02, MARGIN * 0.08), (0.02, (1 - MARGIN) * 0.08)])
def test_it_stops_short_of_its_ends_and_keeps_to_its_speed(step_m: float, end_m: float) -> None:
    inside = within_travel(chunk(step_m), 0, HOME, STILL, HAND, STEP_S)
    width = HOME[7] + np.cumsum(inside[:, 7])
    assert width[-1] == pytest.approx(end_m, abs=1e-4)
    assert np.abs(inside[:, 7]).max() <= SPEED * STEP_S * 0.1 + 1e-12
    assert np.abs(np.diff(inside[:, 7], prepend=0.0)).max() <= 1.2 * CHANGE * STEP_S**2 * 2.0
    assert (width >= MARGIN * 0.08 - 1e-12).all() and (width <= (1 - MARGIN) * 0.08 + 1e-12).all()
    assert not inside[:, :7].any()


def test_what_is_committed_stays_as_it_is() -> None:
    asked = chunk(-0.02)
    inside = within_travel(asked, 3, HOME, STILL, HAND, STEP_S)
    np.testing.assert_array_equal(inside[:3], asked[:3])
    assert (asked == chunk(-0.02)).all(), "the chunk that was given is not changed"


def test_from_outside_it_may_stay_or_come_back() -> None:
    start = np.array([*HOME[:7], 0.0])
    assert not within_travel(chunk(-0.01), 0, start, STILL, HAND, STEP_S)[:, 7].any()
    assert within_travel(chunk(0.01), 0, start, STILL, HAND, STEP_S)[:, 7].sum() > 0.07


def test_it_turns_around_no_faster_than_its_acceleration_allows() -> None:
    moving = np.array([*np.zeros(7), 0.08])
    inside = within_travel(chunk(-0.02), 0, np.array([*HOME[:7], 0.04]), moving, HAND, STEP_S)[:, 7]
    assert inside[0] == pytest.approx(0.008 - CHANGE * STEP_S**2 * 2.0)
    assert inside.min() == pytest.approx(-SPEED * STEP_S * 0.1)


def test_other_axes_and_arms_are_left_alone() -> None:
    wild = np.full((15, 7), 9.0)
    assert within_travel(wild, 0, np.zeros(7), np.zeros(7), FRANKA, STEP_S) is wild
    np.testing.assert_array_equal(within_travel(np.full((15, 8), 9.0), 0, HOME, STILL, HAND, STEP_S)[:, :7], 9.0)


def test_every_gripper_of_two_arms_is_kept_and_neither_by_the_other() -> None:
    both = load_arm("bi_so101")
    wild = np.zeros((15, 12))
    wild[:, 5], wild[:, 11] = -0.9, 0.9
    kept = within_travel(wild, 0, np.array(both.home_rad), np.zeros(12), both, STEP_S)
    at = np.array(both.home_rad) + np.cumsum(kept, axis=0)
    low, high = np.array(both.operating.position_min_rad), np.array(both.operating.position_max_rad)
    assert (at >= low).all() and (at <= high).all()
    assert at[-1, 5] - low[5] < 0.2 and high[11] - at[-1, 11] < 0.2 and not np.delete(kept, [5, 11], axis=1).any()


@pytest.mark.parametrize("swing_m", [-0.02, 0.02, None], ids=["closes", "opens", "cannot decide"])
def test_a_policy_that_means_more_than_there_is_is_not_refused(tmp_path: Path, swing_m: float | None) -> None:
    """Beyond its travel for many chunks, through the real firmware: no refusal, no fault, no limit broken."""
    trace = tmp_path / "trace.csv"
    rig = Rig(trace, HAND).armed()

    def script(request: PlanRequest) -> np.ndarray:
        return chunk(swing_m if swing_m is not None else (-0.03 if request.step % 2 else 0.03))

    planner = ScriptedPlanner(rig, script, lambda _: 40_000)
    settings = ControlSettings(5, LEAD_US)
    controller = Controller(rig.client, planner, HAND, SHAPE, STEP_S, settings, Recorder(10_000, 8), 40_000)
    for tick in range(1000):
        controller.step(rig.device.now_us * 1000, tick + 2)
        rig.device.tick(4)
    assert rig.device.state is DeviceState.STREAMING
    assert (controller.counters.refused, controller.counters.interventions) == ([], 0)
    rig.device.tick(1500)
    rig.close()
    rows = read_trace(trace)
    assert violations(rows, HAND.operating, HAND.edges) == []
    assert np.ptp(rows.q[:, 7]) > 0.005
