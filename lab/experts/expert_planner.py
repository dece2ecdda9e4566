"""The lifting expert in the place of a policy: it answers requests with chunks, and proves what runs them.

A chunk is what the expert does next in a simulation of its own, begun at the world as it is.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from edge.bundle import ChunkShape
from edge.inference.records import Outcome, PlanRequest, PlanResult
from edge.sim.axes import Axes
from lab.experts.reach_expert import STEP_S
from edge.sim.lift import named_object
from lab.experts.lift_expert import LiftExpert, Sight
from edge.sim.scenes import LiftScene
from firmware_bridge.simulator import LockstepDevice

FloatArray = NDArray[np.float64]
PHYSICS_STEPS = round(STEP_S / 0.001)
EXPERT_SHAPE = ChunkShape(horizon=15, history=15, max_delay=6)
"""Chunks as the policies have them."""


class ExpertPlanner:
    """Answers requests about one scene, whose device it can see. One per episode."""

    def __init__(self, scene: LiftScene, instruction: str, device: LockstepDevice) -> None:
        target = named_object(instruction)
        if target is None:
            raise ValueError(f"'{instruction}' names no single object")
        self._model, self._device = scene.model, device
        self._data = mujoco.MjData(scene.model)
        self._axes, self._expert = Axes(scene.model), LiftExpert(scene.model, scene.layout)
        first = int(scene.model.joint(target).qposadr[0])
        self._object = slice(first, first + 3)
        self._command, self._step = np.array(scene.start), 0

    def answer(self, request: PlanRequest) -> PlanResult:
        """The chunk from the request's step on, its committed prefix included."""
        if request.step > self._step:
            self._command = self._command + request.actions_rad[-(request.step - self._step) :].sum(axis=0)
            self._step = request.step
        increments = self._play(request)
        return PlanResult.untimed(request.id, Outcome.CHUNK, increments)

    def _play(self, request: PlanRequest) -> FloatArray:
        data, command, last = self._data, self._command, request.actions_rad[-1]
        mujoco.mj_resetData(self._model, data)
        data.qpos[:] = self._device.world()
        rows = []
        for row in range(EXPERT_SHAPE.horizon):
            if row < len(request.prefix_rad):
                increment = request.prefix_rad[row]
            else:
                sight = Sight(command, last, self._axes.read(data.qpos), np.array(data.qpos[self._object]))
                increment = self._expert.increments(sight)
            play_step(self._model, data, command, increment)
            command, last = command + increment, increment
            rows.append(increment)
        return np.array(rows)


def play_step(model: mujoco.MjModel, data: mujoco.MjData, command: FloatArray, increment: FloatArray) -> None:
    """One policy step of physics, the command moving evenly by `increment`."""
    for part in range(1, PHYSICS_STEPS + 1):
        data.ctrl[:] = command + increment * (part / PHYSICS_STEPS)
        mujoco.mj_step(model, data)
