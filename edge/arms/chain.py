"""An arm's links as one chain of turning joints, for drawings alone: nothing that moves an arm is computed from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edge.arms.frames import UNTURNED, Frame, Quaternion, Vector, composed

TIP = "tip"
"""What a profile calls the frame of its tool's tip."""


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
