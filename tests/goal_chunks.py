"""Chunks of goals as other people's policies give them, and the compiled core that judges what becomes of them."""

from __future__ import annotations

import ctypes
import struct
import zlib
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from edge.arms import ArmProfile, available_arms, load_arm
from edge.plan.shaping import GoalShaper, ShapedChunk
from edge.plan.timeline import Timeline
from edge.plan.trajectory import Knots, to_micro
from firmware_bridge.codes import MAX_JOINTS, Refusal
from tests.firmware_core import Commit, Limits, Plan, Row, core, fresh

Rows = NDArray[np.float64]
ARMS = {name: load_arm(name) for name in available_arms()}
SHAPERS = {name: GoalShaper(arm) for name, arm in ARMS.items()}
START_US = 5_000_000
COUNT_RAD = 2 * np.pi / 4096


def at_rest(arm: ArmProfile, spacing_us: int) -> Timeline:
    """A timeline that has just begun, at home."""
    timeline = Timeline(spacing_us, arm.dof)
    timeline.begin(START_US, to_micro(np.array(arm.home_rad)))
    return timeline


def minimum_jerk(steps: int, step_s: float, distance_rad: Rows, duration_s: float) -> Rows:
    """Positions (steps, J) after each step, on the way from 0 to `distance_rad` (J,)."""
    share = np.clip(np.arange(1, steps + 1) * step_s / duration_s, 0, 1)
    return np.outer(10 * share**3 - 15 * share**4 + 6 * share**5, distance_rad)


class Core:
    """The plan of the compiled core, with an arm's operating limits and at rest at home."""

    def __init__(self, arm: ArmProfile) -> None:
        self._library, self._plan, self._arm = core(), fresh(Plan), arm
        self._library.ve_plan_init(ctypes.byref(self._plan), arm.dof)
        padding = [0.0] * (MAX_JOINTS - arm.dof)
        self._limits = Limits(*(Row(*row, *padding) for row in arm.operating.rows()))
        home = to_micro(np.array(arm.home_rad)) * 1e-6
        self._rest = Row(*home.tolist(), *padding)
        self._chunk = 0

    def refusal(self, timeline: Timeline, knots: Knots) -> Refusal | None:
        """Why the core refuses the knots; None when it has committed them."""
        self._chunk += 1
        joints, rows = self._arm.dof, list(chain(*zip(knots.q_urad.tolist(), knots.dq_urad_s.tolist())))
        payload = b"".join(struct.pack(f"<{joints}i", *row) for row in rows)
        for first in range(0, len(rows) // 2, 7):  # as fragments of a line
            part = payload[8 * joints * first : 8 * joints * (first + 7)]
            staged = self._library.ve_plan_stage(
                ctypes.byref(self._plan), self._chunk, first, len(part) // (8 * joints), part, len(part)
            )
            assert staged.refusal == 0
        commit = Commit(
            self._chunk, len(rows) // 2, True, timeline.due_us(knots.first), knots.spacing_us, zlib.crc32(payload)
        )
        verdict = self._library.ve_plan_commit(
            *(ctypes.byref(of) for of in (self._plan, commit, self._limits, self._rest)),
            timeline.due_us(knots.first) - 50_000,
        )
        return Refusal(verdict.refusal) if verdict.refusal else None


@dataclass(frozen=True)
class Situation:
    """What is committed, and the goals of the next chunk: rows from the splice on."""

    arm: ArmProfile
    timeline: Timeline
    splice: int
    goals_rad: Rows
    spacing_us: int
    core: Core

    def shape(self) -> object:
        return SHAPERS[self.arm.name].shape(self.timeline, self.splice, self.goals_rad, self.spacing_us)


def joints_of(arm: ArmProfile) -> NDArray[np.bool_]:
    """Which axes are joints, not the gripper."""
    return np.arange(arm.dof) != (-1 if arm.gripper is None else arm.gripper)


def under_way(arm: ArmProfile, hz: float, splice: int, distance_rad: Rows, duration_s: float) -> Situation:
    """An arm whose first chunk is a smooth motion of `distance_rad` (J,); the next goals are its continuation."""
    spacing_us = round(1e6 / hz)
    timeline, judge = at_rest(arm, spacing_us), Core(arm)
    motion = np.array(arm.home_rad) + minimum_jerk(100, spacing_us * 1e-6, distance_rad, duration_s)
    first = SHAPERS[arm.name].shape(timeline, 0, motion[:49], spacing_us)
    assert isinstance(first, ShapedChunk), str(first)
    assert judge.refusal(timeline, first.knots) is None
    timeline.accept(first.knots)
    return Situation(arm, timeline, splice, motion[splice : splice + 49], spacing_us, judge)
