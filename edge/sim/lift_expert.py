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

from edge.sim.expert import STEP_S
from edge.sim.lift import Layout
from edge.sim.robots import TOOL

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
SEARCH_STEPS = 200
DOWN = np.diag([1.0, -1.0, -1.0])
"""The hand of an FR3 points down, and its fingers close along y."""


class ToolKinematics:
    """Where the tool is, and the posture that puts it somewhere, pointing down.

    With six joints for the purpose an FR3 also keeps the direction of its hand. An arm with four turns with its base
    and cannot point straight down everywhere: it tilts outwards by `Layout.tilt_rad`, more the higher the tool is.
    """

    def __init__(self, model: mujoco.MjModel, layout: Layout) -> None:
        self._model, self._data = model, mujoco.MjData(model)
        self._home, self._moving, self._tilt = np.array(layout.home_rad), list(layout.moving), layout.tilt_rad
        self._whole = len(layout.moving) == 6
        self._site = model.site(TOOL).id
        joints = [int(model.actuator_trnid[axis, 0]) for axis in range(len(layout.home_rad))]
        self._positions = [int(model.jnt_qposadr[joint]) for joint in joints]
        self._speeds = [int(model.jnt_dofadr[joints[axis]]) for axis in self._moving]

    def tool_m(self, q: FloatArray) -> FloatArray:
        """Place of the tool, shape (3,), with the arm's joints (the axes without the gripper) at `q`."""
        self._pose(q)
        return np.array(self._data.site_xpos[self._site])

    def _pose(self, q: FloatArray) -> None:
        self._data.qpos[self._positions] = q
        mujoco.mj_kinematics(self._model, self._data)

    def posture(self, tool_m: FloatArray, tolerance: float = 1e-6) -> FloatArray:
        """Joint positions for a place of the tool, always searched from home so that near places get near postures.

        `tolerance` is in metres and radians; what is left of the error would shake the joints. Raises `ValueError` for
        a place out of reach.
        """
        q, jacobian = np.array(self._home), np.zeros((6, self._model.nv))
        for _ in range(SEARCH_STEPS):
            self._pose(q)
            mujoco.mj_comPos(self._model, self._data)
            axes, missing = self._turn()
            error = np.concatenate([tool_m - self._data.site_xpos[self._site], missing])
            if np.linalg.norm(error) < tolerance:
                return q
            mujoco.mj_jacSite(self._model, self._data, jacobian[:3], jacobian[3:], self._site)
            j = np.vstack([jacobian[:3, self._speeds], axes @ jacobian[3:, self._speeds]])
            q[self._moving] += np.clip(j.T @ np.linalg.solve(j @ j.T + 1e-8 * np.eye(len(j)), error), -0.2, 0.2)
        raise ValueError(f"no posture puts the tool at {tool_m}")

    def _turn(self) -> tuple[FloatArray, FloatArray]:
        """Axes about which the direction of the tool matters, (n, 3), and the small rotations missing about them."""
        axes = self._data.site_xmat[self._site].reshape(3, 3)
        if self._whole:
            m = DOWN @ axes.T
            return np.eye(3), 0.5 * np.array([m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]])
        sine = max(math.hypot(axes[0, 2], axes[1, 2]), 1e-6)
        wanted = self._tilt[0] + self._tilt[1] * float(self._data.site_xpos[self._site][2])
        missing = math.atan2(sine, -axes[2, 2]) - wanted
        return np.array([[-axes[1, 2] / sine, axes[0, 2] / sine, 0.0]]), np.array([missing])


@dataclass(frozen=True)
class Sight:
    """What the expert decides from. Arrays have one entry per axis, the gripper last.

    command     commanded positions
    last        increments commanded in the step before
    measured    measured positions
    object_m    centre of the object it is told to lift, shape (3,)
    """

    command: FloatArray
    last: FloatArray
    measured: FloatArray
    object_m: FloatArray


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
        posture = kinematics.posture(after)
        deviation = joints - kinematics.posture(tool)
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
