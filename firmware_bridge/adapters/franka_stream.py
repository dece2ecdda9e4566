"""What a Franka is sent in a motion: positions or velocities, from where the robot itself says that it should be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from firmware_bridge.adapters.rate_guard import PERIOD_S, ArmLimits, Desired, RateGuard, is_resting
from firmware_bridge.adapters.velocity import VelocityFollower

FOLLOWED = 1.0 - 7e-7
"""Between what the core keeps of a limit and what the guard lets pass, so that no rounding stands between the two."""
ANY_CHANGE = 1e9
"""Of an acceleration's derivative's derivative: nobody limits it."""


class PositionStream:
    """Joint positions. `departures` counts the set-points that were not the core's own."""

    def __init__(self, limits: ArmLimits) -> None:
        self._desired = Desired(len(limits.velocity_rad_s))
        self._guard = RateGuard(limits)
        self._velocity, self._periods = [0.0] * len(limits.velocity_rad_s), 1

    @property
    def departures(self) -> int:
        return self._guard.departures

    @property
    def is_resting(self) -> bool:
        """Whether the robot may be told that the motion is over."""
        return is_resting(self._desired.v, self._desired.a)

    def begin(self, q_d_rad: Sequence[float]) -> None:
        """A motion begins, from rest."""
        self._desired.rest(q_d_rad)
        self._guard.restart()
        self._velocity, self._periods = [0.0] * len(q_d_rad), 1

    def told(self, state: Any, periods: int) -> None:
        """The robot's state, `periods` after the one before."""
        self._periods = max(1, periods)
        if not self._desired.told(state.q_d, state.dq_d, state.ddq_d, periods):
            self._guard.leave()

    def next(self, set_point_rad: Sequence[float], velocity_rad_s: Sequence[float], ending: bool) -> list[float]:
        """What to answer to the state that was told last; `ending` while the motion is brought to rest."""
        desired, step_s = self._desired, PERIOD_S * self._periods
        rising = [(now - before) / step_s for now, before in zip(velocity_rad_s, self._velocity)]
        self._velocity = list(velocity_rad_s)
        sent, _ = self._guard.follow((desired.q, desired.v, desired.a), set_point_rad, velocity_rad_s, rising)
        desired.sent(sent)
        return sent


class VelocityStream:
    """Joint velocities, with a correction that keeps them from drifting (`VelocityFollower`). The same limiter keeps
    them within acceleration and jerk: velocities stand for its positions, and so on."""

    def __init__(self, limits: ArmLimits) -> None:
        joints = len(limits.velocity_rad_s)
        most = limits.velocity_rad_s
        self._desired = Desired(joints, velocities=True)
        self._follower = VelocityFollower(
            replace(
                limits,
                acceleration_rad_s2=tuple(FOLLOWED * a for a in limits.acceleration_rad_s2),
                jerk_rad_s3=tuple(FOLLOWED * j for j in limits.jerk_rad_s3),
            )
        )
        self._guard = RateGuard(
            ArmLimits(
                tuple(-v for v in most), most, limits.acceleration_rad_s2, limits.jerk_rad_s3, (ANY_CHANGE,) * joints
            )
        )
        self._rest = [0.0] * joints
        self._wanted = list(self._rest)
        self._reported: Sequence[float] = self._rest
        self._periods = 1

    @property
    def departures(self) -> int:
        return self._guard.departures

    @property
    def is_resting(self) -> bool:
        return is_resting(self._desired.q, self._desired.v)

    def begin(self, q_d_rad: Sequence[float]) -> None:
        """A motion begins, from rest."""
        self._desired.rest(self._rest)
        self._follower.restart()
        self._guard.restart()
        self._wanted, self._reported, self._periods = list(self._rest), list(q_d_rad), 1

    def told(self, state: Any, periods: int) -> None:
        """The robot's state, `periods` after the one before."""
        if not self._desired.told(state.dq_d, state.ddq_d, self._rest, periods):
            self._guard.leave()
        self._reported, self._periods = state.q_d, periods

    def next(self, set_point_rad: Sequence[float], velocity_rad_s: Sequence[float], ending: bool) -> list[float]:
        """As of positions; a motion that ends is not corrected any more."""
        wanted = self._follower.follow(set_point_rad, velocity_rad_s, self._reported, self._periods)
        wanted = list(velocity_rad_s) if ending else wanted
        step_s = PERIOD_S * max(1, self._periods)
        rising = [(now - before) / step_s for now, before in zip(wanted, self._wanted)]
        desired, self._wanted = self._desired, wanted
        sent, _ = self._guard.follow((desired.q, desired.v, self._rest), wanted, rising, self._rest)
        desired.sent(sent)
        return sent
