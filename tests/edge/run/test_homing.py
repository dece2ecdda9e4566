"""The slow move home: within the limits, only after a word, and stopped whenever somebody says so."""

from __future__ import annotations

import math
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from edge.arms import ArmProfile, JointLimits, load_arm
from edge.bundle import ActionNumber, ArmSpec, AxisSpec, StateNumber, Training
from edge.cli.run import main
from edge.errors import InputError, SafetyStop
from edge.log.recorder import Recorder
from edge.log.trace import Trace, read_trace, violations
from edge.run.arm import ConnectedArm
from edge.run.homing import (
    HOME_SHAPE,
    MOST_VELOCITY,
    SPACING_S,
    HomePlanner,
    describe,
    far_from_training,
    home_controller,
    plan_home,
    plan_move,
    told_of_pose,
)
from firmware_bridge.simulator import LockstepDevice, SimulatedArm, SimulatedFault, SimulatorProcess
from tests.support import FRANKA, HOME, Rig, broken_limits, states_in_order

FAR = HOME + np.array([0.3, -0.4, 0.5, 0.6, -0.7, 0.8, -0.9])
NEAR = HOME + np.array([0.1, 0.0, 0.0, 0.05, 0.0, 0.0, -0.08])


SLACK_S = 0.003


class HomeRun:
    """An armed device in lockstep that is taken home, `rate` milliseconds of it in each of the host's."""

    def __init__(self, folder: Path, arm: ArmProfile = FRANKA, start: np.ndarray = FAR, rate: float = 1.0) -> None:
        self.arm, self._trace = arm, folder / "trace.csv"
        device = LockstepDevice(SimulatedArm(arm.name, tuple(start.tolist()), trace=self._trace))
        self.rig = Rig(arm=arm, device=device).armed()
        self.rig.slow_down(rate)
        move = plan_home(arm, start)
        assert move is not None
        self.planner = HomePlanner(move, HOME_SHAPE.horizon, SPACING_S)
        assert self.rig.client.caps is not None
        connected = ConnectedArm(arm, self.rig.client, self.rig.client.caps)
        self.controller = home_controller(connected, self.planner, Recorder(1, arm.dof))
        self._tick = 1

    @property
    def share(self) -> float:
        return self.planner.share(self.controller.splicer.executed_steps())

    def go(self, until_ms: float = 60_000) -> bool:
        """Controls until the arm has arrived; returns whether it has."""
        until_ns = self.rig.host_ns + 1_000_000 * until_ms
        while self.rig.host_ns < until_ns:
            self._tick += 1
            self.controller.step(self.rig.host_ns, self._tick)
            self.rig.client.keep_clock(self.rig.host_ns, SLACK_S)
            if self.planner.arrived(self.controller.splicer.executed_steps()):
                return True
            self.rig.device.tick()
        return False

    def stop(self, limits: JointLimits | None = None) -> Trace:
        """A controlled stop, within every limit, or `limits` where the move began outside the operating ones."""
        self.rig.client.stop()
        self.rig.device.tick(400)
        self.rig.device.flush()
        trace = read_trace(self._trace)
        found = violations(trace, limits) if limits else broken_limits(trace, self.arm)
        assert states_in_order(trace)[-1] == "HOLD" and found == []
        return trace


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., HomeRun]]:
    with ExitStack() as stack:

        def make(*arguments: object, **named: object) -> HomeRun:
            run = HomeRun(tmp_path, *arguments, **named)  # type: ignore[arg-type]
            stack.callback(run.rig.close)
            return run

        yield make


def test_the_arm_goes_home_slowly_and_within_its_limits(start: Callable[..., HomeRun]) -> None:
    run = start()
    assert run.go() and run.share == 1.0
    trace = run.stop()
    assert trace.limited.sum() == 0
    assert np.abs(trace.q[-1] - HOME).max() < 1e-5
    assert 0.9 * MOST_VELOCITY < np.abs(trace.dq).max() < 1.01 * MOST_VELOCITY
    assert states_in_order(trace)[-2:] == ["STREAMING", "HOLD"]
    assert len(set(trace.chunk[np.array(trace.state) == "STREAMING"])) > 3, "several chunks, joined"


