"""A slow move from where the arm stands to its home pose, or to another: planned as a whole, checked, and streamed in
chunks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.arms import ArmProfile, JointLimits
from edge.bundle import ArmSpec, ChunkShape
from edge.errors import InputError
from edge.inference.records import Outcome, Planner, PlannerStatus, PlanRequest, PlanResult
from edge.log.recorder import Recorder
from edge.plan.checks import check_knots
from edge.plan.replanner import ControlSettings
from edge.plan.timeline import START_SHARES
from edge.plan.trajectory import FloatArray, Knots, to_micro
from edge.policy.axes import trained_states
from edge.run.arm import ConnectedArm
from edge.run.controller import Controller
from firmware_bridge.codes import MICRO
from firmware_bridge.constants import POSE_TOLERANCE_RAD

SPACING_US = 100_000
SPACING_S = SPACING_US * MICRO
REST_KNOTS = 5
SHARE = 0.2
"""Of the profile's operating velocity and acceleration, and never more than the two below."""
MOST_VELOCITY, MOST_ACCELERATION = 0.25, 0.5
"""rad/s and rad/s^2 (a gripper's axis: m): a hand's breadth a second at the end of a metre of arm."""
PEAK_VELOCITY, PEAK_ACCELERATION = 15 / 8, 10 / math.sqrt(3)
"""Of the quintic 10 s^3 - 15 s^4 + 6 s^5, which is at rest at both ends, for a distance of 1 in a time of 1."""
SETTLE_S = 0.2
HOME_SHAPE = ChunkShape(horizon=30, history=1, max_delay=15)
"""Chunks of 3 s, the next one requested 1.5 s before the end of the last."""
RARE = 3.0
"""Standard deviations of the states in training."""


@dataclass(frozen=True)
class SlowMove:
    """From `start_rad` to `target_rad`, which `towards` names: all joints begin together and arrive together."""

    start_rad: FloatArray
    target_rad: FloatArray
    steps: int
    towards: str = "home"

    @property
    def duration_s(self) -> float:
        return self.steps * SPACING_S

    def position_rad(self, shares: FloatArray) -> FloatArray:
        """Where the joints are (n, J) after these shares (n,) of the duration, each 0 to 1."""
        share = shares[:, None]
        q: FloatArray = self.start_rad + (self.target_rad - self.start_rad) * share**3 * (
            10 - 15 * share + 6 * share**2
        )
        return q

    def knots(self) -> Knots:
        """All of it, and a while at its end."""
        shares = np.minimum(np.arange(self.steps + REST_KNOTS + 1) / self.steps, 1.0)
        q, share = self.position_rad(shares), shares[:, None]
        dq = (self.target_rad - self.start_rad) * 30 * share**2 * (1 - share) ** 2 / self.duration_s
        return Knots(0, to_micro(q), to_micro(dq), SPACING_US)


def plan_home(arm: ArmProfile, start_rad: Sequence[float] | FloatArray) -> SlowMove | None:
    """The move home from a measured pose; None when the arm is there. Raises `InputError` when it must not be made."""
    return plan_move(arm, start_rad, arm.home_rad, "home")


def plan_move(
    arm: ArmProfile, start_rad: Sequence[float] | FloatArray, target_rad: Sequence[float] | FloatArray, towards: str
) -> SlowMove | None:
    """A slow move to `target_rad` (J,), which `towards` names; None when the arm is there already.

    It may begin outside the operating limits, where an arm lies folded on its stops: every joint goes straight to its
    end. Raises `InputError` when it must not be made: it begins outside the arm's own limits, or its end or the way is
    outside the operating ones.
    """
    start, target = np.array(start_rad), np.array(target_rad)
    limits = arm.operating
    if (outside := _outside(arm.limits, start)) is not None:
        raise InputError(f"joint {outside}; move it inside by hand, with the drive off, and try again")
    if (outside := _outside(limits, target)) is not None:
        raise InputError(f"the move {towards} must not be made: joint {outside} at its end")
    distance = np.abs(target - start)
    if distance.max() < POSE_TOLERANCE_RAD:
        return None
    velocity = np.minimum(SHARE * np.array(limits.velocity_rad_s), MOST_VELOCITY)
    acceleration = np.minimum(SHARE * np.array(limits.acceleration_rad_s2), MOST_ACCELERATION)
    needed_s = max(
        (PEAK_VELOCITY * distance / velocity).max(), np.sqrt(PEAK_ACCELERATION * distance / acceleration).max()
    )
    move = SlowMove(start, target, math.ceil(needed_s / SPACING_S), towards)
    refusal = check_knots(move.knots(), limits.reaching(start))
    if refusal is not None:
        raise InputError(
            f"the move {towards} is not within the limits of '{arm.name}' ({refusal}); move the arm by hand"
        )
    return move


