"""The scripted expert of the tray: each arm grasps its handle as one arm grasps an object, and they lift together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge.sim.so101 import so101
from edge.sim.tray import ONE_ARM, SIDES, Handles, to_arm
from lab.experts.lift_expert import LiftExpert, Sight

FloatArray = NDArray[np.float64]
AXES = {"left": slice(0, 6), "right": slice(6, 12)}


class TrayExpert:
    """Says what the arms do in the next step. Has no memory of its own.

    `sides` are those that it moves: one alone takes its handle and lifts.
    """

    def __init__(self, sides: tuple[str, ...] = tuple(SIDES)) -> None:
        model = so101().compile()
        self.arms = {side: LiftExpert(model, ONE_ARM) for side in sides}

    def increments(self, command: FloatArray, last: FloatArray, measured: FloatArray, handles: Handles) -> FloatArray:
        """Increments of the commanded positions over one step, shape (12,)."""
        sights = {side: self.sight(side, command, last, measured, handles) for side in self.arms}
        goals = {}
        for side, expert in self.arms.items():
            tool = expert.kinematics.tool_m(sights[side].command[:-1])
            goals[side] = (tool, *expert.intention(tool, sights[side]))
        together = all(goal[2] == ONE_ARM.raised_m for _, goal, _ in goals.values())
        found = np.zeros_like(command)
        for side, (tool, goal, grip) in goals.items():
            if goal[2] == ONE_ARM.raised_m and not together:  # it waits for the other, with its handle on the table
                goal = np.array([*tool[:2], ONE_ARM.grasp_m])
            found[AXES[side]] = self.arms[side].towards(goal, grip, sights[side])
        return found

    def sight(self, side: str, command: FloatArray, last: FloatArray, measured: FloatArray, handles: Handles) -> Sight:
        """What one arm decides from, in its own frame."""
        axes, place = AXES[side], to_arm(side, handles.places_m[list(SIDES).index(side)])
        return Sight(command[axes], last[axes], measured[axes], place, float(handles.along_rad))