def test_a_gripper_goes_home_too(start: Callable[..., HomeRun]) -> None:
    hand = load_arm("franka_hand")
    run = start(hand, np.array([*FAR, 0.005]))
    assert run.go()
    assert np.abs(run.stop().q[-1] - hand.home_rad).max() < 1e-5


def test_with_a_slow_clock_the_move_takes_longer_and_ends_there(start: Callable[..., HomeRun]) -> None:
    """How far the arm is, the device's reports tell: its clock may be slower than the host's estimate of it."""
    run = start(rate=0.25)
    assert run.go()
    assert np.abs(run.stop().q[-1] - HOME).max() < 1e-5


def test_a_stop_on_the_way_is_a_controlled_one(start: Callable[..., HomeRun]) -> None:
    run = start()
    assert not run.go(3000)
    assert 0.3 < run.share < 0.7
    assert np.abs(run.stop().q[-1] - HOME).max() > 0.2, "and it stays there"


def test_a_fault_on_the_way_ends_it(start: Callable[..., HomeRun]) -> None:
    run = start()
    run.go(1000)
    run.rig.device.fault(SimulatedFault.FEEDBACK_LOST, 1)
    with pytest.raises(SafetyStop, match="FAULT"):
        run.go(1000)


def test_at_home_there_is_nothing_to_do() -> None:
    assert plan_home(FRANKA, HOME + 0.01) is None


@pytest.mark.parametrize("name", ["so101", "franka"])
def test_an_arm_outside_its_operating_limits_goes_home_inward_only(name: str, tmp_path: Path) -> None:
    arm = load_arm(name)
    home, outer, inner = np.array(arm.home_rad), arm.limits, arm.operating
    low = (np.array(outer.position_min_rad) + inner.position_min_rad) / 2
    high = (np.array(outer.position_max_rad) + inner.position_max_rad) / 2
    start = np.where(home < (low + high) / 2, low, high)
    run = HomeRun(tmp_path, arm, start)
    try:
        assert run.go(), "and the device takes every chunk"
        trace = run.stop(arm.limits)
    finally:
        run.rig.close()
    moving = trace.q[trace.state == "STREAMING"]
    assert (np.diff(moving, axis=0) * np.sign(home - start) > -1e-6).all(), "each joint straight to its end"
    assert np.abs(trace.q[-1] - home).max() < 1e-4


@pytest.mark.parametrize("joint", [0, 3])
def test_a_start_outside_the_limits_names_the_cure(joint: int) -> None:
    start = HOME.copy()
    start[joint] = FRANKA.limits.position_max_rad[joint] + 0.01
    with pytest.raises(InputError, match=rf"joint {joint + 1} stands at .* by hand, with the drive off"):
        plan_home(FRANKA, start)


def test_a_pose_that_is_rare_in_training_is_told() -> None:
    axes = tuple(AxisSpec(joint, StateNumber(n, "deg"), ActionNumber(n)) for n, joint in enumerate(FRANKA.joints))
    trained = Training(state_mean=tuple(np.degrees(HOME)), state_spread=(math.degrees(0.2),) * 7)
    spec = ArmSpec("fr3", 0.1, axes, training=trained)
    near, far = HOME + 0.5, HOME + np.array([0, 0, 0, 0.61, 0, 0, 0])
    assert far_from_training(spec, FRANKA, [round(1e6 * q) for q in near]) is None
    told = far_from_training(spec, FRANKA, [round(1e6 * q) for q in far])
    assert told == "joint 4 stands at -1.75 rad, and the policy was trained around -2.36 +- 0.20"
    assert told_of_pose(spec, FRANKA, [round(1e6 * q) for q in far], "HOME") == f"{told}; to begin near there: HOME"
    elsewhere = tuple(np.degrees(HOME + np.array([0, 0, 0, 0, 1.57, 0, 0])))
    spec = ArmSpec("fr3", 0.1, axes, training=Training(state_mean=elsewhere, state_spread=(math.degrees(0.2),) * 7))
    told = told_of_pose(spec, FRANKA, [round(1e6 * q) for q in HOME], "HOME")
    assert told is not None and told.startswith("joint 5 stands at") and "HOME" not in told, "it stands there already"


