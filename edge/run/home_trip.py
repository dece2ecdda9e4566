"""The way home in the middle of a run: from rest, on an operator's word, and at rest again at its end.

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
    """Takes the arm home when told to. `via` wraps the planner of the way, for the log."""

    def __init__(
        self, controller: Controller, tell: Callable[[str], None], via: Callable[[Planner], Planner] = lambda way: way
    ) -> None:
        self._controller, self._tell, self._via = controller, tell, via
        self._under: tuple[HomePlanner, Planner] | None = None

    def begin(self) -> None:
        """Does nothing unless the arm is held at rest. Says why when there is no way, or none to go."""
        controller = self._controller
        if controller.motion is not Motion.HELD or controller.last_state is None:
            return
        try:
            move = plan_home(controller.arm, from_micro(controller.last_state.commanded_urad))
        except InputError as problem:
            self._tell(str(problem))
            return
        if move is None:
            self._tell("the arm is at home already, and waits for the word to start")
            return
        self._tell(describe(move))
        way = HomePlanner(move, controller.shape.horizon, controller.step_s)
        self._under = way, controller.planner
        controller.plan_with(self._via(way))
        controller.resume()

    def step(self) -> None:
        """Stops the arm where it has arrived, and gives control its policy back once it rests, wherever that is."""
        if self._under is None:
            return
        way, policy = self._under
        if self._controller.motion is Motion.HELD:
            self._controller.plan_with(policy)
            self._under = None
        elif self._controller.motion is Motion.RUNNING and way.arrived(self._controller.splicer.executed_steps()):
            self._controller.pause()
