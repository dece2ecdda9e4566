"""The correction of joint velocities: it removes an offset, and never breaks a limit that the core keeps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.arms import load_arm
from firmware_bridge.adapters.rate_guard import ArmLimits
from firmware_bridge.adapters.velocity import CORRECTION_RAD_S, VelocityFollower

MOST, JERK, STEP_S = 10.0, 5000.0, 0.001
LIMITS = ArmLimits((-3.0,), (3.0,), (2.5,), (MOST,), (JERK,))


def random_velocities(seed: int, count: int) -> list[float]:
    """As a core gives them: jerk and acceleration anywhere within the limits, and often at them."""
    rng = np.random.default_rng(seed)
    velocity = acceleration = 0.0
    out = []
    for step in range(count):
        if step % 40 == 0:
            jerk = JERK * rng.choice([-1.0, -0.3, 0.0, 0.5, 1.0])
        wanted = np.clip(acceleration + jerk * STEP_S, -MOST, MOST)
        if abs(velocity + wanted * STEP_S) > 2.0:
            wanted = max(min(0.0, acceleration + JERK * STEP_S), acceleration - JERK * STEP_S)
        acceleration = wanted
        velocity += acceleration * STEP_S
        out.append(velocity)
    return out


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.floats(-0.3, 0.3), st.floats(0.0, 0.05))
def test_the_sum_keeps_the_limits(seed: int, offset_rad: float, noise_rad: float) -> None:
    follower, rng = VelocityFollower(LIMITS), np.random.default_rng(seed)
    core = random_velocities(seed, 600)
    sent = [follower.follow([offset_rad], [v], [noise_rad * rng.normal()], 1)[0] for v in core]
    velocity = np.array([0.0, 0.0, 0.0, *sent])
    acceleration = np.diff(velocity) / STEP_S
    assert np.abs(acceleration).max() <= MOST * (1 + 1e-9)
    assert np.abs(np.diff(acceleration)).max() / STEP_S <= JERK * (1 + 1e-9)
    assert np.abs(np.array(sent) - core).max() <= CORRECTION_RAD_S * (1 + 1e-3)


def test_an_offset_of_the_arm_decays() -> None:
    follower, arm, q = VelocityFollower(LIMITS), -0.05, 0.0
    offsets = []
    for step in range(2500):
        v = 0.5 * np.sin(2.0 * step * STEP_S)
        q += v * STEP_S
        arm += STEP_S * follower.follow([q], [v], [arm], 1)[0]
        offsets.append(abs(q - arm))
    assert offsets[500] == pytest.approx(0.05 - 0.45 * CORRECTION_RAD_S, abs=0.002), "by no more than 50 mrad/s"
    assert max(offsets[2000:]) < 1e-3, "what is left is what the arm moves in a period"


def test_a_lost_period_is_not_an_acceleration() -> None:
    follower = VelocityFollower(LIMITS)
    core = [0.005 * step for step in range(100)]  # 5 rad/s^2
    for v in core[:50]:
        follower.follow([0.0], [v], [0.0], 1)
    assert follower.follow([0.0], [core[69]], [0.0], 20)[0] == pytest.approx(core[69], abs=1e-6)


def test_a_motion_begins_without_the_last_ones_correction() -> None:
    follower = VelocityFollower(LIMITS)
    for _ in range(200):
        follower.follow([0.1], [0.0], [0.0], 1)
    assert follower.follow([0.0], [0.0], [0.0], 1)[0] > 0.03
    follower.restart()
    assert follower.follow([0.0], [0.0], [0.0], 1) == [0.0]


def test_the_correction_fits_below_the_fr3s_limits_wherever_the_core_brakes_in_time() -> None:
    arm = load_arm("franka")
    low, high = np.array(arm.operating.position_min_rad), np.array(arm.operating.position_max_rad)
    most, strongest = arm.operating.velocity_rad_s, np.array(arm.operating.acceleration_rad_s2)
    assert arm.edges is not None
    for share in np.linspace(0.0, 1.0, 1001):
        q = low + share * (high - low)
        up = np.minimum(np.sqrt(2 * strongest * (1 - share) * (high - low)), most)
        down = np.minimum(np.sqrt(2 * strongest * share * (high - low)), most)
        assert (arm.edges.up_rad_s(q) - up).min() > 2 * CORRECTION_RAD_S
        assert (arm.edges.down_rad_s(q) - down).min() > 2 * CORRECTION_RAD_S