@pytest.fixture
def device(tmp_path: Path) -> Iterator[SimulatorProcess]:
    process = SimulatorProcess(SimulatedArm("franka", tuple(NEAR.tolist()), trace=tmp_path / "trace.csv"))
    yield process
    process.close()


def arguments(device: SimulatorProcess) -> list[str]:
    return ["--arm", "franka", "--bridge", f"serial:{device.port}", "--to-home"]


def test_nothing_moves_without_a_yes(device: SimulatorProcess, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(device)) == 2
    assert "there is no terminal to confirm it on; look at the arm, then add --yes" in capsys.readouterr().err


@pytest.mark.real_time
@pytest.mark.side_by_side
def test_home_in_real_time(device: SimulatorProcess, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([*arguments(device), "--yes"]) == 0
    out = capsys.readouterr().out
    assert "the move home takes 1.1 s; joint 1 moves furthest, 0.10 rad" in out and "0 mrad from home, drive off" in out
    assert main([*arguments(device), "--yes"]) == 0
    assert "'franka' is at home" in capsys.readouterr().out
    device.close()
    trace = read_trace(tmp_path / "trace.csv")
    assert broken_limits(trace, FRANKA) == [] and np.abs(trace.q[-1] - HOME).max() < 1e-5


@pytest.mark.real_time
@pytest.mark.side_by_side
@pytest.mark.parametrize(("answer", "moves"), [("y", True), ("", False)])
def test_the_terminal_is_asked(device: SimulatorProcess, tmp_path: Path, answer: str, moves: bool) -> None:
    terminal, slave = pty.openpty()
    run = subprocess.Popen(
        [sys.executable, "-m", "edge.cli.run", *arguments(device)], stdin=slave, stdout=subprocess.PIPE
    )
    assert run.stdout is not None
    while b"the move home" not in run.stdout.readline():
        pass
    time.sleep(0.3)
    os.write(terminal, f"{answer}\n".encode())
    out, _ = run.communicate(timeout=60)
    assert run.returncode == 0 and (b"from home, drive off" if moves else b"the arm has not moved") in out
    device.close()
    assert ("STREAMING" in states_in_order(read_trace(tmp_path / "trace.csv"))) is moves
    os.close(terminal)
    os.close(slave)


@pytest.mark.real_time
@pytest.mark.side_by_side
def test_ctrl_c_on_the_way_stops_under_control(tmp_path: Path) -> None:
    device = SimulatorProcess(SimulatedArm("franka", tuple(FAR.tolist()), trace=tmp_path / "trace.csv"))
    run = subprocess.Popen(
        [sys.executable, "-m", "edge.cli.run", *arguments(device), "--yes"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 60
    while ",STREAMING," not in (tmp_path / "trace.csv").read_text()[-4000:] and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)
    device.close()
    trace = read_trace(tmp_path / "trace.csv")
    assert run.returncode == 0 and b"stopped on the way" in out, err
    assert states_in_order(trace)[-3:] == ["DECEL", "HOLD", "IDLE"] and broken_limits(trace, FRANKA) == []


def test_a_slow_move_leads_to_any_pose_within_limits() -> None:
    target = HOME + np.array([0.2, 0.0, -0.3, 0.0, 0.1, 0.0, 0.0])
    move = plan_move(FRANKA, HOME, target, "to the first goals")
    assert move is not None
    np.testing.assert_allclose(move.knots().q_rad[-1], target, atol=1e-6)
    assert np.abs(move.knots().dq_rad_s).max() <= 1.001 * MOST_VELOCITY
    assert describe(move).startswith("the move to the first goals takes")
    assert plan_move(FRANKA, HOME, HOME + 0.01, "to the first goals") is None


@pytest.mark.parametrize("bad", [2.5, np.nan, np.inf])
def test_a_slow_move_does_not_lead_outside(bad: float) -> None:
    target = HOME.copy()
    target[0] = bad
    with pytest.raises(InputError, match=r"the move to the first goals must not be made: joint 1 stands at .* at its"):
        plan_move(FRANKA, HOME, target, "to the first goals")
