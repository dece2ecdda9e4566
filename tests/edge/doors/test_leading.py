"""A leader arm as the source of set-points: slowly at first, within all limits, and at rest when it is lost."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge.arms import load_arm
from edge.cli.run import main
from edge.doors.following import FollowingRecords, Positions
from edge.doors.following_process import SHAPE, STEP_S
from edge.doors.leading import APPROACH_SHARE, LOST_S, LeadingRun
from edge.inference.records import Outcome, PlanRequest
from edge.log.trace import read_trace
from edge.run.pursuit import Pursuer, Pursuit
from tests.servo_bench import SCALES, calibration
from tests.servo_process import ServoProcess
from tests.support import broken_limits, states_in_order

SO101 = load_arm("so101")
HOME = np.array(SO101.home_rad)
NOTHING = np.zeros((0, 6))


def request(number: int, at_rad: np.ndarray) -> PlanRequest:
    return PlanRequest(number, 0, 0, NOTHING, NOTHING, np.zeros(0, np.bool_), NOTHING, NOTHING, at_rad[None])


def first_step(pursuer: Pursuer, at_rad: np.ndarray) -> np.ndarray:
    """How fast its chunk becomes, per axis, from rest at a pose."""
    pursuer.request(request(1, at_rad))
    result = pursuer.result()
    assert result is not None and result.outcome is Outcome.LEADER
    return np.abs(np.diff(np.vstack([at_rad, result.goals_rad]), axis=0)).max(axis=0) / STEP_S


def test_it_goes_to_the_leader_slowly_until_it_has_been_there_once() -> None:
    target = HOME + 0.6
    fast = Pursuit.of(SO101, STEP_S)
    pursuer = Pursuer(fast, SHAPE.horizon, lambda: target, Outcome.LEADER, Pursuit.of(SO101, STEP_S, APPROACH_SHARE))
    assert (first_step(pursuer, HOME) <= APPROACH_SHARE * fast.speed + 1e-9).all()
    first_step(pursuer, fast.within(target) - 0.01)
    assert (first_step(pursuer, HOME)[:5] > 0.5 * fast.speed[:5]).all(), "it has been there: now it follows"


def test_a_leader_that_falls_silent_or_ends_is_lost() -> None:
    now_ns, why = [1_000_000_000], [None]
    records = FollowingRecords(6)
    run = LeadingRun(SO101, records, lambda: why[0], clock_ns=lambda: now_ns[0])
    records.set_points.write(Positions(now_ns[0], HOME))
    assert run.exit_reason() is None
    now_ns[0] += round(1e9 * LOST_S) + 1
    assert run.exit_reason() == f"the leader is lost: its last pose is {LOST_S:.2f} s old"
    records.set_points.write(Positions(now_ns[0], HOME))
    assert run.exit_reason() is None
    why[0] = "the port was pulled out"  # type: ignore[call-overload]
    assert run.exit_reason() == "the leader is lost: the port was pulled out"


# The command ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def leader(tmp_path: Path) -> Iterator[ServoProcess]:
    process = ServoProcess(tmp_path)
    yield process
    process.close()


def lead(leader: ServoProcess, pose_rad: np.ndarray) -> None:
    """A hand moves the leader there at once."""
    for scale, one, q in zip(SCALES, calibration().servos, pose_rad):
        leader.command(f"hand {one.servo} {scale.count(q) + one.homing_offset}")


@pytest.mark.real_time
def test_edge_run_follows_a_leader_within_the_limits_and_rests_when_it_is_lost(
    leader: ServoProcess, tmp_path: Path
) -> None:
    line = [sys.executable, "-m", "edge.cli.run", "--arm", "so101", "--leader", leader.url]
    line += ["--report", str(tmp_path / "run.json"), "--trace", str(tmp_path / "trace.csv"), "--no-plot"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 40
    while not (tmp_path / "trace.csv").exists() or ",STREAMING," not in (tmp_path / "trace.csv").read_text()[-4000:]:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)
    target = HOME + np.array([0.5, 0.2, -0.2, -0.2, 0.4, 0.3])
    lead(leader, target)
    time.sleep(4.0)
    for servo in range(1, 7):
        leader.command(f"silent {servo}")
    out, err = process.communicate(timeout=30)
    assert process.returncode == 1 and "the leader is lost: " in err and "the arm has come to rest" in err, (out, err)
    trace = read_trace(tmp_path / "trace.csv")
    assert "FAULT" not in states_in_order(trace) and broken_limits(trace, SO101) == []
    assert np.abs(trace.q[-1] - target).max() < 0.01 and np.abs(trace.dq[-1]).max() == 0
    assert json.loads((tmp_path / "run.json").read_text())["ended"] == "safety stop"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--leader", "feetech:/dev/ttyNOPE?calibration={folder}/so101-calibration.json"], "there is no such port"),
        (["--leader", "feetech:/dev/ttyNOPE"], "so101-leader-calibration.json: there is no calibration"),
        (["--leader", "fci:10.0.0.1"], "a bus of servos is needed"),
        (["--leader", "feetech:/dev/ttyNOPE", "--bundle", "b"], "leave --bundle and --policy out"),
    ],
)
def test_bad_input(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    calibration().write(tmp_path / "so101-calibration.json")
    given = [argument.format(folder=tmp_path) for argument in arguments]
    assert main(["--arm", "so101", *given, "--report", str(tmp_path / "run.json")]) == 2
    err = capfd.readouterr().err
    assert message in err and len(err.strip().splitlines()) == 1
