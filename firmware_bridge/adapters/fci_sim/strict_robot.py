"""A Franka that judges what it is sent, without its protocol: periods of a millisecond, no clock, no I/O.

It keeps a desired state of its own, `q_d`, `dq_d`, `ddq_d`. A set-point that comes in time becomes the next one; one
that does not is replaced by an extrapolation at constant acceleration (libfranka `rate_limiting.h`: "When a packet is
lost, FCI assumes a constant acceleration model"), and twenty in a row end the motion (Franka's FCI documentation).
Velocity, acceleration and jerk of a set-point are those that it has *from that state*, so what was a smooth plan for
its sender is a jump for a robot that has extrapolated meanwhile.

The measured arm is apart from the commanded one: it lags, sags under a load that was not declared, and its encoders are
noisy. It is simulated, and no dynamics of a Franka: what it is for is that reports differ from commands.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

JOINTS = 7
PERIOD_S = 0.001
MOST_LOST = 20
"""Packets missing in a row that end a motion."""
TOLERANCE = 1e-3
"""In the unit of each limit, as libfranka's `kLimitEps`: what its rate limiter keeps below them."""
LAG_S = 0.004
"""Ours: time constant with which the measured joints follow the desired ones."""
NOISE_RAD = 2e-5
"""Ours: standard deviation of what the encoders add."""
LEVER_M = (0.0, 0.55, 0.0, 0.45, 0.0, 0.1, 0.0)
"""Ours: at about the home pose, how far in front of each joint a load hangs."""
GRAVITY_M_S2 = 9.81
RECOVERY_PERIODS = 300
"""Ours: how long an automatic recovery takes."""


@dataclass(frozen=True)
class RobotLimits:
    """What a robot allows, per joint, in rad and s. `edge` is offset, slope and the two ends of the FR3's velocity
    limit near the ends of a joint's range; () where there is none."""

    name: str
    low_rad: tuple[float, ...]
    high_rad: tuple[float, ...]
    velocity_rad_s: tuple[float, ...]
    acceleration_rad_s2: tuple[float, ...]
    jerk_rad_s3: tuple[float, ...]
    edge: tuple[tuple[float, float, float, float], ...] = ()

    def velocity_span(self, joint: int, q_rad: float) -> tuple[float, float]:
        """Lowest and highest velocity of a joint that stands at `q_rad`."""
        most = self.velocity_rad_s[joint]
        if not self.edge:
            return -most, most
        offset, slope, low, high = self.edge[joint]
        up = max(0.0, math.sqrt(max(0.0, slope * (high - q_rad))) - offset)
        down = max(0.0, math.sqrt(max(0.0, slope * (q_rad - low))) - offset)
        return -min(most, down), min(most, up)


FR3 = RobotLimits(
    "fr3",
    (-2.7437, -1.7837, -2.9007, -3.0421, -2.8065, 0.5445, -3.0159),
    (2.7437, 1.7837, 2.9007, -0.1518, 2.8065, 4.5169, 3.0159),
    (2.62, 2.62, 2.62, 2.62, 5.26, 4.18, 5.26),
    (10.0,) * 7,
    (5000.0,) * 7,
    (
        (0.30, 12.0, -2.7501, 2.7501),
        (0.20, 5.17, -1.7918, 1.7918),
        (0.20, 7.00, -2.9065, 2.9065),
        (0.30, 8.00, -3.0481, -0.1458),
        (0.35, 34.0, -2.8101, 2.8101),
        (0.35, 11.0, 0.54092, 4.5205),
        (0.35, 34.0, -3.0196, 3.0196),
    ),
)
"""libfranka `rate_limiting.h` (velocity, acceleration, jerk), `fr3.urdf` (positions)."""
PANDA = RobotLimits(
    "panda",
    (-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973),
    (2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973),
    (2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61),
    (15.0, 7.5, 10.0, 12.5, 15.0, 20.0, 20.0),
    (7500.0, 3750.0, 5000.0, 6250.0, 7500.0, 10000.0, 10000.0),
)
"""frankaemika/docs `control-parameters-joint-panda.csv`."""
ROBOTS = {limits.name: limits for limits in (FR3, PANDA)}
HOME_RAD = (0.0, -math.pi / 4, 0.0, -3 * math.pi / 4, 0.0, math.pi / 2, math.pi / 4)
"""libfranka's examples."""


