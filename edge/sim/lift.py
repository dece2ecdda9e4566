"""The lifting scene: an arm with a gripper, three objects that can be picked up, and two cameras.

One description for every arm: `LAYOUTS` says how large the objects are, where they may stand and where the arm holds
them. Objects differ in colour and shape, and all are as wide where they are held.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.errors import InputError
from edge.sim.library import mujoco
from edge.sim.lift_phrases import OBJECTS
from edge.sim.robots import DRAWN_GROUP, fr3_with_hand
from edge.sim.so101 import so101
from edge.sim.stage import CAMERA, COLOURS, View, add_camera, add_table, compiled

WRIST_CAMERA = "wrist"
LIFTED_M = 0.08
"""An object counts as lifted when its centre is at least this high above the table..."""
HELD_S = 0.5
"""...for this long, at the end of the episode."""
FREE_JOINT = 7
DENSITY_KG_M3 = 800.0
TURN_RAD = 0.2
"""Objects stand turned by at most this much from how the gripper comes."""


@dataclass(frozen=True)
class Layout:
    """One arm's lifting scene; metres and radians.

    half_m      half the width by which every object is held
    area_m      (nearest, farthest) along x, and the half width along y, of where objects are put
    gap_m       least distance between the centres of two objects
    radial      objects are turned towards the arm's base, as an arm without a seventh joint comes to them
    grasp_m     height of the tool above the table at the grasp; hover_m before it, raised_m after it
    grip        the gripper's axis open, and as it is commanded while it holds, in its unit
    grip_step   the most the expert moves it in one step
    held        where that axis is measured while it holds an object: at least, at most
    at_hand_m   how far from the tool an object may be and still be between the fingers
    home_rad    the joints in the posture that others are searched from; ready_m: where the tool is at the start
    moving      the joints that bring the tool to a place; the others keep their pose, so that there is one way to do it
    tilt_rad    angle of the tool from straight down while it is at the table, and how much more per metre above it
    speed_m_s   how fast the expert moves the tool, and acceleration_m_s2 how fast it gets there
    """

    build: Callable[[], mujoco.MjSpec]
    gripper_body: str
    half_m: float
    area_m: tuple[float, float, float]
    gap_m: float
    radial: bool
    grasp_m: float
    hover_m: float
    raised_m: float
    grip: tuple[float, float]
    grip_step: float
    held: tuple[float, float]
    at_hand_m: float
    home_rad: tuple[float, ...]
    ready_m: tuple[float, float, float]
    moving: tuple[int, ...]
    tilt_rad: tuple[float, float]
    speed_m_s: float
    acceleration_m_s2: float
    front: View
    wrist: View


LAYOUTS = {
    "fr3_hand": Layout(
        build=fr3_with_hand,
        gripper_body="hand",
        half_m=0.02,
        area_m=(0.42, 0.60, 0.18),
        gap_m=0.11,
        radial=False,
        grasp_m=0.025,
        hover_m=0.12,
        raised_m=0.17,
        grip=(0.075, 0.02),
        grip_step=0.008,
        held=(0.032, 0.043),
        at_hand_m=0.02,
        home_rad=(0.0, -0.785398, 0.0, -2.356194, 0.0, 1.570796, 0.785398),
        ready_m=(0.44, 0.0, 0.26),
        moving=(0, 1, 3, 4, 5, 6),
        tilt_rad=(0.0, 0.0),
        speed_m_s=0.22,
        acceleration_m_s2=0.6,
        front=View((1.02, 0.0, 0.52), (0.47, 0.0, 0.10), 38),
        wrist=View((0.075, 0.0, 0.01), (0.02, 0.0, 0.13), 70),
    ),
    "so101": Layout(
        build=so101,
        gripper_body="gripper",
        half_m=0.013,
        area_m=(0.22, 0.31, 0.10),
        gap_m=0.075,
        radial=True,
        grasp_m=0.02,
        hover_m=0.075,
        raised_m=0.125,
        grip=(0.75, 0.05),
        grip_step=0.06,
        held=(0.20, 0.36),
        at_hand_m=0.028,
        home_rad=(0.0, -0.3, 0.3, 1.2, 1.570796),
        ready_m=(0.24, 0.0, 0.13),
        moving=(0, 1, 2, 3),
        tilt_rad=(0.3, 4.0),
        speed_m_s=0.12,
        acceleration_m_s2=0.25,
        front=View((0.60, 0.0, 0.30), (0.24, 0.0, 0.06), 40),
        wrist=View((0.012, 0.075, -0.02), (0.012, 0.0, -0.11), 70),
    ),
}


def layout_of(embodiment: str) -> Layout:
    """The lifting scene of an arm. Raises `InputError` for one that has none."""
    if embodiment not in LAYOUTS:
        raise InputError(f"there is no lifting scene for '{embodiment}', only for {', '.join(LAYOUTS)}")
    return LAYOUTS[embodiment]


def named_object(instruction: str) -> str | None:
    """The object an instruction names, by colour, by shape or by both; None when it names none or several."""
    words = set(instruction.lower().split())
    named = [name for name in OBJECTS if words & set(name.split())]
    return named[0] if len(named) == 1 else None


@dataclass(frozen=True)
class Arrangement:
    """Where the objects stand: x, y in metres and how they are turned in radians, in the order of `OBJECTS`."""

    poses: tuple[tuple[float, float, float], ...]

    @staticmethod
    def sample(layout: Layout, rng: np.random.Generator) -> Arrangement:
        """Draws poses that keep the layout's gap."""
        near, far, aside = layout.area_m
        while True:
            count = len(OBJECTS)
            xy = np.column_stack([rng.uniform(near, far, count), rng.uniform(-aside, aside, count)])
            gaps = [np.linalg.norm(xy[i] - xy[j]) for i in range(count) for j in range(i)]
            if min(gaps) >= layout.gap_m:
                break
        turns = rng.uniform(-TURN_RAD, TURN_RAD, count)
        if layout.radial:
            turns += np.arctan2(xy[:, 1], xy[:, 0])
        return Arrangement(tuple((float(x), float(y), float(turn)) for (x, y), turn in zip(xy, turns)))


