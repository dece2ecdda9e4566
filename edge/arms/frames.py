"""Where an arm's links stand, from the positions of its axes: what a viewer draws. Nothing is decided by it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, TypeAlias

from firmware_bridge.reading import Between, Name, Sized

Metres: TypeAlias = Annotated[float, Between(-10, 10)]
Part: TypeAlias = Annotated[float, Between(-1, 1)]
Vector: TypeAlias = tuple[float, float, float]
Quaternion: TypeAlias = tuple[float, float, float, float]
"""w, x, y, z."""
UNTURNED: Quaternion = (1.0, 0.0, 0.0, 0.0)
NEAR_ONE = 1e-3
MOST_FRAMES = 64


@dataclass(frozen=True)
class Frame:
    """A link's frame in that of its parent, with its joint at zero.

    joint  the axis of the arm that moves it, "" where none does; about `axis`, a unit vector, or, where `slides`, along
           it, by its length for each metre of the axis
    """

    parent: Name
    child: Name
    joint: Annotated[str, Sized(0, 64)] = ""
    position_m: tuple[Metres, Metres, Metres] = (0.0, 0.0, 0.0)
    quaternion: tuple[Part, Part, Part, Part] = UNTURNED
    axis: tuple[Part, Part, Part] = (0.0, 0.0, 1.0)
    slides: bool = False

    def __post_init__(self) -> None:
        if abs(math.hypot(*self.quaternion) - 1) > NEAR_ONE:
            raise ValueError(f"the quaternion of '{self.child}' does not have the length 1")

    def called(self, side: str) -> Frame:
        """The same link of one of several arms: SIDE_ stands before every name."""
        joint = f"{side}_{self.joint}" if self.joint else ""
        return replace(self, parent=f"{side}_{self.parent}", child=f"{side}_{self.child}", joint=joint)

    def at(self, q: float) -> tuple[Vector, Quaternion]:
        """Position and orientation in the parent's frame, its joint at `q`."""
        if not self.joint:
            return self.position_m, self.quaternion
        if self.slides:
            slid = (q * self.axis[0], q * self.axis[1], q * self.axis[2])
            return composed((self.position_m, self.quaternion), (slid, UNTURNED))
        sine = math.sin(q / 2)
        turn = (math.cos(q / 2), sine * self.axis[0], sine * self.axis[1], sine * self.axis[2])
        return self.position_m, _product(self.quaternion, turn)


Frames: TypeAlias = Annotated[tuple[Frame, ...], Sized(0, MOST_FRAMES)]


def poses(frames: tuple[Frame, ...], q: Mapping[str, float]) -> list[tuple[Frame, Vector, Quaternion]]:
    """Each frame's position and orientation in its parent's; those whose joint `q` does not have are left out."""
    return [(one, *one.at(q.get(one.joint, 0.0))) for one in frames if not one.joint or one.joint in q]


def composed(first: tuple[Vector, Quaternion], then: tuple[Vector, Quaternion]) -> tuple[Vector, Quaternion]:
    """Position and orientation of `then`, which is given in the frame of `first`, where `first` is given."""
    (x, y, z), away = first[0], _turned(first[1], then[0])
    return (x + away[0], y + away[1], z + away[2]), _product(first[1], then[1])


def _product(a: Quaternion, b: Quaternion) -> Quaternion:
    return (
        a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3],
        a[0] * b[1] + a[1] * b[0] + a[2] * b[3] - a[3] * b[2],
        a[0] * b[2] - a[1] * b[3] + a[2] * b[0] + a[3] * b[1],
        a[0] * b[3] + a[1] * b[2] - a[2] * b[1] + a[3] * b[0],
    )


def _turned(turn: Quaternion, vector: Vector) -> Vector:
    w, x, y, z = turn
    _, *turned = _product(_product(turn, (0.0, *vector)), (w, -x, -y, -z))
    return turned[0], turned[1], turned[2]
