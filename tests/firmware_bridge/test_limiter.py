"""The limiter in C, driven with everything from calm to absurd: its positions never break a limit."""

from __future__ import annotations

import ctypes
import math

import numpy as np
import pytest
import ruckig
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.native import build
from firmware_bridge.replay import JointLimits, JointState

PERIOD = 1e-3
STOP_TICKS = 2
"""How far from the continuous optimum a stop in steps of one tick may end: it has whole ticks, and fewer corners."""


@pytest.fixture(scope="module")
def limiter() -> ctypes.CDLL:
    library = ctypes.CDLL(str(build().library))
    library.ve_limiter_follow.argtypes = [
        ctypes.c_void_p,
        ctypes.c_double,
        ctypes.c_double,
        ctypes.c_void_p,
        ctypes.c_double,
    ]
    library.ve_limiter_follow.restype = ctypes.c_bool
    library.ve_limiter_stop.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_double]
    library.ve_joint_at_rest.argtypes = [ctypes.c_void_p]
    library.ve_joint_at_rest.restype = ctypes.c_bool
    return library


def wild_set_points(kind: int, rng: np.random.Generator, count: int) -> np.ndarray:
    hold = int(rng.integers(20, 800))  # long enough, now and then, to get to the end of the range at full speed
    steps = np.repeat(rng.uniform(-3, 3, count // hold + 1), hold)[:count]
    swing = rng.uniform(0, 3) * np.sin(rng.uniform(0, 60) * PERIOD * np.arange(count))
    drift = np.cumsum(rng.normal(0, 0.003, count))
    broken = np.where(rng.random(count) < 0.02, rng.choice([np.nan, np.inf, -np.inf]), drift)
    return (steps, rng.uniform(-3, 3, count), swing, drift, broken, np.sign(steps) * 1e6)[kind]


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), kind=st.integers(0, 5), edges=st.booleans())
def test_no_limit_is_ever_broken(limiter: ctypes.CDLL, seed: int, kind: int, edges: bool) -> None:
    """With edges, neither is a velocity limit that falls towards the ends of the range."""
    rng = np.random.default_rng(seed)
    limits = JointLimits(
        -1 - rng.random(), 1 + rng.random(), *np.exp(rng.uniform(np.log([0.2, 0.5, 50]), np.log([5, 20, 10000])))
    )
    if edges:
        limits.edge_offset, limits.edge_slope = rng.uniform(0, 0.5), np.exp(rng.uniform(0, 4))
        limits.edge_low, limits.edge_high = -rng.uniform(0.9, 2.1), rng.uniform(0.9, 2.1)
    state = JointState(rng.uniform(limits.position_min, limits.position_max), 0.0, 0.0)
    positions = [state.q]
    set_points = wild_set_points(kind, rng, 1500)
    stop_at = int(rng.integers(200, 1400))
    velocities = np.where(rng.random(set_points.size) < 0.01, rng.choice([np.nan, np.inf, -1e6]), 0.0)
    for tick, (wanted, velocity) in enumerate(zip(set_points, velocities)):
        if tick < stop_at:
            limiter.ve_limiter_follow(ctypes.byref(state), wanted, velocity, ctypes.byref(limits), PERIOD)
        else:
            limiter.ve_limiter_stop(ctypes.byref(state), ctypes.byref(limits), PERIOD)
        positions.append(state.q)
    q = np.array(positions)
    velocity = np.diff(q, prepend=q[0]) / PERIOD
    acceleration = np.diff(velocity, prepend=0.0) / PERIOD
    jerk = np.diff(acceleration, prepend=0.0) / PERIOD
    assert np.all(np.isfinite(q))
    assert q.min() >= limits.position_min - 1e-12 and q.max() <= limits.position_max + 1e-12
    assert np.abs(velocity).max() <= limits.velocity + 1e-9
    assert np.abs(acceleration).max() <= limits.acceleration + 1e-6
    assert np.abs(jerk).max() <= limits.jerk + 1e-3
    if edges:
        room = np.where(velocity > 0, limits.edge_high - q, q - limits.edge_low)
        fastest = np.sqrt(np.maximum(0.0, limits.edge_slope * room)) - limits.edge_offset
        assert np.all(np.abs(velocity) <= np.maximum(0.0, fastest) + 1e-9)