def _outside(limits: JointLimits, pose_rad: FloatArray) -> str | None:
    """In words, the first joint of a pose that is not within its limits."""
    rows = zip(pose_rad, limits.position_min_rad, limits.position_max_rad)
    for joint, (q, low, high) in enumerate(rows, start=1):
        if not low <= q <= high:
            return f"{joint} stands at {q:.3f}, outside its limits {low:.3f} to {high:.3f}"
    return None


def describe(move: SlowMove) -> str:
    """What is going to happen, for whoever has to confirm it."""
    distance = [abs(end - begin) for begin, end in zip(move.start_rad, move.target_rad)]
    joint = distance.index(max(distance))
    return (
        f"the move {move.towards} takes {move.duration_s:.1f} s; joint {joint + 1} moves furthest, "
        f"{distance[joint]:.2f} rad"
    )


def far_from_training(spec: ArmSpec, arm: ArmProfile, measured_urad: Sequence[int]) -> str | None:
    """In words, which joint stands where the policy has hardly been in training; None when none does."""
    found = trained_states(spec, arm)
    if found is None:
        return None
    means, spreads = found
    away = np.abs(np.array(measured_urad) * MICRO - means) / spreads
    joint = int(np.argmax(away))
    if away[joint] < RARE:
        return None
    return (
        f"joint {joint + 1} stands at {measured_urad[joint] * MICRO:.2f} rad, and the policy was trained around "
        f"{means[joint]:.2f} +- {spreads[joint]:.2f}"
    )


def told_of_pose(spec: ArmSpec, arm: ArmProfile, measured_urad: Sequence[int], to_home: str) -> str | None:
    """The same, with the command `to_home` where that pose is one that the policy has seen."""
    far = far_from_training(spec, arm, measured_urad)
    home_urad = [round(q / MICRO) for q in arm.home_rad]
    if far is None or far_from_training(spec, arm, home_urad) is not None:
        return far
    return f"{far}; to begin near there: {to_home}"


class HomePlanner:
    """A source of chunks (horizon, J) along a move that was checked as a whole before it began.

    The move begins after the soft start, which would shorten its first steps.
    """

    def __init__(self, move: SlowMove, horizon: int, step_s: float) -> None:
        self._move, self._horizon, self._move_steps = move, horizon, move.duration_s / step_s
        self._settled_step = len(START_SHARES) + self._move_steps + SETTLE_S / step_s
        self._pending: PlanRequest | None = None

    def request(self, request: PlanRequest) -> None:
        self._pending = request

    def result(self) -> PlanResult | None:
        request, self._pending = self._pending, None
        if request is None:
            return None
        positions_rad = self._move.position_rad(self._shares(request.step + np.arange(self._horizon + 1)))
        return PlanResult.untimed(request.id, Outcome.HOMING, np.diff(positions_rad, axis=0))

    def status(self) -> PlannerStatus | None:
        return None

    def share(self, executed_steps: float) -> float:
        """How much of the move's time has passed after so many steps."""
        return float(self._shares(np.array([executed_steps]))[0])

    def arrived(self, executed_steps: float) -> bool:
        """Whether the arm is at home, and has had time to settle there."""
        return executed_steps >= self._settled_step

    def _shares(self, steps: NDArray[Any]) -> FloatArray:
        return np.clip((steps - len(START_SHARES)) / self._move_steps, 0.0, 1.0)


def home_controller(connected: ConnectedArm, planner: Planner, recorder: Recorder) -> Controller:
    """Control of an armed device that goes home and does nothing else."""
    settings = ControlSettings(HOME_SHAPE.horizon - HOME_SHAPE.max_delay, connected.lead_us())
    return Controller(connected.client, planner, connected.profile, HOME_SHAPE, SPACING_S, settings, recorder)
