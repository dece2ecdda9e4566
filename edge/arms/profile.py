"""Arms as frozen dataclasses: their axes, their limits, and the hash by which host and firmware know them alike."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge.arms.frames import Frame

ROUNDING_RAD = 1e-5
"""A curve through whole microradians may stray by this much."""
LIMIT_KEYS = (
    "position_min_rad",
    "position_max_rad",
    "velocity_rad_s",
    "acceleration_rad_s2",
    "jerk_rad_s3",
)
"""Rows of a table of limits. They are named for joints; an axis whose unit is m has metres where they say rad."""
UNITS = ("rad", "m")
EDGE_KEYS = ("offset_rad_s", "slope_rad_s2", "low_rad", "high_rad")
GOAL_KEYS = ("deviation_rad", "beyond_rad", "start_rad")
HASHED = (
    ("name", "ASCII, and a zero byte"),
    ("joints", "how many, one byte"),
    *((f"limits.{key}", "doubles") for key in LIMIT_KEYS),
    ("following.limit_rad", "doubles"),
    *((f"velocity_edges.{key}", "doubles; nothing without this table") for key in EDGE_KEYS),
    ("units", "ASCII, a comma between two; nothing when all are rad"),
)
"""What `ArmProfile.hash32` covers, in order, by the names of the TOML file: a table of PROTOCOL.md."""


@dataclass(frozen=True)
class JointLimits:
    """Limits of every axis, in the profile's order. Positions in the axis's unit, the rest per second."""

    position_min_rad: tuple[float, ...]
    position_max_rad: tuple[float, ...]
    velocity_rad_s: tuple[float, ...]
    acceleration_rad_s2: tuple[float, ...]
    jerk_rad_s3: tuple[float, ...]

    def rows(self) -> tuple[tuple[float, ...], ...]:
        """The five rows in the order of `LIMIT_KEYS`."""
        return tuple(getattr(self, key) for key in LIMIT_KEYS)

    def reaching(self, q_rad: NDArray[np.float64]) -> JointLimits:
        """The same, with positions just wide enough for `q_rad` (J,): from outside them an arm may move inward. These
        limits themselves where all of it is inside."""
        low, high = np.array(self.position_min_rad), np.array(self.position_max_rad)
        if bool(np.all((q_rad >= low) & (q_rad <= high))):
            return self
        return replace(
            self,
            position_min_rad=tuple(np.where(q_rad < low, q_rad - ROUNDING_RAD, low).tolist()),
            position_max_rad=tuple(np.where(q_rad > high, q_rad + ROUNDING_RAD, high).tolist()),
        )

    def widest_excess(self, envelope: JointLimits) -> str | None:
        """The first limit that is wider than in `envelope`, or None when all are as tight or tighter."""
        for joint in range(len(self.velocity_rad_s)):
            if self.position_min_rad[joint] < envelope.position_min_rad[joint]:
                return f"position_min_rad of joint {joint + 1}"
            for key in LIMIT_KEYS[1:]:
                if getattr(self, key)[joint] > getattr(envelope, key)[joint]:
                    return f"{key} of joint {joint + 1}"
        return None


@dataclass(frozen=True)
class VelocityEdges:
    """Velocity limits that fall towards the ends of every joint's range, beside the constant ones of `JointLimits`.

    At q a joint may move up at sqrt(slope (high - q)) - offset and down at sqrt(slope (q - low)) - offset, not below 0.
    """

    offset_rad_s: tuple[float, ...]
    slope_rad_s2: tuple[float, ...]
    low_rad: tuple[float, ...]
    high_rad: tuple[float, ...]

    def rows(self) -> tuple[tuple[float, ...], ...]:
        """The four rows in the order of `EDGE_KEYS`."""
        return tuple(getattr(self, key) for key in EDGE_KEYS)

    def up_rad_s(self, q_rad: NDArray[np.float64]) -> NDArray[np.float64]:
        """Fastest motion towards `high` at positions (..., J); `down_rad_s` likewise towards `low`."""
        return self._at(np.array(self.high_rad) - q_rad)

    def down_rad_s(self, q_rad: NDArray[np.float64]) -> NDArray[np.float64]:
        return self._at(q_rad - np.array(self.low_rad))

    def _at(self, room_rad: NDArray[np.float64]) -> NDArray[np.float64]:
        fastest = np.sqrt(np.maximum(0.0, np.array(self.slope_rad_s2) * room_rad))
        left: NDArray[np.float64] = np.maximum(0.0, fastest - np.array(self.offset_rad_s))
        return left


@dataclass(frozen=True)
class Travel:
    """Where every axis meets its mechanical stops, which a calibration measures and a recording's shares are of."""

    position_min_rad: tuple[float, ...]
    position_max_rad: tuple[float, ...]


@dataclass(frozen=True)
class GoalBounds:
    """How far the host may depart from the goals that a policy gives, per axis; more is a refusal.

    deviation_rad  the knots from the goals, root mean square over a chunk
    beyond_rad     a goal beyond a position limit of `operating`, where it is clamped; not asked of the gripper
    start_rad      the first goals from the measured pose
    """

    deviation_rad: tuple[float, ...]
    beyond_rad: tuple[float, ...]
    start_rad: tuple[float, ...]


@dataclass(frozen=True)
class ArmProfile:
    """One arm: its axes, its home pose, the envelope the firmware enforces and the limits it runs within.

    `following_rad` is how far a joint may be from its set-point before the firmware faults. `edges` is None for an arm
    whose velocity limits are the same everywhere. `units` has one of `UNITS` per axis; numbers called `_rad` hold the
    axis's own unit. `grippers` are the axes that hold things: being blocked is their purpose, and a policy that closes
    one further means "hold". `goals` is None for an arm that is to be driven by increments alone, `travel` where the
    limits are the ends of the travel. `frames` are for viewers: where its links stand. `parts` are the arms that this
    one is made of, by what it calls them, in the order of its axes; empty for a single arm.
    """

    name: str
    model: str
    embodiment: str
    joints: tuple[str, ...]
    home_rad: tuple[float, ...]
    limits: JointLimits
    operating: JointLimits
    following_rad: tuple[float, ...]
    edges: VelocityEdges | None
    units: tuple[str, ...]
    grippers: tuple[int, ...]
    goals: GoalBounds | None = None
    travel: Travel | None = None
    frames: tuple[Frame, ...] = ()
    parts: tuple[tuple[str, ArmProfile], ...] = ()

    @property
    def stops_rad(self) -> tuple[tuple[float, float], ...]:
        """The two ends of every axis's travel; where none is stated, its limits."""
        ends = self.travel or self.limits
        return tuple(zip(ends.position_min_rad, ends.position_max_rad))

    @property
    def dof(self) -> int:
        return len(self.joints)

    @property
    def own_joints(self) -> tuple[str, ...]:
        """The joints as each arm by itself calls them."""
        return tuple(joint for _, part in self.parts for joint in part.joints) or self.joints

    @property
    def hash32(self) -> int:
        """CRC-32 of what `HASHED` lists; the firmware reports the same number, so no two disagree unnoticed."""
        packed = self.name.encode() + b"\0" + bytes([self.dof])
        for row in (*self.limits.rows(), self.following_rad, *(self.edges.rows() if self.edges else ())):
            packed += struct.pack(f"<{self.dof}d", *row)
        if set(self.units) != {"rad"}:
            packed += ",".join(self.units).encode()
        return zlib.crc32(packed)
