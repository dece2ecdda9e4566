"""A slow move as a motion of its own: armed, moved, at rest again with the drive off."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from edge.log.records import Journal, Kind
from edge.log.taps import open_recorder, tapped_planner
from edge.plan.trajectory import FloatArray, from_micro
from edge.realtime.scheduler import FixedStep
from edge.run.arm import ConnectedArm
from edge.run.ending import End
from edge.run.homing import HOME_SHAPE, SPACING_S, HomePlanner, SlowMove, home_controller, plan_move
from edge.run.made_from import pack_controller
from edge.run.signals import Operator

STEP_NS = 5_000_000


class SlowRun:
    """Control until the arm is at `target_rad` (J,), which `towards` names, or the operator stops it.

    `show` gets the move and the `share` of it that is done; `journal` records what a run's would.
    """

    def __init__(
        self,
        connected: ConnectedArm,
        operator: Operator,
        target_rad: Sequence[float] | FloatArray,
        towards: str,
        show: Callable[[SlowMove, float], None] = lambda move, share: None,
        journal: Journal | None = None,
    ) -> None:
        self._connected, self._operator, self._target, self._towards = connected, operator, target_rad, towards
        self._show, self._journal, self.share = show, journal, 0.0

    def run(self) -> End:
        """From the armed device to the end of the move. Raises `SafetyStop`, `LinkLost`, `InputError`."""
        connected, client = self._connected, self._connected.client
        arm, journal = connected.profile, self._journal
        # The move begins where the device holds the arm, which is not quite where it was measured.
        move = plan_move(arm, from_micro(client.wait_for_state().commanded_urad), self._target, self._towards)
        if move is None:
            return End("arrived")
        planner = HomePlanner(move, HOME_SHAPE.horizon, SPACING_S)
        recorder = open_recorder(1, arm.dof, journal)
        controller = home_controller(connected, tapped_planner(planner, journal), recorder)
        if journal is not None:
            journal.put(Kind.CONTROLLER, pack_controller(controller, SPACING_S, 0))
        loop = FixedStep(STEP_NS, time.monotonic_ns, time.sleep)
        while not self._operator.stops and not planner.arrived(controller.splicer.executed_steps()):
            controller.step(loop.wait(), loop.ticks + 1)
            client.keep_clock(time.monotonic_ns(), loop.slack_s())
            self.share = planner.share(controller.splicer.executed_steps())
            self._show(move, self.share)
        return End("user" if self._operator.stops else "arrived")
