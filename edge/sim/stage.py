"""What every simulated scene shares: the table, its light, cameras, and the names by which they are found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge.sim.library import mujoco
from edge.sim.robots import DRAWN_GROUP

CAMERA = "front"
CAMERA_SIZE_PX = 128
COLOURS = {
    "red": (0.85, 0.10, 0.10, 1.0),
    "green": (0.10, 0.70, 0.15, 1.0),
    "blue": (0.10, 0.20, 0.85, 1.0),
}


@dataclass(frozen=True)
class View:
    """A camera: where it stands, the point it looks at (metres, in the frame of what carries it), opening angle."""

    position_m: tuple[float, float, float]
    looks_at_m: tuple[float, float, float]
    fovy_deg: float


def add_table(spec: mujoco.MjSpec) -> None:
    """The plane that everything stands on, and a light that throws no shadow."""
    spec.worldbody.add_geom(
        type=mujoco.mjtGeom.mjGEOM_PLANE, size=[2, 2, 0.05], rgba=[0.55, 0.50, 0.45, 1.0], group=DRAWN_GROUP
    )
    spec.worldbody.add_light(pos=[0.5, 0, 2.5], dir=[0, 0, -1], castshadow=False)


def add_camera(body: mujoco.MjsBody, name: str, view: View, up: tuple[float, float, float] = (0.0, 0.0, 1.0)) -> None:
    """A camera on `body`; `up` is the direction that points upwards in its image."""
    position, looks_at = np.array(view.position_m), np.array(view.looks_at_m)
    backward = (position - looks_at) / np.linalg.norm(position - looks_at)
    right = np.cross(up, backward)
    right /= np.linalg.norm(right)
    camera = body.add_camera(name=name, pos=position, fovy=view.fovy_deg)
    camera.alt.type = mujoco.mjtOrientation.mjORIENTATION_XYAXES
    camera.alt.xyaxes = [*right, *np.cross(backward, right)]


def compiled(spec: mujoco.MjSpec) -> mujoco.MjModel:
    """The model, without the multisampling that a CPU renderer pays for dearly."""
    model = spec.compile()
    model.vis.quality.offsamples = 0
    return model
