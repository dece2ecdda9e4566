"""The bound of every stop: any state of motion, any session's limits, whatever ends the motion.

A device of the core is armed under session limits down to the smallest that the wire can say, put into any state of
motion that the compiled limits allow, and stopped. `make stops` runs twenty million ticks of it.
"""

from __future__ import annotations

import ctypes
import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from edge.arms import available_arms, load_arm
from edge.arms.stopping import StopBound, stop_bound, stop_bounds
from firmware_bridge import messages as wire
from firmware_bridge.codes import DeviceState
from firmware_bridge.replay import JointLimits, JointState
from tests.core_bench import Bench
from tests.firmware_core import Inputs, Profile, Row, core

ARMS = tuple(available_arms())
PERIOD_S, PERIOD_US = 1e-3, 1000
SHORT_TICKS, LONG_TICKS = 150_000, 20_000_000
CLOSE = 0.95
"""The bound must be met this closely, or it would be one that cannot fail."""
LATE_US = 3001
NO_TICKS = 10_000


@dataclass
class Worst:
    """The largest share of the bounds that any stop took, in time and in distance."""

    ticks: int = 0
    stops: int = 0
    time: float = 0.0
    distance: float = 0.0


class ProfileBench(Bench):
    """A device of a shipped arm."""

    def __init__(self, profile: Profile) -> None:
        self.shipped = profile
        limits = profile.limits
        middle = [(low + high) / 2 for low, high in zip(limits.position_min, limits.position_max)]
        super().__init__(profile.joints, middle[: profile.joints])

    def __post_init__(self) -> None:
        super().__post_init__()
        self.profile = self.shipped
        q = Row(*self.q)
        self.library.ve_device_init(self.at, ctypes.byref(self.profile), 0, ctypes.byref(q))


def shipped() -> list[Profile]:
    return list((Profile * len(ARMS)).in_dll(core(), "VE_PROFILES"))


def tight(profile: Profile, draw: random.Random) -> wire.Limits:
    """Session limits: as compiled, or anything down to the smallest number on the wire."""
    compiled, joints = profile.limits, profile.joints

    def row(values: ctypes.Array[ctypes.c_double], unit: float) -> tuple[int, ...]:
        most = [int(value / unit) for value in values[:joints]]
        return tuple(max(1, round(value ** draw.choice([0.0, 1.0, draw.random()]))) for value in most)

    low = tuple(math.ceil(value * 1e6) for value in compiled.position_min[:joints])
    high = tuple(math.floor(value * 1e6) for value in compiled.position_max[:joints])
    return wire.Limits(
        low, high, row(compiled.velocity, 1e-6), row(compiled.acceleration, 1e-3), row(compiled.jerk, 1e-3)
    )


def put_into_motion(bench: ProfileBench, draw: random.Random) -> None:
    """Every joint anywhere that its compiled limits allow: a stop from there stays within them."""
    for joint in range(bench.joints):
        limits = bench.profile.limits
        v_max, a_max, jerk = (getattr(limits, name)[joint] for name in ("velocity", "acceleration", "jerk"))
        low, high = limits.position_min[joint], limits.position_max[joint]
        one = JointLimits(low, high, v_max, a_max, jerk)
        a = draw.choice([0.0, 1.0, draw.random()]) * min(a_max, math.sqrt(2 * v_max * jerk))
        v = (v_max - a * a / (2 * jerk)) * draw.choice([1.0, 1.0, draw.uniform(-1.0, 1.0)])
        side = draw.choice([1.0, -1.0])
        v, a = side * v, side * a
        reach = bench.library.ve_stop_reach
        up, down = reach(v, a, ctypes.byref(one), PERIOD_S), reach(-v, -a, ctypes.byref(one), PERIOD_S)
        free = high - low - up - down
        q = low + down + max(0.0, free) * draw.choice([0.0, 1.0, draw.random()])
        bench.device.joint[joint] = (
            JointState(q, v, a, False) if free > 0 else JointState((low + high) / 2, 0, 0, False)
        )
    bench.library.ve_window_clear(ctypes.addressof(bench.device.window))
    bench.device.state = DeviceState.STREAMING


def silence(bench: ProfileBench, inputs: Inputs) -> None:
    bench.device.heartbeat_us = 0


def no_feedback(bench: ProfileBench, inputs: Inputs) -> None:
    inputs.feedback_ok = False


def left_behind(bench: ProfileBench, inputs: Inputs) -> None:
    inputs.measured[bench.joints - 1] += 9.0


def late(bench: ProfileBench, inputs: Inputs) -> None:
    inputs.now_us += LATE_US - PERIOD_US


CAUSES: tuple[Callable[[ProfileBench, Inputs], object], ...] = (
    lambda bench, inputs: bench.send(wire.Stop()),
    lambda bench, inputs: bench.send(wire.Estop()),
    silence,
    no_feedback,
    left_behind,
    late,
)


