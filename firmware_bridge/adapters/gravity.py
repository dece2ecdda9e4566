"""What gravity asks of every joint of an arm, so that a motor need not be off its set-point to carry it.

A motor in MIT mode is a spring: 10 N m on one of 80 N m/rad bend it by 0.125 rad. Plain Python, for no library of the
robot's computes six joints in a tenth of a millisecond without another hundred megabytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

Vector: TypeAlias = tuple[float, float, float]
Matrix: TypeAlias = tuple[Vector, Vector, Vector]
GRAVITY_M_S2 = 9.81
IDENTITY: Matrix = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


@dataclass(frozen=True)
class Link:
    """A joint and the link behind it, as in a URDF: the joint's frame in the one before, its axis and the link's mass.

    `origin_m`, `rpy_rad`: of the joint's frame; `axis` and `com_m`, the centre of mass, in that frame.
    """

    origin_m: Vector
    rpy_rad: Vector
    axis: Vector
    mass_kg: float
    com_m: Vector


class GravityModel:
    """Torques that hold an arm whose base stands upright. `payload_kg` is at the last link's frame."""

    def __init__(self, links: Sequence[Link], payload_kg: float = 0.0) -> None:
        self._links = tuple((link, _from_rpy(link.rpy_rad)) for link in links)
        self._payload_kg = payload_kg

    def torques_nm(self, q_rad: Sequence[float]) -> list[float]:
        """What the motors have to give at these joint angles, N m."""
        rotation, at = IDENTITY, (0.0, 0.0, 0.0)
        frames: list[tuple[Vector, Vector, float, Vector]] = []
        for (link, fixed), q in zip(self._links, q_rad):
            at = _add(at, _turn(rotation, link.origin_m))
            rotation = _times(_times(rotation, fixed), _about(link.axis, q))
            com = _add(at, _turn(rotation, link.com_m))
            frames.append((at, _turn(rotation, link.axis), link.mass_kg, com))
        mass = self._payload_kg
        moment = (mass * at[0], mass * at[1])
        torques = [0.0] * len(frames)
        for index in range(len(frames) - 1, -1, -1):
            here, axis, of_link, com = frames[index]
            mass += of_link
            moment = (moment[0] + of_link * com[0], moment[1] + of_link * com[1])
            arm_x, arm_y = moment[0] - mass * here[0], moment[1] - mass * here[1]
            torques[index] = GRAVITY_M_S2 * (axis[0] * arm_y - axis[1] * arm_x)
        return torques


def _add(a: Vector, b: Vector) -> Vector:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


def _turn(m: Matrix, v: Vector) -> Vector:
    return (
        m[0][0] * v[0] + m[0][1] * v[1] + m[0][2] * v[2],
        m[1][0] * v[0] + m[1][1] * v[1] + m[1][2] * v[2],
        m[2][0] * v[0] + m[2][1] * v[1] + m[2][2] * v[2],
    )


def _times(a: Matrix, b: Matrix) -> Matrix:
    columns = [_turn(a, (b[0][i], b[1][i], b[2][i])) for i in range(3)]
    x, y, z = columns
    return (x[0], y[0], z[0]), (x[1], y[1], z[1]), (x[2], y[2], z[2])


def _about(axis: Vector, angle: float) -> Matrix:
    """A turn around a unit vector (Rodrigues)."""
    x, y, z = axis
    c, s = math.cos(angle), math.sin(angle)
    t = 1.0 - c
    return (
        (t * x * x + c, t * x * y - s * z, t * x * z + s * y),
        (t * x * y + s * z, t * y * y + c, t * y * z - s * x),
        (t * x * z - s * y, t * y * z + s * x, t * z * z + c),
    )


def _from_rpy(rpy: Vector) -> Matrix:
    """Roll, pitch and yaw about fixed axes, as in a URDF."""
    roll, pitch, yaw = rpy
    about_x = _about((1.0, 0.0, 0.0), roll)
    about_y = _about((0.0, 1.0, 0.0), pitch)
    return _times(_about((0.0, 0.0, 1.0), yaw), _times(about_y, about_x))
