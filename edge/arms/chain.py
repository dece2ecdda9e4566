"""Arms' links as chains of turning joints, for drawings alone: nothing that moves an arm is computed from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edge.arms.frames import UNTURNED, Frame, Quaternion, Vector, composed
from edge.arms.profile import ArmProfile

TIP = "tip"
"""What a profile calls the frame of its tool's tip."""


def chains_of(arm: ArmProfile) -> list[dict[str, Any]]:
    """What is drawn of an arm: `chain_of` each one that it is made of, its `name`, and the number of its `first` axis.

    Where the bases of several stand nobody knows, so each is drawn by itself; one whose way to the tip is not known is
    left out.
    """
    found, first = [], 0
    for name, part in arm.parts or (("", arm),):
        chain = chain_of(part.frames)
        if chain is not None:
            found.append({"name": name, "first": first, **chain})
        first += part.dof
    return found


def chain_of(frames: Sequence[Frame]) -> dict[str, Any] | None:
    """The way from the base to the tip as plain data; None for an arm whose tip, or way there, is not known.

    `frames` are those of the turning joints, in the one before at joint position 0: metres, quaternion (w, x, y, z);
    each joint turns about its own z. `tip_m` is the tip in the last one.
    """
    above = {frame.child: frame for frame in frames}
    if len(above) < len(frames):
        return None
    way: list[Frame] = []
    name = TIP
    while name in above and len(way) < len(frames):
        way.insert(0, above[name])
        name = above[name].parent
    found: list[tuple[Vector, Quaternion]] = []
    fixed: tuple[Vector, Quaternion] = (0.0, 0.0, 0.0), UNTURNED
    for link in way:
        fixed = composed(fixed, (link.position_m, link.quaternion))
        if link.joint:
            if link.slides or link.axis != (0.0, 0.0, 1.0):
                return None
            found.append(fixed)
            fixed = (0.0, 0.0, 0.0), UNTURNED
    return {"frames": found, "tip_m": fixed[0]} if found else None
