"""The plan of the compiled core, as the judge of knots that were made of goals; and the shapers of all arms."""

from __future__ import annotations

import ctypes
import struct
import zlib
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from edge.arms import ArmProfile, available_arms, load_arm
from edge.plan.shaping import GoalShaper
from edge.plan.timeline import Timeline
from edge.plan.trajectory import Knots, to_micro
from firmware_bridge.codes import MAX_JOINTS, Refusal
from tests.firmware_core import Commit, Limits, Plan, Row, core, fresh

Rows = NDArray[np.float64]
ARMS = {name: load_arm(name) for name in available_arms()}
SHAPERS = {name: GoalShaper(arm) for name, arm in ARMS.items()}
FRAGMENT_KNOTS = 7


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
        rows = list(chain(*zip(knots.q_urad.tolist(), knots.dq_urad_s.tolist())))
        payload = b"".join(struct.pack(f"<{len(row)}i", *row) for row in rows)
        size = 8 * self._arm.dof
        for first in range(0, len(rows) // 2, FRAGMENT_KNOTS):
            part = payload[size * first : size * (first + FRAGMENT_KNOTS)]
            staged = self._library.ve_plan_stage(
                ctypes.byref(self._plan), self._chunk, first, len(part) // size, part, len(part)
            )
            assert staged.refusal == 0
        start_us = timeline.due_us(knots.first)
        commit = Commit(self._chunk, len(rows) // 2, True, start_us, knots.spacing_us, zlib.crc32(payload))
        verdict = self._library.ve_plan_commit(
            *(ctypes.byref(of) for of in (self._plan, commit, self._limits, self._rest)), start_us - 50_000
        )
        return Refusal(verdict.refusal) if verdict.refusal else None
