"""A person takes the arm over from the policy through a leader arm, and hands it back: both from rest.

Control goes on with the same history, limits and log; only its planner is another one, and its chunks are marked in the
log, so that a recording tells a person's steps from the policy's.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge.inference.records import Outcome, Planner
from edge.plan.trajectory import FloatArray, from_micro
from edge.run.controller import Controller
from edge.run.motion import Motion
from edge.run.pursuit import Pursuer, Pursuit

Leader = Callable[[], "FloatArray | None"]
"""Where a person wants the arm, (J,) in its units, read elsewhere; None where that is not known now. Never waits."""
NEAR_SHARE = 0.05
"""Of an axis's range: how far the leader may be from where the arm stands, for the arm to follow it from there."""
NO_POSE = "the leader arm tells no pose now; look at its cable and power"


class TakeOver:
    """Gives the arm to the leader on command. `notify` is called only at rest; `tap` wraps the planner, for the log."""

    def __init__(
        self,
        controller: Controller,
        leader: Leader | None,
        notify: Callable[[str], None],
        tap: Callable[[Planner], Planner] = lambda planner: planner,
    ) -> None:
        self._controller, self._leader, self._notify, self._tap = controller, leader, notify, tap
        self._policy: tuple[Planner, int] | None = None
        self._moves = self._lost = False

    @property
    def offer(self) -> str:
        """What may be done at rest besides, in words."""
        return ", or for the leader's (take over)" if self._leader is not None else ""

    def begin(self) -> None:
        """Does nothing unless the arm is held at rest. Says why where the leader cannot take it."""
        controller = self._controller
        if controller.motion is not Motion.HELD or controller.last_state is None:
            return
        problem = self._problem(from_micro(controller.last_state.commanded_urad))
        if problem is not None:
            self._notify(problem)
            return
        assert self._leader is not None  # or that would have been the problem
        pursuit = Pursuit.of(controller.arm, controller.step_s)
        pursuer = Pursuer(
            pursuit, controller.shape.horizon, self._leader, Outcome.LEADER, plan_from=controller.commanded_rad
        )
        self._policy, self._moves = (controller.planner, controller.replanner.execute_steps), False
        self._lost = False
        controller.plan_with(self._tap(pursuer))
        controller.replan_every(1)
        controller.resume()

    def step(self) -> None:
        """Gives control its policy back once the arm rests again, which a pause or a lost leader brings about."""
        if self._policy is None:
            return
        motion = self._controller.motion
        self._moves = self._moves or motion is Motion.RUNNING
        if motion is Motion.RUNNING and self._leader is not None and self._leader() is None:
            self._lost = True
            self._controller.pause()
        if self._moves and motion is Motion.HELD:
            planner, steps = self._policy
            self._policy = None
            self._controller.plan_with(planner)
            self._controller.replan_every(steps)
            if self._lost:
                self._notify(f"the leader was lost: {NO_POSE}")

    def _problem(self, stands_rad: FloatArray) -> str | None:
        arm = self._controller.arm
        if self._leader is None:
            return "there is no leader arm to take over with; give one with --leader"
        if arm.goals is None:
            return f"'{arm.name}' is driven by increments alone, and a leader gives goals; its profile needs [goals]"
        pose = self._leader()
        if pose is None:
            return NO_POSE
        if pose.shape != stands_rad.shape or not np.isfinite(pose).all():
            return f"the leader arm's pose is not one of '{arm.name}'; check what leads"
        limits = arm.operating
        span = np.array(limits.position_max_rad) - np.array(limits.position_min_rad)
        away = pose - stands_rad
        joint = int(np.argmax(np.abs(away) / span))
        if abs(away[joint]) <= NEAR_SHARE * span[joint]:
            return None
        return (
            f"the leader is {away[joint]:+.2f} {arm.units[joint]} from the arm in {arm.joints[joint]}; bring it within "
            f"{NEAR_SHARE * span[joint]:.2f}, then take over again"
        )
