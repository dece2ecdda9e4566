"""The slow move home: within the limits, only after a word, and stopped whenever somebody says so."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge.bundle import EmbodimentSpec, SlotScaling
from edge.cli.run import main
from edge.errors import InputError, SafetyStop
from edge.log.trace import read_trace, violations
from edge.run.homing import MOST_VELOCITY, Homing, far_from_training, plan_home
from firmware_bridge.codes import DeviceState
from firmware_bridge.simulator import LockstepDevice, SimulatedArm, SimulatedFault, SimulatorProcess
from tests.support import FRANKA, HOME, Rig, states_in_order

FAR = HOME + np.array([0.3, -0.4, 0.5, 0.6, -0.7, 0.8, -0.9])
NEAR = HOME + np.array([0.1, 0.0, 0.0, 0.05, 0.0, 0.0, -0.08])
LEAD_US = 30_000
STEP_MS = 5


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    device = LockstepDevice(SimulatedArm("franka", tuple(FAR.tolist()), trace=tmp_path / "trace.csv"))
    rig = Rig(device=device).armed()
    yield rig
    rig.close()


def run(rig: Rig, homing: Homing, until_ms: float = 1e9) -> bool:
    """Steps until the arm has arrived; returns whether it has."""
    began_us, tick = rig.device.now_us, 1
    while rig.device.now_us - began_us < 1000 * until_ms:
        tick += 1
        if homing.step(rig.device.now_us * 1000, tick):
            return True
        rig.device.tick(STEP_MS)
    return False


def test_the_arm_goes_home_slowly_and_within_its_limits(rig: Rig, tmp_path: Path) -> None:
    move = plan_home(FRANKA, FAR)
    assert move is not None
    assert run(rig, Homing(rig.client, move, LEAD_US))
    rig.client.stop()
    rig.device.tick(300)
    assert rig.device.state == DeviceState.HOLD
    rig.device.flush()
    trace = read_trace(tmp_path / "trace.csv")
    assert violations(trace, FRANKA.operating) == [] and trace.limited.sum() == 0
    assert np.abs(trace.q[-1] - HOME).max() < 1e-5
    assert 0.9 * MOST_VELOCITY < np.abs(trace.dq).max() < 1.01 * MOST_VELOCITY
    assert states_in_order(trace)[-2:] == ["STREAMING", "HOLD"]
    assert len(set(trace.chunk[np.array(trace.state) == "STREAMING"])) > 3, "several chunks, joined"


def test_a_stop_on_the_way_is_a_controlled_one(rig: Rig, tmp_path: Path) -> None:
    move = plan_home(FRANKA, FAR)
    assert move is not None
    homing = Homing(rig.client, move, LEAD_US)
    assert not run(rig, homing, 3000)
    assert 0.3 < homing.share < 0.7
    rig.client.stop()
    rig.device.tick(400)
    rig.device.flush()
    trace = read_trace(tmp_path / "trace.csv")
    assert states_in_order(trace)[-1] == "HOLD" and violations(trace, FRANKA.operating) == []
    assert np.abs(trace.q[-1] - HOME).max() > 0.2, "and it stays there"


def test_a_fault_on_the_way_ends_it(rig: Rig) -> None:
    move = plan_home(FRANKA, FAR)
    assert move is not None
    homing = Homing(rig.client, move, LEAD_US)
    run(rig, homing, 1000)
    rig.device.fault(SimulatedFault.FEEDBACK_LOST, 1)
    with pytest.raises(SafetyStop, match="FAULT"):
        run(rig, homing, 1000)


def test_a_refusal_by_the_device_ends_it(rig: Rig) -> None:
    elsewhere = plan_home(FRANKA, FAR + 0.1)
    assert elsewhere is not None
    with pytest.raises(SafetyStop, match="refused the way home: splice position, joint 1"):
        run(rig, Homing(rig.client, elsewhere, LEAD_US), 1000)


def test_at_home_there_is_nothing_to_do() -> None:
    assert plan_home(FRANKA, HOME + 0.01) is None


@pytest.mark.parametrize("joint", [0, 3])
def test_a_start_outside_the_limits_names_the_cure(joint: int) -> None:
    start = HOME.copy()
    start[joint] = FRANKA.operating.position_max_rad[joint] + 0.01
    with pytest.raises(InputError, match=rf"joint {joint + 1} stands at .* by hand, with the drive off"):
        plan_home(FRANKA, start)


def test_a_pose_that_is_rare_in_training_is_told() -> None:
    slots = tuple(range(7))
    states = SlotScaling(slots, tuple(HOME), (0.2,) * 7)
    spec = EmbodimentSpec("fr3", 0, 0.1, FRANKA.joints, states, states)
    near, far = HOME + 0.5, HOME + np.array([0, 0, 0, 0.61, 0, 0, 0])
    assert far_from_training(spec, [round(1e6 * q) for q in near]) is None
    told = far_from_training(spec, [round(1e6 * q) for q in far])
    assert told == "joint 4 stands at -1.75 rad, and the policy was trained around -2.36 +- 0.20"


@pytest.fixture
def device(tmp_path: Path) -> Iterator[SimulatorProcess]:
    process = SimulatorProcess(SimulatedArm("franka", tuple(NEAR.tolist()), trace=tmp_path / "trace.csv"))
    yield process
    process.close()


def words(device: SimulatorProcess) -> list[str]:
    return ["--arm", "franka", "--bridge", f"serial:{device.port}", "--to-home"]


def test_nothing_moves_without_a_yes(device: SimulatorProcess, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(device)) == 2
    assert "there is no terminal to ask; look at the arm, then add --yes" in capsys.readouterr().err


def test_home_in_real_time(device: SimulatorProcess, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([*words(device), "--yes"]) == 0
    out = capsys.readouterr().out
    assert "the way home takes 1.1 s; joint 1 moves furthest, 0.10 rad" in out and "0 mrad from home, drive off" in out
    assert main([*words(device), "--yes"]) == 0
    assert "'franka' is at home" in capsys.readouterr().out
    device.close()
    trace = read_trace(tmp_path / "trace.csv")
    assert violations(trace, FRANKA.operating) == [] and np.abs(trace.q[-1] - HOME).max() < 1e-5


@pytest.mark.parametrize(("answer", "moves"), [("y", True), ("", False)])
def test_the_terminal_is_asked(device: SimulatorProcess, tmp_path: Path, answer: str, moves: bool) -> None:
    terminal, slave = pty.openpty()
    run = subprocess.Popen([sys.executable, "-m", "edge.cli.run", *words(device)], stdin=slave, stdout=subprocess.PIPE)
    assert run.stdout is not None
    while b"the way home" not in run.stdout.readline():
        pass
    time.sleep(0.3)
    os.write(terminal, f"{answer}\n".encode())
    out, _ = run.communicate(timeout=60)
    assert run.returncode == 0 and (b"from home, drive off" if moves else b"the arm has not moved") in out
    device.close()
    assert ("STREAMING" in states_in_order(read_trace(tmp_path / "trace.csv"))) is moves
    os.close(terminal)
    os.close(slave)


def test_ctrl_c_on_the_way_stops_under_control(tmp_path: Path) -> None:
    device = SimulatorProcess(SimulatedArm("franka", tuple(FAR.tolist()), trace=tmp_path / "trace.csv"))
    run = subprocess.Popen(
        [sys.executable, "-m", "edge.cli.run", *words(device), "--yes"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
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
    assert states_in_order(trace)[-3:] == ["DECEL", "HOLD", "IDLE"] and violations(trace, FRANKA.operating) == []
