"""The scene of two arms: two SO-101 that face each other, and a tray with a handle at either end.

The tray is too wide for a jaw except at its handles, and too heavy for one jaw to keep level: whoever lifts it by one
handle tips it. It is carried when both handles are up and it is level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge.sim.kinematics import ToolKinematics
from edge.sim.library import mujoco
from edge.sim.lift import FREE_JOINT, LAYOUTS, LIFTED_M, Layout
from edge.sim.robots import DRAWN_GROUP
from edge.sim.so101 import so101
from edge.sim.stage import CAMERA, COLOURS, View, add_camera, add_table, compiled

FloatArray = NDArray[np.float64]
TRAY = "tray"
SIDES = {"left": 1.0, "right": -1.0}
"""In the order of the axes of `bi_so101`. The left arm looks along x, the right one back at it."""
BASE_M = 0.375
"""From the middle of the table to the base of either arm."""
HANDLE_M = 0.125
"""From the middle of the tray to the middle of either handle."""
PLATE_HALF_M, HANDLE_HALF_M = (0.09, 0.05, 0.013), (0.03, 0.013, 0.013)
MASS_KG = 0.8
NEAR_M, ASIDE_M, TURN_RAD = 0.025, 0.03, 0.25
"""How far the tray stands from the middle of the table at most: along x, along y, and how it is turned."""
LEVEL_RAD = math.radians(10)
CARRIED_S = 1.0
"""Both handles are held at `LIFTED_M`, and the tray within `LEVEL_RAD` of level, for this long at the end."""
VIEW = View((0.0, -0.26, 0.50), (0.0, 0.01, 0.03), 32)
VIEW_PX = (48, 96)
"""What a policy sees of it, height and width."""
ONE_ARM: Layout = replace(
    LAYOUTS["so101"], ready_m=(0.20, 0.0, 0.11), raised_m=0.125, tilt_rad=(0.35, 1.5), half_m=HANDLE_HALF_M[1]
)
"""How each of the arms grasps its handle, in its own frame."""


@dataclass(frozen=True)
class Place:
    """Where a tray stands: x and y of its middle in metres, and how it is turned in radians."""

    x_m: float
    y_m: float
    turn_rad: float

    @staticmethod
    def sample(rng: np.random.Generator) -> Place:
        x, y, turn = rng.uniform(-1.0, 1.0, 3) * (NEAR_M, ASIDE_M, TURN_RAD)
        return Place(float(x), float(y), float(turn))


def build_tray_model(place: Place) -> mujoco.MjModel:
    """Compiles the scene. In `qpos` come the left arm's positions, the right arm's, then seven of the tray."""
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.timestep = 0.001
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10.0
    add_table(spec)
    for side, way in SIDES.items():
        frame = spec.worldbody.add_frame(pos=[-way * BASE_M, 0.0, 0.0], quat=_about_z(0.0 if way > 0 else math.pi))
        spec.attach(so101(), prefix=f"{side}_", frame=frame)
    _add_tray(spec, place)
    add_camera(spec.worldbody, CAMERA, VIEW)
    return compiled(spec)


def one_arm() -> ToolKinematics:
    """Of either arm, in its own frame."""
    return ToolKinematics(so101().compile(), ONE_ARM)


def ready() -> tuple[float, ...]:
    """Where the axes of both arms begin."""
    posture = one_arm().posture(np.array(ONE_ARM.ready_m))
    return (*map(float, posture), ONE_ARM.grip[0]) * len(SIDES)


def _about_z(angle_rad: float) -> list[float]:
    return [math.cos(angle_rad / 2), 0.0, 0.0, math.sin(angle_rad / 2)]


def _add_tray(spec: mujoco.MjSpec, place: Place) -> None:
    body = spec.worldbody.add_body(
        name=TRAY, pos=[place.x_m, place.y_m, PLATE_HALF_M[2]], quat=_about_z(place.turn_rad)
    )
    body.add_freejoint(name=TRAY)
    parts = [
        (0.0, PLATE_HALF_M, "green", 0.7),
        (-HANDLE_M, HANDLE_HALF_M, "red", 0.15),
        (HANDLE_M, HANDLE_HALF_M, "blue", 0.15),
    ]
    for x_m, half_m, colour, share in parts:
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=[x_m, 0.0, 0.0],
            size=half_m,
            rgba=COLOURS[colour],
            group=DRAWN_GROUP,
            mass=share * MASS_KG,
            friction=[1.0, 0.01, 0.001],
            condim=4,
        )


def put_tray(model: mujoco.MjModel, data: mujoco.MjData, place: Place) -> None:
    """Stands the tray of a compiled scene somewhere else, at rest."""
    joint = model.joint(TRAY)
    position, velocity = int(joint.qposadr[0]), int(joint.dofadr[0])
    data.qpos[position : position + FREE_JOINT] = [place.x_m, place.y_m, PLATE_HALF_M[2], *_about_z(place.turn_rad)]
    data.qvel[velocity : velocity + FREE_JOINT - 1] = 0.0


@dataclass(frozen=True)
class Handles:
    """Of trays (..., 7) as `qpos` has them: the middles of the left and right handle, (..., 2, 3) in metres, the way
    from one to the other on the table, and how far each is from level, in radians (...)."""

    places_m: FloatArray
    along_rad: FloatArray
    tilt_rad: FloatArray

    @staticmethod
    def of(model: mujoco.MjModel, position: FloatArray) -> Handles:
        """From generalised positions (..., nq)."""
        first = int(model.joint(TRAY).qposadr[0])
        middle, (w, x, y, z) = (
            position[..., first : first + 3],
            np.moveaxis(position[..., first + 3 : first + 7], -1, 0),
        )
        along = np.stack([1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)], axis=-1)
        places = np.stack([middle - HANDLE_M * along, middle + HANDLE_M * along], axis=-2)
        upright = np.clip(1 - 2 * (x * x + y * y), -1.0, 1.0)
        return Handles(places, np.arctan2(along[..., 1], along[..., 0]), np.arccos(upright))

    @property
    def carried(self) -> NDArray[np.bool_]:
        """Whether both are up and the tray is level, (...)."""
        return (self.height_m >= LIFTED_M) & (self.tilt_rad <= LEVEL_RAD)

    @property
    def height_m(self) -> FloatArray:
        """Of the lower handle, (...)."""
        return np.asarray(self.places_m[..., 2].min(axis=-1))


def to_arm(side: str, places_m: FloatArray) -> FloatArray:
    """Places (..., 3) of the table in the frame of one arm."""
    way = SIDES[side]
    return np.asarray((places_m + np.array([way * BASE_M, 0.0, 0.0])) * [way, way, 1.0])
