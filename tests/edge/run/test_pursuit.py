"""Following the newest set-point: as numbers, and on a simulated clock through control and the real firmware."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge.arms import ArmProfile, available_arms, load_arm
from edge.doors.following_process import EXECUTE_STEPS, SHAPE, STEP_S
from edge.log.recorder import Recorder
from edge.log.trace import Trace, read_trace
from edge.plan.replanner import ControlSettings
from edge.plan.trajectory import FloatArray
from edge.run.arm import ConnectedArm
from edge.run.controller import Controller
from edge.run.pursuit import Pursuer, Pursuit
from tests.support import Rig, broken_limits

ARMS = [load_arm(name) for name in available_arms()]
CONTROL_MS = 4
SetPoints = Callable[[float], FloatArray | None]


def middle(arm: ArmProfile) -> FloatArray:
    return np.array([arm.operating.position_min_rad, arm.operating.position_max_rad]).mean(axis=0)


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.name)
def test_it_arrives_within_speed_and_acceleration_and_never_passes_the_target(arm: ArmProfile) -> None:
    pursuit, random = Pursuit.of(arm, STEP_S), np.random.default_rng(1)
    for _ in range(50):
        start = random.uniform(pursuit.low, pursuit.high)
        target = random.uniform(2 * pursuit.low - middle(arm), 2 * pursuit.high - middle(arm))
        rows = np.vstack([start, pursuit.steps(start, np.zeros(arm.dof), target, 400)])
        goal, way = pursuit.within(target), pursuit.within(target) - start
        speed = np.diff(rows, axis=0) / STEP_S
        assert np.abs(rows[-1] - goal).max() < 1e-6
        assert ((rows - start) * np.sign(way) <= np.abs(way) + 1e-12).all(), "it went past its target"
        assert (np.abs(speed) <= pursuit.speed * (1 + 1e-9)).all()
        assert (np.abs(np.diff(speed, axis=0)) / STEP_S <= pursuit.acceleration * (1 + 1e-9)).all()


def test_a_share_of_the_speed_is_kept() -> None:
    arm = ARMS[-1]
    pursuit, slow = Pursuit.of(arm, STEP_S), Pursuit.of(arm, STEP_S, 0.1)
    rows = slow.steps(pursuit.low, np.zeros(arm.dof), pursuit.high, 50)
    assert (np.abs(np.diff(rows, axis=0)) <= 0.1 * pursuit.speed * STEP_S * (1 + 1e-9)).all()


class Followed:
    """Control of an arm on a simulated clock, to which `set_points` says 30 times a second where to go."""

    def __init__(self, arm: ArmProfile, trace: Path, set_points: SetPoints) -> None:
        self.file, self.rig = trace, Rig(trace, arm)
        self.rig.device.tick()
        connected = ConnectedArm.connect(arm, self.rig.client)
        connected.switch_on()
        self._set_points, self._newest, self._began_us = set_points, None, self.rig.device.now_us
        pursuer = Pursuer(Pursuit.of(arm, STEP_S), SHAPE.horizon, lambda: self._newest)
        settings = ControlSettings(EXECUTE_STEPS, connected.lead_us())
        recorder = Recorder(10_000, arm.dof)
        self.controller = Controller(self.rig.client, pursuer, arm, SHAPE, STEP_S, settings, recorder)

    def run(self, seconds: float) -> Trace:
        for tick in range(round(1000 * seconds / CONTROL_MS)):
            frame = tick * CONTROL_MS * 30 // 1000 / 30
            self._newest = self._set_points(frame)
            self.controller.step(self.rig.host_ns, tick + 2)
            self.rig.device.tick(CONTROL_MS)
        self.rig.device.close()
        return read_trace(self.file)


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.name)
def test_a_hand_is_followed_closely(arm: ArmProfile, tmp_path: Path) -> None:
    """At a fifth of the arm's speed, as from a leader: the lag is what the braking distance and the lead take."""
    home, speed = np.array(arm.home_rad), 0.2 * np.array(arm.operating.velocity_rad_s)
    limits = arm.operating.position_min_rad, arm.operating.position_max_rad

    def hand(t: float) -> FloatArray:
        return np.clip(home + speed / 3 * np.sin(3 * t) ** 3, *limits)

    followed = Followed(arm, tmp_path / "trace.csv", hand)
    trace, counters = followed.run(4.0), followed.controller.counters
    assert broken_limits(trace, arm) == []
    assert counters.refused.total == counters.late == 0 and counters.committed_ids.total > 50
    times = (trace.tick_us - trace.tick_us[trace.state == "STREAMING"][0]) / 1e6
    late_s = np.arange(0.0, 0.4, 0.01)
    during = (times > 0.5) & (times < 3.8)
    away = [np.abs(trace.q[during] - np.array([hand(t - late) for t in times[during]])).max() for late in late_s]
    assert late_s[int(np.argmin(away))] <= 0.1 and min(away) < 0.1 * (speed / 3).max()


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.name)
def test_wild_set_points_move_the_arm_within_its_limits(arm: ArmProfile, tmp_path: Path) -> None:
    """Anywhere at each frame, far beyond the limits too; then nothing new: it comes to rest there."""
    random = np.random.default_rng(7)
    pursuit = Pursuit.of(arm, STEP_S)
    wild = {frame: random.normal(middle(arm), 2 * (pursuit.high - pursuit.low)) for frame in range(60)}

    def set_points(t: float) -> FloatArray | None:
        return None if t < 0.3 else wild[min(round(30 * t), 59)]

    followed = Followed(arm, tmp_path / "trace.csv", set_points)
    way_s = float(((pursuit.high - pursuit.low) / pursuit.speed).max())
    trace = followed.run(len(wild) / 30 + way_s + 1.0)
    assert broken_limits(trace, arm) == [] and followed.controller.counters.refused.total == 0
    assert np.abs(trace.dq[trace.tick_us < trace.tick_us[0] + 250_000]).max() == 0, (
        "it moved before the first set-point"
    )
    assert np.abs(trace.q[-1] - pursuit.within(wild[59])).max() < 1e-3 and np.abs(trace.dq[-1]).max() < 1e-3
