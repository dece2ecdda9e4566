"""Homing in the middle of a run: from rest, on an operator's command, and at rest again at its end.

Between two episodes an arm is to begin where the policy has learnt to begin. Control goes on as with any policy, with
the same history, limits, pace and log; only its planner is another one until the arm has arrived.
"""

from __future__ import annotations

from collections.abc import Callable

from edge.errors import InputError
from edge.inference.records import Planner
from edge.plan.trajectory import from_micro
from edge.run.controller import Controller
from edge.run.homing import HomePlanner, describe, plan_home
from edge.run.motion import Motion


class HomeTrip:
    """Takes the arm home on command. `notify` is called only at rest; `tap` wraps the planner, for the log."""

    def __init__(
        self,
        controller: Controller,
        notify: Callable[[str], None],
        tap: Callable[[Planner], Planner] = lambda home: home,
    ) -> None:
        self._controller, self._notify, self._tap = controller, notify, tap
        self._under_way: tuple[HomePlanner, Planner] | None = None

    def begin(self) -> None:
        """Does nothing unless the arm is held at rest. Reports where it cannot go home, or is there already."""
        controller = self._controller
        if controller.motion is not Motion.HELD or controller.last_state is None:
            return
        try:
            move = plan_home(controller.arm, from_micro(controller.last_state.commanded_urad))
        except InputError as problem:
            self._notify(str(problem))
            return
        if move is None:
            self._notify("the arm is at home already, and waits for the start command")
            return
        self._notify(describe(move))
        home = HomePlanner(move, controller.shape.horizon, controller.step_s)
        self._under_way = home, controller.planner
        controller.plan_with(self._tap(home))
        controller.resume()

    def step(self) -> None:
        """Stops the arm where it has arrived, and gives control its policy back once it rests, wherever that is."""
        if self._under_way is None:
            return
        home, policy = self._under_way
        if self._controller.motion is Motion.HELD:
            self._controller.plan_with(policy)
            self._under_way = None
        elif self._controller.motion is Motion.RUNNING and home.arrived(self._controller.splicer.executed_steps()):
            self._controller.pause()
