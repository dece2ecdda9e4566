"""What to do with a plan: join a chunk to the committed trajectory, stretch what is committed, or refuse.

Decisions over the `Timeline`. One change at a time is proposed to the device; it is in force when the device has
committed it, and never when the device has refused it.
"""

from __future__ import annotations

import math

import numpy as np

from edge.arms import ArmProfile
from edge.errors import SafetyStop
from edge.plan.checks import ChunkRefusal, check_chunk
from edge.plan.gripper import within_travel
from edge.plan.pace import CHANGE, Pace, gentle, stretched
from edge.plan.shaping import GoalShaper, ShapedChunk
from edge.plan.timeline import Timeline, soft_start
from edge.plan.trajectory import FloatArray, Knots, from_micro
from firmware_bridge.codes import MICRO

COMMIT_MARGIN_US = 5_000
"""What sending a chunk and receiving its commit may take beyond the lead."""
MAX_REFUSALS = 5
"""Consecutive refusals before the run is aborted."""
SPARE_STEPS = 3
"""What should be left of a plan, in trained steps, when the next one is joined to it."""


class Splicer:
    """The commanded plan of one arm. A chunk must reach the device `lead_us` before its first new knot."""

    def __init__(self, arm: ArmProfile, step_s: float, lead_us: int) -> None:
        self._arm, self._step_s, self._lead_us = arm, step_s, lead_us
        self._timeline = Timeline(round(step_s / MICRO), arm.dof)
        self._pace = Pace(self._timeline.step_us)
        self._shaper = GoalShaper(arm) if arm.goals is not None else None
        self._proposed: Knots | None = None
        self.moved_rad = 0.0
        """How far the newest increments' knots were moved so that the device can follow: rms, of one joint at most."""
        self._reported_us = 0
        self._refusals_in_row = 0

    @property
    def timeline(self) -> Timeline:
        """What is committed."""
        return self._timeline

    @property
    def proposed(self) -> Knots | None:
        """What waits for the device's answer."""
        return self._proposed

    def reported(self, device_us: int) -> None:
        """Takes the time of the device's newest report."""
        self._reported_us = device_us

    @property
    def is_over(self) -> bool:
        """Whether the device has executed all of the plan, by its newest report."""
        return self._reported_us >= self._timeline.due_us(self._timeline.last)

    def executed_steps(self) -> float:
        """How many steps the device has executed at the time of its newest report; it may be behind the host's
        estimate of its clock."""
        timeline = self._timeline
        step = timeline.step_at(self._reported_us)
        if step < 0:
            return 0.0
        return step + min((self._reported_us - timeline.due_us(step)) / timeline.spacing_us(step), 1.0)

    def can_send(self, now_us: float) -> bool:
        """Whether the last plan is under way, and the device holds no other that waits: by its own reports, since the
        host's estimate of its clock is ahead when that clock is slow."""
        timeline = self._timeline
        under_way = now_us >= timeline.splice_us and self._reported_us >= timeline.splice_before_us
        return self._proposed is None and under_way

    def too_late(self, splice: int, now_us: float) -> bool:
        """Whether a chunk that is sent now cannot be joined at this knot."""
        return self._timeline.begun and now_us + self._lead_us > self._timeline.due_us(splice)

    def propose(
        self,
        step: int,
        delay: int,
        increments_rad: FloatArray,
        held_urad: tuple[int, ...],
        spacing_us: int,
        now_us: float,
    ) -> Knots | ChunkRefusal:
        """The knots of a chunk (horizon, J) observed at `step`, joined `delay` steps later, or why it may not be sent.

        The first chunk begins where the arm is held, softly. Steps take `spacing_us` if the plan in force and the
        limits allow it.
        """
        timeline = self._begun(held_urad, now_us)
        at_rest, splice = timeline.last == 0, step + delay
        at_rad, at_rad_s = from_micro(timeline.q_urad(splice)), from_micro(timeline.dq_urad_s(splice))
        increments_rad = within_travel(increments_rad, delay, at_rad, at_rad_s, self._arm, self._step_s)
        if at_rest:
            increments_rad = soft_start(increments_rad)
        current_us = spacing_us if at_rest else timeline.spacing_us(timeline.last)
        refusal = None
        for tried_us in self._pace.eased(current_us, spacing_us):
            knots = timeline.propose(step, delay, increments_rad, tried_us)
            refusal = check_chunk(knots, timeline, self._arm.operating)
            if refusal is None and (tried_us == current_us or gentle(timeline, knots)):
                followed = self._shaper.followable(timeline, knots) if self._shaper is not None else knots
                away = followed.q_rad[1:] - knots.q_rad[1:]
                self.moved_rad = math.sqrt(np.square(away).mean(axis=0).max())
                self._proposed = followed
                return followed
        assert refusal is not None, "the current spacing is tried last, and needs no gentleness"
        return refusal

    def propose_goals(
        self,
        step: int,
        delay: int,
        goals_rad: FloatArray,
        held_urad: tuple[int, ...],
        spacing_us: int,
        now_us: float,
    ) -> ShapedChunk | ChunkRefusal:
        """Knots for the goals (n, J) of a chunk observed at `step`, joined `delay` steps later, or why there are none.

        Goal i is due at the end of step `step` + i. Steps take `spacing_us`, but not less than half of what those of
        the plan in force take, and longer where the goals need it. Raises `InputError` for an arm without bounds.
        """
        timeline = self._begun(held_urad, now_us)
        if timeline.last > 0:
            spacing_us = max(spacing_us, math.ceil(timeline.spacing_us(timeline.last) / CHANGE))
        self._shaper = self._shaper or GoalShaper(self._arm)  # which says what is missing
        chunk = self._shaper.shape(timeline, step + delay, goals_rad[delay:], spacing_us)
        if isinstance(chunk, ShapedChunk):
            self._proposed = chunk.knots
        return chunk

    def _begun(self, held_urad: tuple[int, ...], now_us: float) -> Timeline:
        """The timeline; it begins where the arm is held, if it has not yet."""
        if not self._timeline.begun:
            self._timeline.begin(round(now_us) + 2 * self._lead_us, np.array(held_urad, dtype=np.int64))
        return self._timeline

    def stretch_for_late_inference(
        self, splice: int, waited_us: float, expected_us: float, now_us: float
    ) -> Knots | None:
        """The plan in force, stretched so that it lasts until a chunk that is to be joined at `splice`, or until the
        next one when that will be too late; None when it lasts, or when nothing can be sent.

        The chunk has been waited for `waited_us` of the `expected_us` that it needs.
        """
        timeline, last = self._timeline, self._timeline.last
        if last < 1 or not self.can_send(now_us):
            return None
        if self.too_late(splice, now_us):
            runs_out = timeline.buffered_us(now_us) < expected_us
            targets = [(last, now_us + 2 * expected_us)] if runs_out else []
        else:
            ready_us = now_us - waited_us + expected_us
            targets = [(splice, ready_us), (last, ready_us + SPARE_STEPS * timeline.step_us)]
        from_us = now_us + self._lead_us + COMMIT_MARGIN_US
        for knot, by_us in targets:
            if by_us > timeline.due_us(knot):
                self._proposed = stretched(timeline, knot, by_us, from_us, self._arm.operating)
                if self._proposed is not None:
                    break
        return self._proposed

    def accept(self) -> None:
        """The device has committed what was proposed."""
        if self._proposed is not None:
            self._timeline.accept(self._proposed)
            self._proposed, self._refusals_in_row = None, 0

    def discard(self) -> None:
        """The device has refused what was proposed."""
        self._proposed = None

    def refused(self, text: str) -> None:
        """Counts a refusal. Raises `SafetyStop` after too many in a row."""
        if self._timeline.last == 0:  # nothing has moved: begin again with the next chunk
            self._timeline.withdraw()
        self._refusals_in_row += 1
        if self._refusals_in_row >= MAX_REFUSALS:
            raise SafetyStop(f"{MAX_REFUSALS} chunks in a row were refused, the last: {text}")

    def restart(self) -> None:
        """Begins again from rest, with the next chunk."""
        self._timeline = Timeline(self._timeline.step_us, self._arm.dof)
        self._proposed, self._refusals_in_row = None, 0
