"""The links of an arm as a chain of frames, for drawings alone: nothing that moves an arm is computed from them.

FR3 and Panda: Denavit-Hartenberg parameters of the maker's documentation
(https://frankarobotics.github.io/docs/control_parameters.html). SO-101: the maker's URDF. `tests/edge/sim` holds both
against the simulated arms.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

H = 0.5**0.5
Frame = tuple[tuple[float, float, float], tuple[float, float, float, float]]
"""Of a link in the one before at joint position 0: metres, quaternion (w, x, y, z). Its joint turns about its own z."""


@dataclass(frozen=True)
class Chain:
    """The frames of the turning joints, in the order of the profile's, and the tool in the last one."""

    frames: tuple[Frame, ...]
    tip_m: tuple[float, float, float]


FR3: tuple[Frame, ...] = (
    ((0.0, 0.0, 0.333), (1.0, 0.0, 0.0, 0.0)),
    ((0.0, 0.0, 0.0), (H, -H, 0.0, 0.0)),
    ((0.0, -0.316, 0.0), (H, H, 0.0, 0.0)),
    ((0.0825, 0.0, 0.0), (H, H, 0.0, 0.0)),
    ((-0.0825, 0.384, 0.0), (H, -H, 0.0, 0.0)),
    ((0.0, 0.0, 0.0), (H, H, 0.0, 0.0)),
    ((0.088, 0.0, 0.0), (H, H, 0.0, 0.0)),
)
SO101: tuple[Frame, ...] = (
    ((0.0388, 0.0, 0.0624), (0.0, 0.0, -1.0, 0.0)),
    ((-0.0304, -0.0183, -0.0542), (0.5, -0.5, -0.5, -0.5)),
    ((-0.1126, -0.0280, 0.0), (H, 0.0, 0.0, H)),
    ((-0.1349, 0.0052, 0.0), (H, 0.0, 0.0, -H)),
    ((0.0, -0.0611, 0.0181), (0.0172, -0.0172, 0.7069, 0.7069)),
)
CHAINS = {
    "fr3": Chain(FR3, (0.0, 0.0, 0.207)),
    "fr3_hand": Chain(FR3, (0.0, 0.0, 0.2104)),
    "so101": Chain(SO101, (0.0235, 0.0, -0.0985)),
}


def chain_of(embodiment: str) -> dict[str, Any] | None:
    """The chain of an arm as plain data; None for one whose links are not known here."""
    chain = CHAINS.get(embodiment)
    return None if chain is None else asdict(chain)
