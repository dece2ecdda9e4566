"""Chunks of goals as other people's policies give them: kinds, as functions of the arm, the rate and a draw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edge.arms import ArmProfile
from edge.plan.shaping import GoalShaper, ShapedChunk
from edge.plan.timeline import MOST_STEPS, Timeline
from edge.plan.trajectory import BoolArray, FloatArray, to_micro

COUNT_RAD = 2 * np.pi / 4096
"""Of a servo with 12 bits."""
START_US = 5_000_000
STEPS = 50
SPLICE = 20
DISAGREEMENTS_DEG = (0.1, 0.5, 1.0, 2.0, 5.0)


@dataclass(frozen=True)
class Situation:
    """What is committed, as chunks in their order and as the timeline; and the goals (n, J) of the next chunk, whose
    row i is due i + 1 steps after `splice`."""

    timeline: Timeline
    committed: tuple[ShapedChunk, ...]
    splice: int
    goals_rad: FloatArray
    spacing_us: int


Kind = Callable[[GoalShaper, ArmProfile, float, np.random.Generator], Situation]


def minimum_jerk(steps: int, step_s: float, distance_rad: FloatArray, duration_s: float) -> FloatArray:
    """Positions (steps, J) after each step, on the way from 0 to `distance_rad` (J,), and there."""
    share = np.clip(np.arange(1, steps + 1) * step_s / duration_s, 0, 1)
    return np.outer(10 * share**3 - 15 * share**4 + 6 * share**5, distance_rad)


def joints_of(arm: ArmProfile) -> BoolArray:
    """Which axes are joints, not the gripper."""
    return ~np.isin(np.arange(arm.dof), arm.grippers)


def at_rest(arm: ArmProfile, spacing_us: int) -> Timeline:
    """A timeline that has just begun, at home."""
    timeline = Timeline(spacing_us, arm.dof)
    timeline.begin(START_US, to_micro(np.array(arm.home_rad)))
    return timeline


def under_way(
    shaper: GoalShaper, arm: ArmProfile, hz: float, splice: int, distance_rad: FloatArray, duration_s: float
) -> Situation:
    """An arm whose first chunk is a smooth motion of `distance_rad` (J,); the next goals are its continuation."""
    spacing_us = round(1e6 / hz)
    timeline = at_rest(arm, spacing_us)
    motion = np.array(arm.home_rad) + minimum_jerk(2 * STEPS, spacing_us * 1e-6, distance_rad, duration_s)
    first = shaper.shape(timeline, 0, motion[:MOST_STEPS], spacing_us)
    assert isinstance(first, ShapedChunk), str(first)
    timeline.accept(first.knots)
    return Situation(timeline, (first,), splice, motion[splice : splice + MOST_STEPS], spacing_us)


def _pan(arm: ArmProfile, degrees: float) -> FloatArray:
    return np.radians(degrees) * (np.arange(arm.dof) == 0)


def noise(shaper: GoalShaper, arm: ArmProfile, hz: float, draw: np.random.Generator) -> Situation:
    """A smooth motion, with white noise of 0.25 degree on every joint."""
    goals = np.array(arm.home_rad) + minimum_jerk(STEPS, 1 / hz, _pan(arm, 30.0), 1.2)
    joints = joints_of(arm)
    goals[:, joints] += np.radians(0.25) * draw.standard_normal((STEPS, int(joints.sum())))
    spacing_us = round(1e6 / hz)
    return Situation(at_rest(arm, spacing_us), (), 0, goals, spacing_us)


def counts(shaper: GoalShaper, arm: ArmProfile, hz: float, draw: np.random.Generator) -> Situation:
    """A smooth motion of every joint on whole servo counts, of a length that is drawn."""
    spacing_us, joints = round(1e6 / hz), joints_of(arm)
    distance = np.radians(20.0) * draw.uniform(-1, 1, arm.dof) * joints
    goals = np.array(arm.home_rad) + minimum_jerk(STEPS, 1 / hz, distance, 1.2)
    goals[:, joints] = np.rint(goals[:, joints] / COUNT_RAD) * COUNT_RAD
    return Situation(at_rest(arm, spacing_us), (), 0, goals, spacing_us)


def fast(shaper: GoalShaper, arm: ArmProfile, hz: float, draw: np.random.Generator) -> Situation:
    """60 degrees of the first joint in 0.7 s, with a little noise on every joint."""
    goals = np.array(arm.home_rad) + minimum_jerk(STEPS, 1 / hz, _pan(arm, 60.0), 0.7)
    joints = joints_of(arm)
    goals[:, joints] += np.radians(0.02) * draw.standard_normal((STEPS, int(joints.sum())))
    spacing_us = round(1e6 / hz)
    return Situation(at_rest(arm, spacing_us), (), 0, goals, spacing_us)


def disagreement(degrees: float) -> Kind:
    """The next chunk is `degrees` away from the one before it, in every joint, up or down."""

    def made(shaper: GoalShaper, arm: ArmProfile, hz: float, draw: np.random.Generator) -> Situation:
        at = under_way(shaper, arm, hz, SPLICE, _pan(arm, 20.0), 1.5)
        away = np.radians(degrees) * draw.choice([-1.0, 1.0], arm.dof) * joints_of(arm)
        return Situation(at.timeline, at.committed, at.splice, at.goals_rad + away, at.spacing_us)

    return made


KINDS: dict[str, Kind] = {
    "white noise of 0.25 degree": noise,
    "whole servo counts": counts,
    "60 degrees in 0.7 s": fast,
    **{f"chunks disagree by {degrees:g} degrees": disagreement(degrees) for degrees in DISAGREEMENTS_DEG},
}