class RobotMode(IntEnum):
    """As the protocol numbers them."""

    OTHER = 0
    IDLE = 1
    MOVE = 2
    GUIDING = 3
    REFLEX = 4
    USER_STOPPED = 5
    AUTOMATIC_ERROR_RECOVERY = 6


class RobotError(IntEnum):
    """Of the protocol's 41 errors those that this robot makes, by their place."""

    JOINT_POSITION_LIMITS_VIOLATION = 0
    JOINT_VELOCITY_VIOLATION = 3
    JOINT_REFLEX = 6
    MOTION_GENERATOR_VELOCITY_LIMITS_VIOLATION = 13
    MOTION_GENERATOR_VELOCITY_DISCONTINUITY = 14
    MOTION_GENERATOR_ACCELERATION_DISCONTINUITY = 15
    COMMUNICATION_CONSTRAINTS_VIOLATION = 25


class Generator(IntEnum):
    """What a motion is commanded in, as the state numbers it."""

    IDLE = 0
    JOINT_POSITION = 1
    JOINT_VELOCITY = 2


class Ending(IntEnum):
    """How a motion ended."""

    FINISHED = 0
    REFLEX = 1
    USER_STOP = 2
    STOPPED = 3


@dataclass(frozen=True)
class SetPoint:
    """One packet: `values` are positions or velocities, whichever the motion is commanded in."""

    values: Sequence[float]
    finished: bool = False


@dataclass(frozen=True)
class Judged:
    """A set-point as the robot sees it: what it would make of each joint, and the first limit that it breaks."""

    q: list[float]
    v: list[float]
    a: list[float]
    error: RobotError | None
    why: str = ""