def one_stop(profile: Profile, bounds: tuple[StopBound, ...], draw: random.Random, worst: Worst) -> None:
    """Arms, moves, stops; compares what it took with the bounds, and every step with the compiled limits."""
    bench = ProfileBench(profile).idle()
    assert bench.refusal(tight(profile, draw)) is None
    bench.arm()
    put_into_motion(bench, draw)
    start = [(joint.q, joint.v, joint.a) for joint in bench.device.joint[: bench.joints]]
    measured = Row(*(q for q, _, _ in start))
    inputs = Inputs(bench.now_us + PERIOD_US, measured, True, True)
    draw.choice(CAUSES)(bench, inputs)
    tick, at, outputs = bench.library.ve_device_tick, bench.at, bench.outputs
    given, told, set_point = ctypes.byref(inputs), ctypes.byref(outputs), outputs.set_point
    joints, device, path = bench.joints, bench.device, []
    while True:
        tick(at, given, told)
        now = set_point[:joints]
        path.append(now)
        if device.state == DeviceState.HOLD or not outputs.drive_enable:
            break
        assert len(path) < NO_TICKS, "it does not stop"
        inputs.now_us += PERIOD_US
        inputs.measured[:joints] = now
    worst.ticks += len(path)
    worst.stops += 1
    judge(np.array(path), np.array(start).T, profile, bounds, worst)


def judge(path: np.ndarray, start: np.ndarray, profile: Profile, bounds: tuple[StopBound, ...], worst: Worst) -> None:
    q0, v0, a0 = start
    joints, limits = profile.joints, profile.limits
    v = np.diff(path, axis=0, prepend=q0[None]) / PERIOD_S
    a = np.diff(v, axis=0, prepend=v0[None]) / PERIOD_S
    jerk = np.diff(a, axis=0, prepend=a0[None]) / PERIOD_S
    assert np.all(path >= np.array(limits.position_min[:joints]) - 1e-9)
    assert np.all(path <= np.array(limits.position_max[:joints]) + 1e-9)
    assert np.all(np.abs(v) <= np.array(limits.velocity[:joints]) * (1 + 1e-6) + 1e-9)
    assert np.all(np.abs(a) <= np.array(limits.acceleration[:joints]) * (1 + 1e-6) + 1e-6)
    assert np.all(np.abs(jerk) <= np.array(limits.jerk[:joints]) * (1 + 1e-6) + 5e-3)
    moving = [np.flatnonzero(column) for column in np.abs(v.T)]
    took = np.array([(rows[-1] + 1) * PERIOD_S if rows.size else 0.0 for rows in moving])
    far = np.max(np.abs(path - q0), axis=0)
    time_share = took / [bound.time_s for bound in bounds]
    distance_share = far / [bound.distance for bound in bounds]
    assert np.all(time_share <= 1.0), f"joint {np.argmax(time_share) + 1} took {np.max(time_share):.4f} of its bound"
    assert np.all(distance_share <= 1.0), f"joint {np.argmax(distance_share) + 1}: {np.max(distance_share):.4f}"
    worst.time, worst.distance = max(worst.time, *time_share), max(worst.distance, *distance_share)


def campaign(ticks: int, seed: int) -> dict[str, Worst]:
    """So many ticks, an equal share on every shipped arm."""
    draw, found = random.Random(seed), {}
    for name, profile in zip(ARMS, shipped()):
        assert profile.name.decode() == name
        worst, bounds = Worst(), stop_bounds(load_arm(name))
        while worst.ticks < ticks // len(ARMS):
            one_stop(profile, bounds, draw, worst)
        found[name] = worst
    return found


def check(found: dict[str, Worst]) -> None:
    for name, worst in found.items():
        print(f"{name}: {worst.stops} stops, {worst.ticks} ticks; {worst.time:.3f} of the bound in time, "
              f"{worst.distance:.3f} in distance")  # fmt: skip
        assert worst.time >= CLOSE and worst.distance >= CLOSE, "a bound that is never come near says nothing"


def test_every_stop_keeps_its_bound_whatever_the_session_says() -> None:
    check(campaign(SHORT_TICKS, 0))


@pytest.mark.slow(reason="twenty million ticks take minutes")
def test_twenty_million_ticks_of_stops() -> None:
    check(campaign(LONG_TICKS, 1))


@pytest.mark.parametrize(("velocity", "acceleration", "jerk"), [(1.0, 10.0, 5000.0), (0.01, 10.0, 100.0), (2, 2, 2)])
def test_the_bound_is_that_of_the_continuous_stop(velocity: float, acceleration: float, jerk: float) -> None:
    """From the worst state, by integration in steps that are small beside the tick."""
    bound, step = stop_bound(velocity, acceleration, jerk), 1e-5
    a = min(acceleration, math.sqrt(2 * velocity * jerk))
    v, q, t = velocity - a * a / (2 * jerk), 0.0, 0.0
    while v > 1e-4 * velocity or a > 0:
        left = v - a * a / (2 * jerk)  # with this much more speed than a ramp of the deceleration to zero takes away
        wanted = -acceleration if left > 0 else 0.0
        a = max(wanted, a - jerk * step) if wanted < a else min(wanted, a + jerk * step)
        v, q, t = v + a * step, q + v * step, t + step
    assert bound.time_s == pytest.approx(t + 3e-3, rel=0.02)
    assert bound.distance == pytest.approx(q + 3e-3 * velocity, rel=0.02)
