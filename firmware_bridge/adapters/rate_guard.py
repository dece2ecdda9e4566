"""Keeps set-points within an arm's limits as the arm itself sees them: from its own desired state.

An arm that is streamed to goes on by itself where a packet is lost, and is then elsewhere than the plan. What the plan
asks next is a jump for it. So every set-point is made from where the arm says it should be (`Desired`) by the core's
own limiter: on the plan where that is within the limits, and back towards it, within a share of them, until it is.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

from firmware_bridge.native import build, load

PERIOD_S = 0.001
GUARD = 1.0 - 5e-7
"""As the core's, and a little less: what the core allows must not be refused here by its rounding."""
BACK_SHARE = 0.9
"""Of acceleration and jerk, on the way back to the plan. The arm reports its desired state in single precision: at
4 rad to 2.4e-7 rad, which reads as up to 720 rad/s^3 of jerk over the next three periods, a seventh of the FR3's."""
BACK_JERK_SHARE = 0.8
FOLLOW_RATE_1_S = 40.0
"""The core's (`limiter.c`): it pulls as a spring does, towards where the plan is in a period as if it were now. So it
would stay behind by the plan's acceleration over the square of this, and ahead by a period of the plan's velocity."""
FLOAT_RAD, FLOAT_RAD_S = 5e-7, 1e-5
"""What single precision makes of a position, and of a velocity, at most."""
CREDIBLE = 3.0
"""Velocities that fit neither way by more units than this are no derivative of the positions."""
RESTING_RAD_S, RESTING_RAD_S2 = 2e-4, 0.2
"""From there to standstill in one period is 0.4 rad/s^2 at most, and less than a tenth of any jerk limit."""


@dataclass(frozen=True)
class ArmLimits:
    """What an arm allows, per joint. `edges` are the four rows of its velocity limits near the ends, or nothing."""

    position_min_rad: tuple[float, ...]
    position_max_rad: tuple[float, ...]
    velocity_rad_s: tuple[float, ...]
    acceleration_rad_s2: tuple[float, ...]
    jerk_rad_s3: tuple[float, ...]
    edges: tuple[tuple[float, ...], ...] = ()

    def first(self, joints: int) -> ArmLimits:
        """The same of the first joints alone."""
        return ArmLimits(
            self.position_min_rad[:joints],
            self.position_max_rad[:joints],
            self.velocity_rad_s[:joints],
            self.acceleration_rad_s2[:joints],
            self.jerk_rad_s3[:joints],
            tuple(row[:joints] for row in self.edges),
        )


class _State(ctypes.Structure):
    """`ve_joint_state_t`."""

    _fields_ = [("q", ctypes.c_double), ("v", ctypes.c_double), ("a", ctypes.c_double), ("off_plan", ctypes.c_bool)]


class _Limits(ctypes.Structure):
    """`ve_joint_limits_t`."""

    _fields_ = [
        (name, ctypes.c_double)
        for name in (
            "position_min",
            "position_max",
            "velocity",
            "acceleration",
            "jerk",
            "edge_offset",
            "edge_slope",
            "edge_low",
            "edge_high",
        )
    ]


@cache
def _library() -> ctypes.CDLL:
    at, number = ctypes.c_void_p, ctypes.c_double
    signature = (ctypes.c_bool, ctypes.c_uint8, at, at, at, at, at, at, number)
    return load(build().library, {"ve_follower_step": signature})


class Desired:
    """Where the arm should be by its own account, one period after another.

    It reports that in single precision, in which a position reads as an acceleration of 0.2 rad/s^2. What it was sent
    is known in full, so of what may have become of it (it was taken, or lost and extrapolated at constant
    acceleration) whichever the report fits is believed; the report itself only where none does.
    """

    def __init__(self, joints: int, velocities: bool = False) -> None:
        """`velocities`: of an arm that is sent those, its velocity stands for the position here, and so on; what it
        extrapolates is then a straight line."""
        self.q, self.v, self.a = [0.0] * joints, [0.0] * joints, [0.0] * joints
        self._sent: list[float] | None = None
        self._bends = 0.0 if velocities else 1.0

    def rest(self, q_rad: Sequence[float]) -> None:
        """A motion begins, from standstill."""
        self.q, self.v, self.a = list(q_rad), [0.0] * len(q_rad), [0.0] * len(q_rad)
        self._sent = None

    def sent(self, q_rad: Sequence[float]) -> None:
        """These positions are on their way."""
        self._sent = list(q_rad)

    def told(
        self, q_rad: Sequence[float], dq_rad_s: Sequence[float], ddq_rad_s2: Sequence[float], periods: int
    ) -> bool:
        """Takes a report, `periods` after the one before; whether the set-point was taken, and nothing lost since."""
        if periods <= 0:
            return True
        sent, self._sent = self._sent, None
        lost = self._extrapolated(self.q, self.v, self.a, periods)
        taken = self._taken(sent, periods) if sent is not None else lost
        fits = _likelier(taken, lost, q_rad, dq_rad_s)
        self.q, self.v, self.a = taken if fits else lost
        if _apart(self.q, q_rad, FLOAT_RAD) > 1.0:
            self.q, self.v, self.a, fits = list(q_rad), list(dq_rad_s), list(ddq_rad_s2), False
        return fits and periods == 1

    def _taken(self, sent: list[float], periods: int) -> Way:
        v = [(now - before) / PERIOD_S for now, before in zip(sent, self.q)]
        a = [self._bends * (now - before) / PERIOD_S for now, before in zip(v, self.v)]
        return self._extrapolated(sent, v, a, periods - 1)

    @staticmethod
    def _extrapolated(q: list[float], v: list[float], a: list[float], periods: int) -> Way:
        q, v = list(q), list(v)
        for _ in range(periods):
            v = [speed + PERIOD_S * change for speed, change in zip(v, a)]
            q = [place + PERIOD_S * speed for place, speed in zip(q, v)]
        return q, v, list(a)