class StrictRobot:
    """The robot. `period` is one millisecond; everything else changes what the next one does.

    payload_kg    what hangs at its flange, whatever was declared
    seed          of the encoders' noise
    ended         how the last motion ended, and why in words; None while one runs, and before the first
    worst         largest share of each limit that a set-point took: velocity, acceleration, jerk
    """

    def __init__(
        self,
        limits: RobotLimits = FR3,
        start_rad: Sequence[float] = HOME_RAD,
        payload_kg: float = 0.0,
        seed: int = 0,
        noise_rad: float = NOISE_RAD,
    ) -> None:
        self.limits = limits
        self.payload_kg = payload_kg
        self.mode = RobotMode.IDLE
        self.generator = Generator.IDLE
        self.q_d, self.dq_d, self.ddq_d = list(start_rad), [0.0] * JOINTS, [0.0] * JOINTS
        self.errors: set[RobotError] = set()
        self.last_motion_errors: set[RobotError] = set()
        self.ended: tuple[Ending, str] | None = None
        self.declared_kg = 0.0
        self.collision_nm: tuple[float, ...] = (20.0, 20.0, 18.0, 18.0, 16.0, 14.0, 12.0)
        self.stiffness_nm_rad: tuple[float, ...] = (3000.0, 3000.0, 3000.0, 2500.0, 2500.0, 2000.0, 2000.0)
        self.worst = {"velocity": 0.0, "acceleration": 0.0, "jerk": 0.0}
        self.lost = self.lost_in_row = self.longest_loss = self.motions = self.reflexes = 0
        self._pushed_nm = [0.0] * JOINTS
        self._starts_in: int | None = None
        self._next = Generator.IDLE
        self._recovers_in: int | None = None
        self._arrived: deque[bool] = deque(maxlen=100)
        self._draw, self._noise_rad = random.Random(seed), noise_rad
        self._place = list(start_rad)
        self.q, self.dq = list(start_rad), [0.0] * JOINTS
        self._measure()

    # What a client may ask ---------------------------------------------------------------------------------------

    def begin(self, generator: Generator, after_periods: int) -> bool:
        """A motion, that runs `after_periods` from now; whether the robot is ready for one."""
        if self.mode is not RobotMode.IDLE or self._starts_in is not None or self.errors:
            return False
        self._starts_in, self._next, self.ended = max(1, after_periods), generator, None
        return True

    def stop(self) -> None:
        """The client's stop: the robot brakes by itself, and there is no error."""
        if self.generator is not Generator.IDLE or self._starts_in is not None:
            self._end(Ending.STOPPED, "stopped")

    def recover(self) -> bool:
        """The client's automatic error recovery; False where only a person can free the robot."""
        if self.mode is RobotMode.USER_STOPPED or RobotError.JOINT_POSITION_LIMITS_VIOLATION in self.errors:
            return False
        if self.mode is RobotMode.REFLEX:
            self.mode, self._recovers_in = RobotMode.AUTOMATIC_ERROR_RECOVERY, RECOVERY_PERIODS
        return True

    # What happens to it ------------------------------------------------------------------------------------------

    def press_user_stop(self) -> None:
        """The button beside the robot."""
        if self.generator is not Generator.IDLE or self._starts_in is not None:
            self._end(Ending.USER_STOP, "user stop")
        self.mode = RobotMode.USER_STOPPED

    def release_user_stop(self) -> None:
        if self.mode is RobotMode.USER_STOPPED:
            self.mode = RobotMode.REFLEX if self.errors else RobotMode.IDLE

    def push(self, joint: int, torque_nm: float) -> None:
        """Something pushes against a joint, until it is pushed with nothing."""
        self._pushed_nm[joint] = torque_nm

    @property
    def external_nm(self) -> list[float]:
        """What the robot takes for an external torque: what pushes, and a load that it was not told of."""
        undeclared_n = GRAVITY_M_S2 * (self.payload_kg - self.declared_kg)
        return [pushed + lever * undeclared_n for pushed, lever in zip(self._pushed_nm, LEVER_M)]

    @property
    def success_rate(self) -> float:
        """Share of the last hundred set-points that came; 0 without a motion."""
        if self.generator is Generator.IDLE:
            return 0.0
        return sum(self._arrived) / len(self._arrived) if self._arrived else 1.0

    # One millisecond ---------------------------------------------------------------------------------------------

    def period(self, command: SetPoint | None) -> None:
        """Advances one period; `command` is what came in it, None for a packet that did not."""
        if self._recovers_in is not None:
            self._recovers_in -= 1
            if self._recovers_in <= 0:
                self._recovers_in, self.mode = None, RobotMode.IDLE
                self.errors.clear()
        if self.generator is not Generator.IDLE:
            self._move(command)
        else:
            self._brake()
        if self._starts_in is not None:
            self._starts_in -= 1
            if self._starts_in <= 0:
                self._starts_in, self.generator, self.mode = None, self._next, RobotMode.MOVE
                self.motions += 1
                self.lost_in_row = 0
                self._arrived.clear()
        self._watch_torques()
        self._measure()

    def judge(self, command: SetPoint) -> Judged:
        """What a set-point is from the robot's own desired state. Changes nothing."""
        q, v, a = [], [], []
        error, why = None, ""
        for joint, value in enumerate(command.values):
            by_position = self.generator is Generator.JOINT_POSITION
            speed = (value - self.q_d[joint]) / PERIOD_S if by_position else value
            acceleration = (speed - self.dq_d[joint]) / PERIOD_S
            jerk = (acceleration - self.ddq_d[joint]) / PERIOD_S
            place = value if by_position else self.q_d[joint] + PERIOD_S * value
            q.append(place)
            v.append(speed)
            a.append(acceleration)
            if error is None:
                error, why = self._broken(joint, place, speed, acceleration, jerk)
        return Judged(q, v, a, error, why)

    def _broken(self, joint: int, q: float, v: float, a: float, jerk: float) -> tuple[RobotError | None, str]:
        limits = self.limits
        error = RobotError
        if not (math.isfinite(q) and math.isfinite(v)):
            return error.MOTION_GENERATOR_VELOCITY_LIMITS_VIOLATION, f"joint {joint + 1}: not a number"
        slowest, fastest = limits.velocity_span(joint, self.q_d[joint])
        most_a, most_jerk = limits.acceleration_rad_s2[joint], limits.jerk_rad_s3[joint]
        worst = self.worst
        worst["velocity"] = max(worst["velocity"], abs(v) / limits.velocity_rad_s[joint])
        worst["acceleration"] = max(worst["acceleration"], abs(a) / most_a)
        worst["jerk"] = max(worst["jerk"], abs(jerk) / most_jerk)
        if not limits.low_rad[joint] - TOLERANCE <= q <= limits.high_rad[joint] + TOLERANCE:
            return error.JOINT_POSITION_LIMITS_VIOLATION, f"joint {joint + 1}: position {q:.4f} rad"
        if not slowest - TOLERANCE <= v <= fastest + TOLERANCE:
            return error.MOTION_GENERATOR_VELOCITY_LIMITS_VIOLATION, f"joint {joint + 1}: velocity {v:.3f} rad/s"
        if abs(a) > most_a + TOLERANCE:
            return error.MOTION_GENERATOR_VELOCITY_DISCONTINUITY, f"joint {joint + 1}: acceleration {a:.1f} rad/s^2"
        if abs(jerk) > most_jerk + TOLERANCE:
            return error.MOTION_GENERATOR_ACCELERATION_DISCONTINUITY, f"joint {joint + 1}: jerk {jerk:.0f} rad/s^3"
        return None, ""

    def _move(self, command: SetPoint | None) -> None:
        self._arrived.append(command is not None)
        if command is None:
            self._extrapolate()
            return
        self.lost_in_row = 0
        judged = self.judge(command)
        if judged.error is not None:
            self._reflex(judged.error, judged.why)
            return
        self.q_d, self.dq_d, self.ddq_d = judged.q, judged.v, judged.a
        if command.finished:
            self._finish()

    def _finish(self) -> None:
        """Standstill is one more step, and has to keep the limits like any other."""
        values = self.q_d if self.generator is Generator.JOINT_POSITION else [0.0] * JOINTS
        judged = self.judge(SetPoint(values))
        if judged.error is not None:
            self._reflex(judged.error, f"finished while it still moves: {judged.why}")
            return
        self.dq_d, self.ddq_d = [0.0] * JOINTS, [0.0] * JOINTS
        self._end(Ending.FINISHED, "")

    def _extrapolate(self) -> None:
        self.lost += 1
        self.lost_in_row += 1
        self.longest_loss = max(self.longest_loss, self.lost_in_row)
        if self.lost_in_row >= MOST_LOST:
            self._reflex(RobotError.COMMUNICATION_CONSTRAINTS_VIOLATION, f"{self.lost_in_row} packets lost in a row")
            return
        for joint in range(JOINTS):
            self.dq_d[joint] += PERIOD_S * self.ddq_d[joint]
            self.q_d[joint] += PERIOD_S * self.dq_d[joint]
            slowest, fastest = self.limits.velocity_span(joint, self.q_d[joint])
            if not slowest - TOLERANCE <= self.dq_d[joint] <= fastest + TOLERANCE:
                self._reflex(
                    RobotError.JOINT_VELOCITY_VIOLATION,
                    f"joint {joint + 1}: {self.dq_d[joint]:.3f} rad/s after {self.lost_in_row} lost packets",
                )
                return

    def _brake(self) -> None:
        """As fast as the acceleration allows; jerk is the robot's own affair here."""
        for joint in range(JOINTS):
            most = PERIOD_S * self.limits.acceleration_rad_s2[joint]
            before = self.dq_d[joint]
            after = math.copysign(max(0.0, abs(before) - most), before)
            self.dq_d[joint], self.ddq_d[joint] = after, (after - before) / PERIOD_S
            self.q_d[joint] += PERIOD_S * after

    def _watch_torques(self) -> None:
        if self.mode not in (RobotMode.MOVE, RobotMode.IDLE):
            return
        for joint, torque in enumerate(self.external_nm):
            if abs(torque) > self.collision_nm[joint]:
                self._reflex(RobotError.JOINT_REFLEX, f"joint {joint + 1}: {torque:.1f} N m")
                return

    def _reflex(self, error: RobotError, why: str) -> None:
        self.errors.add(error)
        self.reflexes += 1
        if self.generator is not Generator.IDLE or self._starts_in is not None:
            self.last_motion_errors = {error}
            self._end(Ending.REFLEX, why)
        self.mode = RobotMode.REFLEX

    def _end(self, how: Ending, why: str) -> None:
        self.ended, self.generator, self._starts_in, self.mode = (how, why), Generator.IDLE, None, RobotMode.IDLE

    def _measure(self) -> None:
        share = PERIOD_S / (LAG_S + PERIOD_S)
        for joint, torque in enumerate(self.external_nm):
            leads_to = self.q_d[joint] - torque / self.stiffness_nm_rad[joint]
            before = self._place[joint]
            self._place[joint] += share * (leads_to - before)
            self.q[joint] = self._place[joint] + (self._draw.gauss(0.0, self._noise_rad) if self._noise_rad else 0.0)
            self.dq[joint] = (self._place[joint] - before) / PERIOD_S