def build_lift_model(layout: Layout, arrangement: Arrangement) -> mujoco.MjModel:
    """Compiles the scene. The arm's positions come first in `qpos`, then seven per object (x y z, quaternion)."""
    spec = layout.build()
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10.0
    add_table(spec)
    for name, pose in zip(OBJECTS, arrangement.poses):
        _add_object(spec, layout, name, pose)
    add_camera(spec.worldbody, CAMERA, layout.front)
    up = (1.0, 0.0, 0.0) if layout.wrist.position_m[0] > 0.05 else (0.0, 1.0, 0.0)
    add_camera(spec.body(layout.gripper_body), WRIST_CAMERA, layout.wrist, up)
    return compiled(spec)


def _add_object(spec: mujoco.MjSpec, layout: Layout, name: str, pose: tuple[float, float, float]) -> None:
    half = layout.half_m
    colour, shape = name.split()
    kind, size = {
        "cube": (mujoco.mjtGeom.mjGEOM_BOX, (half, half, half)),
        "can": (mujoco.mjtGeom.mjGEOM_CYLINDER, (half, 1.25 * half, 0.0)),
        "brick": (mujoco.mjtGeom.mjGEOM_BOX, (1.5 * half, half, 0.9 * half)),
    }[shape]
    body = spec.worldbody.add_body(name=name, **_standing(layout, name, pose))
    body.add_freejoint(name=name)
    body.add_geom(
        type=kind,
        size=size,
        rgba=COLOURS[colour],
        group=DRAWN_GROUP,
        density=DENSITY_KG_M3,
        friction=[1.0, 0.01, 0.001],
        condim=4,
    )


def rest_height_m(layout: Layout, name: str) -> float:
    """Height of an object's centre while it stands on the table."""
    return {"cube": 1.0, "can": 1.25, "brick": 0.9}[name.split()[1]] * layout.half_m


def _standing(layout: Layout, name: str, pose: tuple[float, float, float]) -> dict[str, list[float]]:
    x, y, turn = pose
    return {
        "pos": [x, y, rest_height_m(layout, name)],
        "quat": [math.cos(turn / 2), 0.0, 0.0, math.sin(turn / 2)],
    }


def put_object(
    model: mujoco.MjModel, data: mujoco.MjData, layout: Layout, name: str, pose: tuple[float, float, float]
) -> None:
    """Stands an object of a compiled scene somewhere else, at rest."""
    joint = model.joint(name)
    position, velocity = int(joint.qposadr[0]), int(joint.dofadr[0])
    standing = _standing(layout, name, pose)
    data.qpos[position : position + FREE_JOINT] = [*standing["pos"], *standing["quat"]]
    data.qvel[velocity : velocity + FREE_JOINT - 1] = 0.0


def heights_m(model: mujoco.MjModel, track: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Height of every object's centre along a track of generalised positions (n, nq)."""
    return {name: track[:, int(model.joint(name).qposadr[0]) + 2] for name in OBJECTS}


def lifted(model: mujoco.MjModel, track: NDArray[np.float64], name: str) -> bool:
    """Whether the named object, and no other, was held up during the whole track."""
    heights = heights_m(model, track)
    others = (other for other in OBJECTS if other != name)
    return bool(heights[name].min() >= LIFTED_M) and all(heights[other].max() < LIFTED_M for other in others)
