"""What a run says of a target beside its end: when it was reached, for how long, and how far off since."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.arms import load_arm
from edge.log.recorder import Samples
from edge.sim.bench import DrawnBench
from edge.sim.scenes import LIFT, REACH, Hold, open_scene
from edge.sim.world import WorldWriter
from firmware_bridge.codes import DeviceState
from lab.experts.reach_expert import InverseKinematics

TIME_S = np.arange(7) * 0.5


@pytest.mark.parametrize(
    ("done", "reached_s", "held_s"),
    [
        ([0, 0, 0, 0, 0, 0, 0], None, 0.0),
        ([1, 1, 1, 1, 1, 1, 1], 0.0, 3.0),
        ([0, 0, 1, 1, 1, 1, 1], 1.0, 2.0),
        ([0, 1, 1, 0, 0, 1, 1], 0.5, 0.5),
        ([0, 1, 1, 1, 0, 0, 0], 0.5, 0.0),
        ([0, 0, 0, 0, 0, 0, 1], 3.0, 0.0),
    ],
)
def test_reached_and_held_are_told_apart(done: list[int], reached_s: float | None, held_s: float) -> None:
    metres = np.array([0.08, 0.01, 0.02, 0.05, 0.06, 0.03, 0.02])
    good = np.array(done, bool)
    for task, worst in ((REACH, np.max), (LIFT, np.min)):
        hold = Hold.over(TIME_S, metres, good, task)
        assert (hold.reached_s, hold.held_s) == (reached_s, held_s)
        if reached_s is None:
            assert hold.worst_m is None and hold.text == "never in 3.0 s"
        else:
            assert hold.worst_m == worst(metres[int(good.argmax()) :])
            assert f"after {reached_s:.1f} s" in hold.text and f"{1000 * hold.worst_m:.0f} mm" in hold.text


def test_a_scene_follows_the_tip_to_its_target_and_away() -> None:
    arm = load_arm("franka")
    scene = open_scene(arm, 7)
    ik = InverseKinematics(scene.model, np.array(arm.home_rad))
    goal = scene.placement.goal_m("green")  # type: ignore[attr-defined]
    way = [np.array(arm.home_rad), *(ik.solve(goal + np.array([0, 0, up])) for up in (0.03, 0.0, 0.01, 0.06))]
    hold = scene.hold("reach the green cube", np.arange(5.0), np.array(way))
    assert hold is not None and hold.reached_s == 1.0 and hold.held_s == 0.0
    assert hold.worst_m == pytest.approx(0.06, abs=1e-3)
    assert scene.hold("reach a cube", np.arange(5.0), np.array(way)) is None
    verdict = scene.verdict("reach the green cube", np.array(way[:4]))
    assert verdict is not None and verdict.success and verdict.distance_m == pytest.approx(0.01, abs=1e-3)


def test_a_run_is_judged_by_its_samples_from_when_the_arm_moves(tmp_path: Path) -> None:
    """Half a second of waiting counts for nothing; the target is reached, lost and reached again."""
    arm = load_arm("franka")
    bench = DrawnBench(arm, 7, tmp_path, task="reach the red cube")
    goal = bench.scene.placement.goal_m("red")  # type: ignore[attr-defined]
    ik = InverseKinematics(bench.scene.model, np.array(arm.home_rad))
    home, there, off = np.array(arm.home_rad), ik.solve(goal), ik.solve(goal + np.array([0, 0, 0.07]))
    measured = np.concatenate([np.tile(q, (n, 1)) for q, n in ((home, 150), (there, 100), (off, 100), (there, 150))])
    moving = np.where(np.arange(500) < 50, DeviceState.HOLD, DeviceState.STREAMING)
    at_us = 10_000 * np.arange(500)
    samples = Samples(at_us, measured, measured, np.zeros(500, np.int64), moving.astype(np.int64), at_us[:0])
    world = WorldWriter(bench.world_file, arm.dof)
    world.publish(5_000_000, there, there)
    verdict = bench.verdict("reach the red cube", samples)
    world.close()
    assert verdict is not None and verdict.success and verdict.hold is not None
    assert verdict.hold.reached_s == pytest.approx(1.0, abs=0.11)
    assert verdict.hold.held_s == pytest.approx(1.5, abs=0.11)
    assert verdict.hold.worst_m == pytest.approx(0.07, abs=1e-3)
