"""The scripted expert of the lifting task: approach, descend, close, lift, and again when it went wrong.

What it does next follows from what it sees now, never from a plan it carries along: after a push, a slip or a grasp
of nothing it goes on from there, and a policy that imitates it has one answer to one situation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from edge.sim.kinematics import ToolKinematics
from edge.sim.lift import Layout
from lab.experts.reach_expert import STEP_S

FloatArray = NDArray[np.float64]
PULL_1_S = 2.8
SETTLE = 0.75
"""Share of a deviation from the expert's own posture that is left after one step."""
NEAR_M = 0.008
"""The tool is at the object: close."""
FUNNEL_M, FUNNEL_SLOPE = 0.006, 0.2
"""How far beside the object the tool may be to descend: this much at the grasp, and more above it."""
RISE_M = 0.04
"""Lower than this above the grasp, and not at the object, the tool rises before it goes aside."""


@dataclass(frozen=True)
class Sight:
    """What the expert decides from. Arrays have one entry per axis, the gripper last.

    command     commanded positions
    last        increments commanded in the step before
    measured    measured positions
    object_m    centre of the object it is told to lift, shape (3,)
    along_rad   where the wrist turns too: the direction in the table's plane that the jaws close across
    """

    command: FloatArray
    last: FloatArray
    measured: FloatArray
    object_m: FloatArray
    along_rad: float | None = None


class LiftExpert:
    """Says what to do in the next step. Has no memory of its own."""

    def __init__(self, model: mujoco.MjModel, layout: Layout) -> None:
        self.layout = layout
        self.kinematics = ToolKinematics(model, layout)

    def increments(self, sight: Sight) -> FloatArray:
        """Increments of the commanded positions over one step, shape (axes,)."""
        tool = self.kinematics.tool_m(sight.command[:-1])
        return self.towards(*self.intention(tool, sight), sight)

    def towards(self, goal: FloatArray, grip_goal: float, sight: Sight) -> FloatArray:
        """The same for a goal of the tool (3,) and one of the gripper, whoever sets them."""
        joints, kinematics = sight.command[:-1], self.kinematics
        tool = kinematics.tool_m(joints)
        before = kinematics.tool_m(joints - sight.last[:-1])
        after = tool + STEP_S * self._velocity(tool, (tool - before) / STEP_S, goal)
        posture = kinematics.posture(after, along_rad=sight.along_rad)
        deviation = joints - kinematics.posture(tool, along_rad=sight.along_rad)
        grip = self._grip_increment(sight.command[-1], float(sight.last[-1]), grip_goal)
        return np.append(posture + SETTLE * deviation - joints, grip)

    def intention(self, tool: FloatArray, sight: Sight) -> tuple[FloatArray, float]:
        """Where the tool should go, and the gripper."""
        layout, object_m = self.layout, sight.object_m
        opened, closed = layout.grip
        aside = float(np.linalg.norm(object_m[:2] - tool[:2]))
        above = float(tool[2]) - layout.grasp_m
        grip, hand = sight.measured[-1], object_m - self.kinematics.tool_m(sight.measured[:-1])
        at_hand = np.hypot(*hand[:2]) < layout.at_hand_m and abs(hand[2]) < 1.5 * layout.half_m
        clenched = sight.command[-1] < closed + layout.grip_step / 2
        if at_hand and clenched and layout.held[0] <= grip <= layout.held[1]:
            return np.array([tool[0], tool[1], layout.raised_m]), closed
        closing = sight.command[-1] < opened - 1.5 * layout.grip_step and grip > layout.held[0]
        if at_hand and above < NEAR_M and (aside < NEAR_M or closing):
            return tool, closed
        if aside > FUNNEL_M + FUNNEL_SLOPE * max(above, 0.0):
            over = tool[:2] if above < RISE_M else object_m[:2]
            return np.array([*over, layout.hover_m]), opened
        ready = grip > opened - 2 * layout.grip_step
        return np.array([*object_m[:2], layout.grasp_m if ready else layout.hover_m]), opened

    def _velocity(self, tool: FloatArray, velocity: FloatArray, goal: FloatArray) -> FloatArray:
        """A pull towards the goal with bounded speed and acceleration."""
        wanted = PULL_1_S * (goal - tool)
        wanted *= min(1.0, self.layout.speed_m_s / max(float(np.linalg.norm(wanted)), 1e-9))
        change = wanted - velocity
        most = self.layout.acceleration_m_s2 * STEP_S
        return np.asarray(velocity + change * min(1.0, most / max(float(np.linalg.norm(change)), 1e-9)))

    def _grip_increment(self, command: float, last: float, goal: float) -> float:
        """Towards the goal; it takes three steps to reach full speed, and three to lose it."""
        most, change = self.layout.grip_step, self.layout.grip_step / 3
        room = abs(goal - command)
        reach = min(most, 0.5 * (math.sqrt(change * (change + 8 * room)) - change))
        return float(np.clip(np.copysign(reach, goal - command), last - change, last + change))
