"""The limiter of the core, tick by tick, against the same rules in Python, and exactly at each of its thresholds.

`test_limiter.py` says that no limit is ever broken. This says which step is taken: the reference computes in doubles in
the same order, so the two agree to the last bit.
"""

from __future__ import annotations

import ctypes
import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from firmware_bridge.replay import JointLimits, JointState
from tests.firmware_core import core

LIBRARY = core()
FOLLOW_RATE, BLEND_TRIES, REACH_PERIODS = 40.0, 6, 1.5
REST_VELOCITY, REST_ACCELERATION = 1e-9, 1e-6
PERIOD = 1e-3
TICK = 2.0**-10
"""A period that doubles hold exactly, for steps that must meet a bound exactly."""
Draw = random.Random


@dataclass(frozen=True)
class Reference:
    """One joint's rules; radians and seconds."""

    limits: JointLimits
    period: float

    @property
    def step(self) -> float:
        return float(self.limits.jerk * self.period)

    def stop_acceleration(self, v: float, a: float) -> float:
        ratio = abs(v) / (self.step * self.period)
        n = max(1.0, math.ceil(0.5 * (math.sqrt(1.0 + 8.0 * ratio) - 1.0)))
        landing = abs(v) / (n * self.period) + 0.5 * self.step * (n - 1.0)
        deceleration = min(landing, self.limits.acceleration)
        return min(max(-deceleration if v > 0.0 else deceleration, a - self.step), a + self.step)

    def rest_to_rest(self, v: float) -> float:
        ramp = self.limits.acceleration / self.limits.jerk
        if v >= self.limits.acceleration * ramp:
            return 0.5 * v * (v / self.limits.acceleration + ramp)
        return v * math.sqrt(v / self.limits.jerk)

    def reach(self, v: float, a: float) -> float:
        j, later = self.limits.jerk, REACH_PERIODS * self.period
        t = abs(a) / j
        swing = 0.5 * a * t
        if a > 0.0:
            top = v + swing
            if top <= 0.0:
                return 0.0
            return max(0.0, v * t + a * t * t / 3.0 + self.rest_to_rest(top) + later * top)
        if v <= 0.0:
            return 0.0
        if v >= -swing:
            start = v - swing
            behind = start * t - j * t * t * t / 6.0
            return self.rest_to_rest(start) - behind + later * v
        zero = (-a - math.sqrt(a * a - 2.0 * j * v)) / j
        return v * zero + 0.5 * a * zero * zero + j * zero * zero * zero / 6.0 + later * v

    def fastest(self, room: float) -> float:
        limits = self.limits
        if limits.edge_slope <= 0.0:
            return float(limits.velocity)
        near_edge = math.sqrt(max(0.0, limits.edge_slope * room)) - limits.edge_offset
        return float(min(max(near_edge, 0.0), limits.velocity))

    def allowed(self, q: float, v: float, a: float, wanted: float) -> bool:
        if abs(wanted - a) > self.step or abs(wanted) > self.limits.acceleration:
            return False
        v_next = v + wanted * self.period
        q_next = q + v_next * self.period
        swing = 0.5 * wanted * wanted / self.limits.jerk
        up = v_next + (swing if wanted > 0.0 else 0.0)
        down = (swing if wanted < 0.0 else 0.0) - v_next
        top, bottom = q_next + self.reach(v_next, wanted), q_next - self.reach(-v_next, -wanted)
        return bool(
            top <= self.limits.position_max
            and bottom >= self.limits.position_min
            and up <= self.fastest(self.limits.edge_high - top)
            and down <= self.fastest(bottom - self.limits.edge_low)
        )

    def follow(self, before: JointState, q_next: float, v_next: float) -> tuple[float, float, float, bool]:
        """Position, velocity, acceleration and whether off the plan, after a tick."""
        q, v, a = before.q, before.v, before.a

        def moved(to: float) -> tuple[float, float, float, bool]:
            return q + (v + to * self.period) * self.period, v + to * self.period, to, True

        stop = self.stop_acceleration(v, a)
        if not (math.isfinite(q_next) and math.isfinite(v_next)):
            return moved(stop)
        exact = ((q_next - q) / self.period - v) / self.period
        following = (v_next - (v + exact * self.period)) / self.period
        stays = abs(following) <= self.step and abs(following - exact) <= self.step
        if self.allowed(q, v, a, exact) and (stays or not before.off_plan):
            return q_next, v + exact * self.period, exact, False
        pull = 2.0 * FOLLOW_RATE * (v_next - v) + FOLLOW_RATE * FOLLOW_RATE * (q_next - q)
        wanted = min(max(pull, a - self.step), a + self.step)
        wanted = min(max(wanted, -self.limits.acceleration), self.limits.acceleration)
        shares = (0.5**attempt for attempt in range(BLEND_TRIES))
        blends = (stop + share * (wanted - stop) for share in shares)
        return moved(next((blend for blend in blends if self.allowed(q, v, a, blend)), stop))


