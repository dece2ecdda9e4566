"""Policies on a Franka that says no, with 1 % of its packets lost, on the simulated clock."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from edge.arms import load_arm
from edge.bundle import load_bundle
from edge.inference.process import open_policy
from edge.log.trace import read_trace
from edge.sim.lockstep import LockstepSettings, run_lockstep
from edge.sim.scenes import open_scene
from firmware_bridge.adapters.fci_sim.loss import PacketLoss
from tests.conftest import ROOT
from tests.fci_lockstep import StrictDevice, strict_device
from tests.shared import made_once
from tests.support import broken_limits

LIFT = ROOT / "checkpoints" / "lift.pt"


def run(bundle_path: Path, arm_name: str, task: str, seconds: float, trace: Path, seed: int = 2026) -> StrictDevice:
    """A run with 1 % of packets lost, in bursts of up to ten; the robot and its adapter afterwards."""
    arm, bundle, made = load_arm(arm_name), load_bundle(bundle_path), []
    policy = open_policy(bundle, arm_name, task, 1)
    settings = LockstepSettings(task, seconds, jitter=0.3, seed=4, trace=trace)
    loss = PacketLoss(0.01, 10, seed=5)
    outcome = run_lockstep(bundle, arm, policy, open_scene(arm, seed), settings, strict_device(loss, made))
    (device,) = made
    assert outcome.stop is None, (outcome.stop, device.bench.story)
    rows = read_trace(trace)
    assert broken_limits(rows.part(slice(int(np.argmax(rows.state == "ARMED")), None)), arm) == []
    assert (np.array(rows.state) == "STREAMING").sum() > 900 * seconds - 1000
    robot = device.bench.robot
    told = {"lost": robot.lost, "longest": robot.longest_loss, **robot.worst, **device.drive.statistics()}
    print({name: round(value, 3) for name, value in told.items()})
    assert robot.reflexes == 0, device.bench.story
    assert robot.lost > 2 * seconds and max(robot.worst.values()) <= 1.0
    return device


def test_the_shipped_policy_loses_packets_and_makes_no_reflex(bundle_path: Path, tmp_path: Path) -> None:
    run(bundle_path, "franka", "reach the red cube", 3.0, tmp_path / "trace.csv")


@pytest.mark.slow  # two minutes of two cameras and 120,000 periods of the robot: nine minutes on a busy machine
def test_a_minute_of_the_lifting_policy_loses_packets_and_makes_no_reflex(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from export.commands.export import main

    def export(path: Path) -> None:
        assert main([str(LIFT), "-o", str(path)]) == 0

    given = os.environ.get("VLA_EDGE_LIFT_BUNDLE")
    bundle = Path(given) if given else made_once(tmp_path_factory, "lift", export)
    for seed in (
        2026,
        2027,
    ):  # a minute of each: nothing is lifted where objects are only drawn, and the policy goes on trying
        task = open_scene(load_arm("franka_hand"), seed).instruction(0)
        device = run(bundle, "franka_hand", task, 60.0, tmp_path / f"{seed}.csv", seed)
        assert device.bench.robot.longest_loss >= 8
