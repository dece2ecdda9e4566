"""The reaching scene: an FR3 with a pointer, three coloured cubes and a camera that faces the arm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.sim.library import mujoco
from edge.sim.robots import DRAWN_GROUP, fr3_with_pointer
from edge.sim.stage import CAMERA, COLOURS, View, add_camera, add_table, compiled

TARGETS = COLOURS
CUBE_HALF_M = 0.025
HOVER_M = 0.05
"""The pointer's goal is this far above a cube's top face, so that reaching never pushes the cube."""
REACHED_M = 0.04
"""A target counts as reached when the pointer's tip rests within this distance of its goal."""
DOF = 7
ARM_QPOS = slice(0, DOF)
TABLE_X_M = (0.43, 0.66)
TABLE_Y_M = (-0.26, 0.26)
SEPARATION_M = 0.12
VIEW = View((1.25, 0.0, 0.78), (0.40, 0.0, 0.14), 42)


@dataclass(frozen=True)
class Placement:
    """Where the cubes stand: centre x, y in metres, in the order of `TARGETS`."""

    xy_m: tuple[tuple[float, float], ...]

    @staticmethod
    def sample(rng: np.random.Generator) -> Placement:
        """Draws positions on the table that keep `SEPARATION_M` between centres."""
        while True:
            xy = np.column_stack([rng.uniform(*TABLE_X_M, len(TARGETS)), rng.uniform(*TABLE_Y_M, len(TARGETS))])
            gaps = [np.linalg.norm(xy[i] - xy[j]) for i in range(len(xy)) for j in range(i)]
            if min(gaps) >= SEPARATION_M:
                return Placement(tuple((float(x), float(y)) for x, y in xy))

    def goal_m(self, colour: str) -> NDArray[np.float64]:
        """The point above the named cube that the pointer's tip should reach, shape (3,)."""
        x, y = self.xy_m[list(TARGETS).index(colour)]
        return np.array([x, y, 2 * CUBE_HALF_M + HOVER_M])


def target_of(task: str) -> str | None:
    """The colour a task names, or None when it names none or several."""
    named = [colour for colour in TARGETS if colour in task.lower().split()]
    return named[0] if len(named) == 1 else None


def build_model(placement: Placement) -> mujoco.MjModel:
    """Compiles the scene. `qpos[ARM_QPOS]` are the arm's joints; the actuators take joint positions in rad."""
    spec = fr3_with_pointer()
    add_table(spec)
    for (colour, rgba), (x, y) in zip(TARGETS.items(), placement.xy_m):
        body = spec.worldbody.add_body(name=colour, pos=[x, y, CUBE_HALF_M], mocap=True)
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[CUBE_HALF_M] * 3,
            rgba=rgba,
            group=DRAWN_GROUP,
            contype=0,
            conaffinity=0,
        )
    add_camera(spec.worldbody, CAMERA, VIEW)
    return compiled(spec)


def place_cubes(model: mujoco.MjModel, data: mujoco.MjData, placement: Placement) -> None:
    """Moves the cubes of a compiled scene."""
    for colour, (x, y) in zip(TARGETS, placement.xy_m):
        data.mocap_pos[model.body(colour).mocapid[0]] = [x, y, CUBE_HALF_M]