def follow(
    state: JointState, limits: JointLimits, q_next: float, v_next: float, period: float
) -> tuple[float, float, float, bool]:
    exact = LIBRARY.ve_limiter_follow(ctypes.byref(state), q_next, v_next, ctypes.byref(limits), period)
    assert exact is not state.off_plan
    return state.q, state.v, state.a, state.off_plan


def reach(v: float, a: float, limits: JointLimits, period: float = PERIOD) -> float:
    return float(LIBRARY.ve_stop_reach(v, a, ctypes.byref(limits), period))


def stop_acceleration(v: float, a: float, limits: JointLimits, period: float = PERIOD) -> float:
    state = JointState(0.0, v, a, False)
    return float(LIBRARY.ve_stop_acceleration(ctypes.byref(state), ctypes.byref(limits), period))


def some_limits(draw: Draw) -> JointLimits:
    low, high = (0.2, 0.5, 50.0), (5.0, 20.0, 10_000.0)
    return JointLimits(-1.0, 1.0, *(math.exp(draw.uniform(math.log(a), math.log(b))) for a, b in zip(low, high)))


def with_edges(limits: JointLimits, draw: Draw) -> JointLimits:
    """The same, with velocity limits that fall towards the ends of the range, or a little before or behind."""
    limits.edge_offset, limits.edge_slope = draw.choice([0.0, 0.1, 0.4]), math.exp(draw.uniform(0.0, 4.0))
    limits.edge_low, limits.edge_high = -draw.uniform(0.9, 1.1), draw.uniform(0.9, 1.1)
    return limits


STATES: dict[str, Callable[[Draw, JointLimits], tuple[float, float]]] = {
    "any": lambda draw, limits: (
        draw.uniform(-1, 1) * limits.velocity,
        draw.uniform(-1, 1) * limits.acceleration,
    ),
    "accelerating softly": lambda draw, limits: (draw.uniform(-1, 1) * limits.velocity, draw.uniform(-1, 1)),
    "nearly at rest": lambda draw, limits: (draw.uniform(-0.01, 0.01), draw.uniform(-1, 1) * limits.acceleration),
    "turning around": lambda draw, limits: (
        draw.uniform(0.0, 0.5) * limits.acceleration**2 / limits.jerk,
        -limits.acceleration * draw.uniform(0.5, 1.0),
    ),
    "steady": lambda draw, limits: (draw.uniform(-1, 1) * limits.velocity, 0.0),
    "falling back into a rise": lambda draw, limits: (
        -draw.uniform(0.4, 0.6) * limits.acceleration**2 / limits.jerk,
        limits.acceleration,
    ),
}


@pytest.mark.parametrize("kind", STATES)
def test_the_reach_and_the_rate_of_a_stop_are_the_references(kind: str) -> None:
    draw = Draw(kind)
    for _ in range(2000):
        limits = some_limits(draw)
        v, a = STATES[kind](draw, limits)
        reference = Reference(limits, PERIOD)
        for sign in (1.0, -1.0):
            assert reach(sign * v, sign * a, limits) == reference.reach(sign * v, sign * a)
            assert stop_acceleration(sign * v, sign * a, limits) == reference.stop_acceleration(sign * v, sign * a)


def test_a_stop_that_only_just_turns_around_reaches_as_far_either_way() -> None:
    """On the border between two formulas, to the last bit the one of the stop that does not turn."""
    draw, different = Draw(5), 0
    for _ in range(500):
        limits = some_limits(draw)
        a = -draw.uniform(0.1, 1.0) * limits.acceleration
        v = -(0.5 * a * (abs(a) / limits.jerk))
        reference = Reference(limits, PERIOD)
        assert reach(v, a, limits) == reference.reach(v, a)
        different += reference.reach(v, a) != reference.reach(math.nextafter(v, 0.0), a)
    assert different


