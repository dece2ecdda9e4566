"""The expert of a scene in the place of a policy: it answers requests with chunks, and proves what runs them.

A chunk is what the expert does next in a simulation of its own, begun at the world as it is.
"""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import numpy as np
from numpy.typing import NDArray

from edge.bundle import ChunkShape
from edge.errors import InputError
from edge.inference.records import Outcome, PlanRequest, PlanResult
from edge.sim.axes import Axes
from edge.sim.lift import named_object
from edge.sim.scenes import LiftScene, Scene, TrayScene
from edge.sim.tray import Handles
from firmware_bridge.simulator import LockstepDevice
from lab.experts.lift_expert import LiftExpert, Sight
from lab.experts.reach_expert import STEP_S
from lab.experts.tray_expert import TrayExpert

FloatArray = NDArray[np.float64]
PHYSICS_STEPS = round(STEP_S / 0.001)
EXPERT_SHAPE = ChunkShape(horizon=15, history=15, max_delay=6)
"""Chunks as the policies have them."""


Decide = Callable[[FloatArray, FloatArray, FloatArray], FloatArray]
"""(commanded positions, increments commanded in the step before, generalised positions) to the next increments."""


def expert_of(scene: Scene, instruction: str) -> Decide:
    """Who knows how to do what an instruction says in a scene. Raises `InputError` where nobody does."""
    axes = Axes(scene.model)
    if isinstance(scene, TrayScene):
        carrier = TrayExpert()
        return lambda command, last, world: carrier.increments(
            command, last, axes.read(world), Handles.of(scene.model, world)
        )
    if not isinstance(scene, LiftScene):
        raise InputError(f"there is an expert for lifting only, and the task here is to {scene.task}; give a --bundle")
    target = named_object(instruction)
    if target is None:
        raise InputError(f"'{instruction}' names no single object")
    first = int(scene.model.joint(target).qposadr[0])
    lifter = LiftExpert(scene.model, scene.layout)
    return lambda command, last, world: lifter.increments(
        Sight(command, last, axes.read(world), np.array(world[first : first + 3]))
    )


class ExpertPlanner:
    """Answers requests about one scene, whose device it can see. One per episode."""

    def __init__(self, scene: Scene, instruction: str, device: LockstepDevice) -> None:
        self._decide = expert_of(scene, instruction)
        self._model, self._device = scene.model, device
        self._data = mujoco.MjData(scene.model)
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
                increment = self._decide(command, last, data.qpos)
            play_step(self._model, data, command, increment)
            command, last = command + increment, increment
            rows.append(increment)
        return np.array(rows)


def play_step(model: mujoco.MjModel, data: mujoco.MjData, command: FloatArray, increment: FloatArray) -> None:
    """One policy step of physics, the command moving evenly by `increment`."""
    for part in range(1, PHYSICS_STEPS + 1):
        data.ctrl[:] = command + increment * (part / PHYSICS_STEPS)
        mujoco.mj_step(model, data)