Way: TypeAlias = tuple[list[float], list[float], list[float]]
"""Positions, velocities and accelerations of all joints."""


def _apart(a: Sequence[float], b: Sequence[float], unit: float) -> float:
    return max(abs(x - y) for x, y in zip(a, b)) / unit


def _likelier(taken: Way, lost: Way, q_rad: Sequence[float], dq_rad_s: Sequence[float]) -> bool:
    """Whether a report is rather that of a set-point that was taken. In doubt it was: one that goes on at the same
    acceleration is what the arm would have done without it. Velocities tell more, where the arm's are of its positions.
    """
    by_position = _apart(taken[0], q_rad, FLOAT_RAD), _apart(lost[0], q_rad, FLOAT_RAD)
    if min(by_position) <= 1.0 < max(by_position):
        return by_position[0] <= 1.0
    by_velocity = _apart(taken[1], dq_rad_s, FLOAT_RAD_S), _apart(lost[1], dq_rad_s, FLOAT_RAD_S)
    if min(by_velocity) <= CREDIBLE:
        return by_velocity[0] <= by_velocity[1] + 1.0
    return by_position[0] <= by_position[1] + 0.5


class RateGuard:
    """One joint state each for the limiter, made from the arm's own before every set-point.

    `departures` counts the set-points that were not those of the plan.
    """

    def __init__(self, limits: ArmLimits) -> None:
        self._library = _library()
        self._joints = len(limits.velocity_rad_s)
        self._most = limits.acceleration_rad_s2
        self._limits = _rows(limits, GUARD, GUARD)
        self._back = _rows(limits, BACK_SHARE, BACK_JERK_SHARE)
        self._state = (_State * self._joints)()
        self._q_next = (ctypes.c_double * self._joints)()
        self._v_next = (ctypes.c_double * self._joints)()
        self._lead = (ctypes.c_double * self._joints)()
        self.departures = 0

    def restart(self) -> None:
        """A motion begins: every joint is on its plan."""
        self._mark(False)

    def leave(self) -> None:
        """Something was lost: every joint goes back to its plan, with some room left."""
        self._mark(True)

    def _mark(self, off_plan: bool) -> None:
        for one in self._state:
            one.off_plan = off_plan

    def follow(
        self,
        state: tuple[Sequence[float], Sequence[float], Sequence[float]],
        q_next: Sequence[float],
        v_next: Sequence[float],
        a_next: Sequence[float],
    ) -> tuple[list[float], list[float]]:
        """Positions and velocities to send, from the arm's own `state` (q, v, a) towards the plan's."""
        for one, most, q, v, a in zip(self._state, self._most, *state):
            one.q, one.v, one.a = q, v, min(max(a, -most), most)  # an arm that stood still at once reports any
        self._q_next[:], self._v_next[:] = list(q_next), list(v_next)
        self._lead[:] = [a / FOLLOW_RATE_1_S**2 - PERIOD_S * v for v, a in zip(v_next, a_next)]
        on_plan = self._library.ve_follower_step(
            self._joints, self._state, self._limits, self._back, self._q_next, self._v_next, self._lead, PERIOD_S
        )
        self.departures += not on_plan
        return [one.q for one in self._state], [one.v for one in self._state]


def is_resting(v_rad_s: Sequence[float], a_rad_s2: Sequence[float]) -> bool:
    """Whether an arm may be taken for standing still."""
    return max(map(abs, v_rad_s)) <= RESTING_RAD_S and max(map(abs, a_rad_s2)) <= RESTING_RAD_S2


def _rows(limits: ArmLimits, share: float, jerk_share: float) -> ctypes.Array[_Limits]:
    """Of the limits' acceleration and jerk these shares; positions and velocities as the core has them."""
    joints = len(limits.velocity_rad_s)
    edges = limits.edges or ((0.0,) * joints,) * 4
    rows = [
        _Limits(low, high, GUARD * v, share * a, jerk_share * j, *edge)
        for low, high, v, a, j, *edge in zip(
            limits.position_min_rad,
            limits.position_max_rad,
            limits.velocity_rad_s,
            limits.acceleration_rad_s2,
            limits.jerk_rad_s3,
            *edges,
        )
    ]
    return (_Limits * joints)(*rows)