def test_a_stop_from_the_least_speed_that_needs_full_deceleration() -> None:
    """On the border between two formulas, to the last bit the one with a phase of constant deceleration."""
    draw, different = Draw(6), 0
    for _ in range(500):
        limits = some_limits(draw)
        v = limits.acceleration * (limits.acceleration / limits.jerk)
        assert reach(v, 0.0, limits) == Reference(limits, PERIOD).reach(v, 0.0)
        different += v * math.sqrt(v / limits.jerk) != Reference(limits, PERIOD).rest_to_rest(v)
    assert different


@pytest.mark.parametrize("kind", STATES)
def test_a_stop_stays_within_its_reach(kind: str) -> None:
    """From states that the limits allow. The reach is an upper bound, and not much more than one."""
    draw = Draw(kind)
    for _ in range(300):
        limits = some_limits(draw)
        v, a = STATES[kind](draw, limits)
        state, farthest = JointState(0.0, v, a, False), 0.0
        bound, highest = reach(v, a, limits), abs(v) + a * a / limits.jerk
        for _ in range(20_000):
            if LIBRARY.ve_joint_at_rest(ctypes.byref(state)):
                break
            LIBRARY.ve_limiter_stop(ctypes.byref(state), ctypes.byref(limits), PERIOD)
            farthest = max(farthest, state.q)
        assert farthest <= bound + 1e-12
        assert bound <= farthest + 4.0 * PERIOD * highest


@pytest.mark.parametrize("edges", [False, True])
@pytest.mark.parametrize("off_plan", [False, True])
@pytest.mark.parametrize("kind", STATES)
def test_every_step_is_the_references(kind: str, off_plan: bool, edges: bool) -> None:
    draw = Draw(f"{kind} {off_plan}")
    for _ in range(3000):
        limits = with_edges(some_limits(draw), draw) if edges else some_limits(draw)
        reference = Reference(limits, PERIOD)
        v, a = STATES[kind](draw, limits)
        if draw.random() < 0.3:  # at full speed, or nearly, with or against the acceleration
            v = draw.choice([-1.0, 1.0]) * limits.velocity * draw.choice([1.0, 0.999, 1.001, draw.random()])
        room = draw.choice([0.0, 1e-4, 1e-2, 0.3])
        at_edge = draw.random() < 0.3
        q = limits.position_max - reference.reach(v, a) - room if at_edge else draw.uniform(-1, 1)
        state = JointState(q, v, a, off_plan)
        q_next, v_next = set_point(draw, state, reference)
        expected = reference.follow(state, q_next, v_next)
        assert follow(state, limits, q_next, v_next, PERIOD) == expected


def set_point(draw: Draw, state: JointState, reference: Reference) -> tuple[float, float]:
    """One that asks for an acceleration within reach, at its edge or beyond it; or just any, or none."""
    step = reference.step
    choices = [0.0, state.a, state.a + step, state.a - step, state.a + draw.uniform(-1.0, 1.0) * step]
    a = draw.choice([*choices, reference.stop_acceleration(state.v, state.a)])
    a *= draw.choice([1.0, 1.0 - 1e-9, 1.0 + 1e-9])
    v = state.v + PERIOD * a
    q_next = draw.choice([state.q + PERIOD * v, state.q + PERIOD * v, draw.uniform(-1.1, 1.1), math.nan])
    return q_next, draw.choice([v, v + PERIOD * a, 0.0, draw.uniform(-2.0, 2.0), math.inf])


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_rest_is_less_than_a_nanoradian_and_a_microradian_a_second(sign: float) -> None:
    def rests(v: float, a: float) -> bool:
        return bool(LIBRARY.ve_joint_at_rest(ctypes.byref(JointState(0.3, sign * v, sign * a, True))))

    below = math.nextafter
    assert rests(0.0, 0.0)
    assert rests(below(REST_VELOCITY, 0.0), below(REST_ACCELERATION, 0.0))
    assert not rests(REST_VELOCITY, 0.0) and not rests(0.0, REST_ACCELERATION)


