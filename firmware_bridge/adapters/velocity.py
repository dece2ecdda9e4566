"""Set-points for an arm that is sent joint velocities: the core's velocity, and a little more so that none drifts.

With set-point q and velocity v of the core, and q_d where the arm says that it should be, the arm is sent v + c. The
correction c follows K (q - q_d), bounded to `CORRECTION_RAD_S`, through a critically damped second-order filter; what
it may accelerate is what the core leaves of the arm's limits in that period. So the acceleration and jerk of v + c are
within the arm's limits whenever those of v are, and its velocity exceeds that of v by at most `CORRECTION_RAD_S`.
"""

from __future__ import annotations

from collections.abc import Sequence

from firmware_bridge.adapters.rate_guard import PERIOD_S, ArmLimits

GAIN_1_S = 5.0
"""K: an offset decays with a time constant of 0.2 s. The loop is stable for K below twice the filter's rate."""
FILTER_1_S = 40.0
CORRECTION_RAD_S = 0.05
"""Under 3 % of any joint's limit, and 10 mrad of offset reach it."""


class VelocityFollower:
    """The correction of every joint, from one period to the next."""

    def __init__(self, limits: ArmLimits) -> None:
        self._limits = limits
        self.restart()

    def restart(self) -> None:
        """A motion begins, from rest."""
        joints = len(self._limits.jerk_rad_s3)
        self._velocity = [0.0] * joints
        self._acceleration = [0.0] * joints
        self._correction = [0.0] * joints
        self._change = [0.0] * joints

    def follow(
        self,
        set_point_rad: Sequence[float],
        velocity_rad_s: Sequence[float],
        reported_rad: Sequence[float],
        periods: int,
    ) -> list[float]:
        """The velocities to send, in rad/s, `periods` after the last ones."""
        step_s = PERIOD_S * max(1, periods)
        return [
            self._joint(joint, set_point_rad[joint] - reported_rad[joint], velocity_rad_s[joint], step_s)
            for joint in range(len(self._correction))
        ]

    def _joint(self, joint: int, error_rad: float, velocity_rad_s: float, step_s: float) -> float:
        most, room = self._limits.acceleration_rad_s2[joint], self._limits.jerk_rad_s3[joint] * step_s
        acceleration = (velocity_rad_s - self._velocity[joint]) / step_s
        before = self._acceleration[joint] + self._change[joint]
        wanted = min(max(GAIN_1_S * error_rad, -CORRECTION_RAD_S), CORRECTION_RAD_S)
        pull = FILTER_1_S * FILTER_1_S * (wanted - self._correction[joint]) - 2.0 * FILTER_1_S * self._change[joint]
        change = self._change[joint] + step_s * pull
        change = min(max(change, before - room - acceleration), before + room - acceleration)
        change = min(max(change, -most - acceleration), most - acceleration)
        self._velocity[joint], self._acceleration[joint] = velocity_rad_s, acceleration
        self._change[joint] = change
        self._correction[joint] += step_s * change
        return velocity_rad_s + self._correction[joint]