@given(v=st.floats(-2.6, 2.6), a=st.floats(-10, 10), jerk=st.floats(500, 10000), acceleration=st.floats(5, 20))
def test_a_stop_takes_no_longer_than_its_worst_case(
    limiter: ctypes.CDLL, v: float, a: float, jerk: float, acceleration: float
) -> None:
    a = max(-acceleration, min(acceleration, a))
    limits = JointLimits(-100, 100, 10, acceleration, jerk)
    state = JointState(0.0, v, a)
    fastest = abs(v) + a * a / (2 * jerk)
    worst_s = 2 * abs(a) / jerk + fastest / acceleration + 2 * math.sqrt(fastest / jerk) + acceleration / jerk
    for _ in range(math.ceil(worst_s / PERIOD) + 10):
        if limiter.ve_joint_at_rest(ctypes.byref(state)):
            break
        limiter.ve_limiter_stop(ctypes.byref(state), ctypes.byref(limits), PERIOD)
    assert limiter.ve_joint_at_rest(ctypes.byref(state)), "still moving"


def test_a_plan_within_the_limits_passes_untouched(limiter: ctypes.CDLL) -> None:
    limits = JointLimits(-2, 2, 2, 10, 5000)
    state = JointState(0.0, 0.0, 0.0)
    for tick in range(1, 5000):
        angle = 2.0 * PERIOD * tick
        wanted = 0.8 * (1 - math.cos(angle))
        assert limiter.ve_limiter_follow(
            ctypes.byref(state), wanted, 1.6 * math.sin(angle), ctypes.byref(limits), PERIOD
        )
        assert state.q == wanted


def test_a_jump_is_worked_off_and_the_plan_is_reached_again(limiter: ctypes.CDLL) -> None:
    limits = JointLimits(-2, 2, 2, 10, 5000)
    state = JointState(0.0, 0.0, 0.0)
    exact = [
        limiter.ve_limiter_follow(ctypes.byref(state), 0.01, 0.0, ctypes.byref(limits), PERIOD) for _ in range(1000)
    ]
    assert not exact[0]
    assert all(exact[-500:])
    assert state.q == 0.01


def fastest_stop(velocity: float, acceleration: float, limits: JointLimits) -> tuple[float, float]:
    """Duration in s and displacement in rad of the time-optimal continuous stop, by an independent library."""
    profile = ruckig.InputParameter(1)
    profile.control_interface = ruckig.ControlInterface.Velocity
    profile.current_velocity, profile.current_acceleration = [velocity], [acceleration]
    profile.target_velocity, profile.target_acceleration = [0.0], [0.0]
    profile.max_acceleration, profile.max_jerk = [limits.acceleration], [limits.jerk]
    found = ruckig.Trajectory(1)
    assert ruckig.Ruckig(1).calculate(profile, found) == ruckig.Result.Working
    (position,), _, _ = found.at_time(found.duration)
    return found.duration, position


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_stop_is_as_fast_as_one_can_be(limiter: ctypes.CDLL, seed: int) -> None:
    """From any state that limits allow: within a few ticks, and a few ticks of travel, of the continuous optimum."""
    rng = np.random.default_rng(seed)
    limits = JointLimits(-1e3, 1e3, *np.exp(rng.uniform(np.log([0.2, 0.5, 50]), np.log([5, 20, 10000]))))
    acceleration = rng.uniform(-1, 1) * limits.acceleration
    room = max(0.0, limits.velocity - 0.5 * acceleration**2 / limits.jerk)  # until the acceleration can be zero again
    velocity = rng.uniform(-room, room)
    state = JointState(0.0, velocity, acceleration)
    ticks, fastest = 0, abs(velocity)
    while not limiter.ve_joint_at_rest(ctypes.byref(state)):
        limiter.ve_limiter_stop(ctypes.byref(state), ctypes.byref(limits), PERIOD)
        fastest = max(fastest, abs(state.v))
        ticks += 1
        assert ticks < 20_000
    stop_s = ticks * PERIOD
    # A tick's acceleration acts on the whole tick: the velocity that counts is known to one tick of it.
    near = [fastest_stop(velocity + shift * PERIOD * acceleration, acceleration, limits) for shift in (-1, 0, 1)]
    durations, displacements = zip(*near)
    late, far = STOP_TICKS * PERIOD, STOP_TICKS * PERIOD * fastest
    assert min(durations) - late <= stop_s <= max(durations) + late
    assert min(displacements) - far <= state.q <= max(displacements) + far