def test_a_joint_that_rests_nearly_rests_entirely() -> None:
    state = JointState(0.3, 9e-10, -9e-7, True)
    limits = JointLimits(-1.0, 1.0, 1.0, 8.0, 1024.0)
    LIBRARY.ve_limiter_stop(ctypes.byref(state), ctypes.byref(limits), PERIOD)
    assert (state.q, state.v, state.a, state.off_plan) == (0.3, 0.0, 0.0, True)


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_the_plan_may_stand_on_a_position_limit(side: float) -> None:
    limits = JointLimits(-1.0, 1.0, 1.0, 8.0, 1024.0)
    assert follow(JointState(side, 0.0, 0.0, False), limits, side, 0.0, TICK) == (side, 0.0, 0.0, False)
    beyond = side * math.nextafter(1.0, 2.0)
    assert follow(JointState(side, 0.0, 0.0, False), limits, beyond, 0.0, TICK)[3]


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_the_plan_may_run_at_the_velocity_limit(side: float) -> None:
    for velocity, off_plan in ((1.0, False), (math.nextafter(1.0, 0.0), True)):
        limits = JointLimits(-10.0, 10.0, velocity, 8.0, 1024.0)
        assert follow(JointState(0.0, side, 0.0, False), limits, side * TICK, side, TICK)[3] is off_plan


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_the_plan_may_run_at_the_velocity_limit_near_an_edge(side: float) -> None:
    """With 2 rad left to where the stop ends: sqrt(8 * 2) - 3 is 1 rad/s, as fast as the plan. Away from it, faster."""
    q_next = side * TICK
    room = 2.0 + TICK + reach(1.0, 0.0, JointLimits(-10.0, 10.0, 5.0, 8.0, 1024.0), TICK)
    for offset, off_plan in ((3.0, False), (math.nextafter(3.0, 4.0), True)):
        ends = (-100.0, room) if side > 0 else (-room, 100.0)
        limits = JointLimits(-10.0, 10.0, 5.0, 8.0, 1024.0, offset, 8.0, *ends)
        assert follow(JointState(0.0, side, 0.0, False), limits, q_next, side, TICK)[3] is off_plan
        away = JointLimits(-10.0, 10.0, 5.0, 8.0, 1024.0, offset, 8.0, -ends[1], -ends[0])
        assert not follow(JointState(0.0, side, 0.0, False), away, q_next, side, TICK)[3]


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_at_an_edge_a_joint_may_stand_and_only_leave(side: float) -> None:
    limits = JointLimits(-1.0, 1.0, 2.0, 16.0, 4096.0, 0.3, 12.0, -1.0, 1.0)
    at_edge = side * 0.999
    assert not follow(JointState(at_edge, 0.0, 0.0, False), limits, at_edge, 0.0, TICK)[3]
    outwards = at_edge + side * TICK * TICK
    assert follow(JointState(at_edge, 0.0, 0.0, False), limits, outwards, side * TICK, TICK)[3]
    inwards = at_edge - side * TICK * TICK
    assert not follow(JointState(at_edge, 0.0, 0.0, False), limits, inwards, -side * TICK, TICK)[3]


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_the_plan_may_use_all_acceleration_and_all_jerk(side: float) -> None:
    """A step of 1 rad/s2 in one tick, that is 1024 rad/s3."""
    q_next, less = side * TICK * TICK, math.nextafter
    for acceleration, jerk in ((1.0, 4096.0), (16.0, 1024.0)):
        limits = JointLimits(-10.0, 10.0, 2.0, acceleration, jerk)
        assert follow(JointState(0.0, 0.0, 0.0, False), limits, q_next, 0.0, TICK) == (q_next, side * TICK, side, False)
    for acceleration, jerk in ((less(1.0, 0.0), 4096.0), (16.0, less(1024.0, 0.0))):
        limits = JointLimits(-10.0, 10.0, 2.0, acceleration, jerk)
        assert follow(JointState(0.0, 0.0, 0.0, False), limits, q_next, 0.0, TICK)[3]


@pytest.mark.parametrize("side", [1.0, -1.0])
@pytest.mark.parametrize(
    ("a", "following", "stays"),
    [
        (0.0, 1.0, True),  # the next step may be as large as one change of acceleration allows
        (0.0, math.nextafter(1.0, 2.0), False),
        (0.5, -0.5, True),  # and may differ from this one by as much
        (0.5, -0.5 - 1e-9, False),
    ],
)
def test_back_on_the_plan_only_where_it_can_be_kept(side: float, a: float, following: float, stays: bool) -> None:
    limits = JointLimits(-10.0, 10.0, 2.0, 16.0, 1024.0)
    v = side * a * TICK
    state = JointState(0.0, 0.0, 0.0, True)
    assert follow(state, limits, v * TICK, v + side * following * TICK, TICK)[3] is not stays
