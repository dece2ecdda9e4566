"""Reads an arm's TOML profile and checks it; a number that is missing or inverted never reaches the robot."""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from edge.arms.frames import Frame, Frames
from edge.errors import InputError
from firmware_bridge.codes import MAX_JOINTS
from firmware_bridge.reading import (
    MOST_MESSAGE,
    Between,
    Name,
    ReadError,
    Sized,
    one_line,
    parse_toml,
    read_bytes,
    shown,
    typed,
)

PROFILE_FORMAT = 1
EDGE_ROUNDING_RAD_S = 1e-3
"""A maker's rectangle of positions and velocities is rounded to fewer digits than the formula it comes from."""
ROUNDING_RAD = 1e-5
"""A curve through whole microradians may stray by this much."""
PROFILE_FOLDER = Path(__file__).parent
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
TABLES = {
    "home": ("position_rad",),
    "travel": LIMIT_KEYS[:2],
    "limits": LIMIT_KEYS,
    "operating": LIMIT_KEYS,
    "following": ("limit_rad",),
    "velocity_edges": EDGE_KEYS,
    "goals": GOAL_KEYS,
    "frames": ("links",),
}
PLAIN = ("format", "name", "model", "embodiment", "joints", "units", "gripper")
"""What stands before the first table."""
MOST = {"acceleration_rad_s2": 2e6, "jerk_rad_s3": 2e6}
MOST_ELSEWHERE = 2e3
"""What the wire's whole numbers hold, in rad and m; acceleration and jerk go in thousandths there."""
HASHED = (
    ("name", "ASCII, and a zero byte"),
    ("joints", "how many, one byte"),
    *((f"limits.{key}", "doubles") for key in LIMIT_KEYS),
    ("following.limit_rad", "doubles"),
    *((f"velocity_edges.{key}", "doubles; nothing without this table") for key in EDGE_KEYS),
    ("units", "ASCII, a comma between two; nothing when all are rad"),
)
"""What `ArmProfile.hash32` covers, in order, by the names of the TOML file: a table of PROTOCOL.md."""


class ProfileError(InputError):
    """An arm profile that cannot be used; the message names the file, the line and the fix."""


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
    axis's own unit. `gripper` is the index of the axis that holds things: being blocked is its purpose, and a policy
    that closes it further means "hold". `goals` is None for an arm that is to be driven by increments alone, `travel`
    where the limits are the ends of the travel. `frames` are for viewers: where its links stand.
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
    gripper: int | None
    goals: GoalBounds | None = None
    travel: Travel | None = None
    frames: tuple[Frame, ...] = ()

    @property
    def stops_rad(self) -> tuple[tuple[float, float], ...]:
        """The two ends of every axis's travel; where none is stated, its limits."""
        ends = self.travel or self.limits
        return tuple(zip(ends.position_min_rad, ends.position_max_rad))

    @property
    def dof(self) -> int:
        return len(self.joints)

    @property
    def hash32(self) -> int:
        """CRC-32 of what `HASHED` lists; the firmware reports the same number, so no two disagree unnoticed."""
        packed = self.name.encode() + b"\0" + bytes([self.dof])
        for row in (*self.limits.rows(), self.following_rad, *(self.edges.rows() if self.edges else ())):
            packed += struct.pack(f"<{self.dof}d", *row)
        if set(self.units) != {"rad"}:
            packed += ",".join(self.units).encode()
        return zlib.crc32(packed)


def available_arms() -> list[str]:
    """Names of the profiles that ship with the package."""
    return sorted(path.stem for path in PROFILE_FOLDER.glob("*.toml"))


def load_arm(name_or_path: str) -> ArmProfile:
    """Loads a shipped profile by name, or any profile by path. Raises `ProfileError`."""
    path = Path(name_or_path) if name_or_path.endswith(".toml") else PROFILE_FOLDER / f"{name_or_path}.toml"
    if not path.is_file():
        raise ProfileError(
            f"unknown arm '{name_or_path}'; choose one of {', '.join(available_arms())}, or give a .toml file"
        )
    return _Reader(path).profile()


class _Reader:
    """Turns one TOML document into a profile; each refusal names the line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            data = read_bytes(path)
            self.document = parse_toml(data)
        except ReadError as error:
            raise ProfileError(one_line(f"{path}: {error}", MOST_MESSAGE)) from None
        self.text = data.decode("utf-8-sig")

    def profile(self) -> ArmProfile:
        if self.document.get("format") != PROFILE_FORMAT:
            raise self.refuse("format", f"is {shown(self.document.get('format'))}; this version reads {PROFILE_FORMAT}")
        self.refuse_unknown()
        joints = list(self.typed(Annotated[tuple[Name, ...], Sized(1, MAX_JOINTS)], "joints"))
        if len(set(joints)) != len(joints):
            raise self.refuse("joints", "names one joint twice")
        limits = self.limits("limits", len(joints))
        operating = self.limits("operating", len(joints)) if "operating" in self.document else limits
        excess = operating.widest_excess(limits)
        if excess:
            raise self.refuse(excess.split()[0], f"is wider than in [limits] ({excess})", "operating")
        home = self.row("home", "position_rad", len(joints))
        for joint, q in enumerate(home):
            if not operating.position_min_rad[joint] <= q <= operating.position_max_rad[joint]:
                raise self.refuse("position_rad", f"puts joint {joint + 1} outside its limits", "home")
        return ArmProfile(
            name=self.typed(Name, "name"),
            model=self.typed(Annotated[str, Sized(1, 120)], "model"),
            embodiment=self.typed(Name, "embodiment"),
            joints=tuple(joints),
            home_rad=home,
            limits=limits,
            operating=operating,
            following_rad=self.following(len(joints)),
            edges=self.edges(operating) if "velocity_edges" in self.document else None,
            units=self.units(len(joints)),
            gripper=self.gripper(joints),
            goals=self.goals(len(joints)) if "goals" in self.document else None,
            travel=self.travel(limits) if "travel" in self.document else None,
            frames=self.frames(joints) if "frames" in self.document else (),
        )

    def frames(self, joints: list[str]) -> tuple[Frame, ...]:
        self.source("frames")
        links: tuple[Frame, ...] = self.typed(Frames, "links", "frames")
        for link in links:
            if link.joint and link.joint not in joints:
                raise self.refuse("links", f"has '{link.child}' moved by '{link.joint}', which is no joint", "frames")
        return links

    def units(self, dof: int) -> tuple[str, ...]:
        units = self.document.get("units", ["rad"] * dof)
        if not isinstance(units, list) or len(units) != dof or any(unit not in UNITS for unit in units):
            raise self.refuse("units", f"must name one of {', '.join(UNITS)} for each of the {dof} joints")
        return tuple(units)

    def gripper(self, joints: list[str]) -> int | None:
        if "gripper" not in self.document:
            return None
        name = self.typed(Name, "gripper")
        if name not in joints:
            raise self.refuse("gripper", f"names '{name}', which is none of the joints")
        return joints.index(name)

    def following(self, dof: int) -> tuple[float, ...]:
        return self.positive("following", "limit_rad", dof)

    def goals(self, dof: int) -> GoalBounds:
        return GoalBounds(**{key: self.positive("goals", key, dof) for key in GOAL_KEYS})

    def travel(self, limits: JointLimits) -> Travel:
        """The stops, which lie within the limits: an arm that rests on one is to be reported, not refused."""
        low, high = (self.row("travel", key, len(limits.velocity_rad_s)) for key in LIMIT_KEYS[:2])
        for joint, ends in enumerate(zip(low, high)):
            inner, outer = ends[0] < ends[1], limits.position_min_rad[joint] <= ends[0]
            if not (inner and outer and ends[1] <= limits.position_max_rad[joint]):
                raise self.refuse(LIMIT_KEYS[0], f"of joint {joint + 1} is no range within [limits]", "travel")
        return Travel(low, high)

    def positive(self, table: str, key: str, dof: int) -> tuple[float, ...]:
        values = self.row(table, key, dof)
        for joint, value in enumerate(values):
            if not value > 0:
                raise self.refuse(key, f"is not positive for joint {joint + 1}", table)
        return values

    def edges(self, operating: JointLimits) -> VelocityEdges:
        """The velocity limits near the ends of the range; a run's constant limits must lie within them."""
        dof = len(operating.velocity_rad_s)
        table = "velocity_edges"
        edges = VelocityEdges(**{key: self.row(table, key, dof) for key in EDGE_KEYS})
        up = edges.up_rad_s(np.array(operating.position_max_rad))
        down = edges.down_rad_s(np.array(operating.position_min_rad))
        for joint, fastest in enumerate(operating.velocity_rad_s):
            if not (edges.offset_rad_s[joint] >= 0 and edges.slope_rad_s2[joint] > 0):
                raise self.refuse(
                    "slope_rad_s2", f"is not positive for joint {joint + 1}, or its offset negative", table
                )
            if fastest > min(up[joint], down[joint]) + EDGE_ROUNDING_RAD_S:
                allowed = f"{min(up[joint], down[joint]):.4f} rad/s at the end of its range"
                raise self.refuse("velocity_rad_s", f"of joint {joint + 1} is above the {allowed}", "operating")
        return edges

    def limits(self, table: str, dof: int) -> JointLimits:
        rows = {key: self.row(table, key, dof) for key in LIMIT_KEYS}
        for joint in range(dof):
            if not rows["position_min_rad"][joint] < rows["position_max_rad"][joint]:
                raise self.refuse("position_min_rad", f"is not below position_max_rad for joint {joint + 1}", table)
            for key in LIMIT_KEYS[2:]:
                if not rows[key][joint] > 0:
                    raise self.refuse(key, f"is not positive for joint {joint + 1}", table)
        return JointLimits(**rows)

    def row(self, table: str, key: str, dof: int) -> tuple[float, ...]:
        self.source(table)
        most = MOST.get(key, MOST_ELSEWHERE)
        number = Annotated[float, Between(-most, most)]
        values: tuple[float, ...] = self.typed(Annotated[tuple[number, ...], Sized(dof, dof)], key, table)
        return values

    def source(self, table: str) -> None:
        section = self.document.get(table)
        if not isinstance(section, dict) or not isinstance(section.get("source"), str):
            raise self.refuse("source", "is missing: every table of numbers names where they come from", table)

    def typed(self, kind: Any, key: str, table: str = "") -> Any:
        """An entry as `kind`; see `firmware_bridge.reading.typed`."""
        section = self.document[table] if table else self.document
        if key not in section:
            raise self.refuse(key, "is missing", table)
        try:
            return typed(kind, section[key], key)
        except ReadError as error:
            raise self.refuse(key, str(error).removeprefix(key).lstrip(), table) from None

    def refuse_unknown(self) -> None:
        """A name that is written wrongly must not leave the arm with a limit less."""
        known = {"": (*PLAIN, *TABLES), **{table: ("source", *keys) for table, keys in TABLES.items()}}
        for table, names in known.items():
            section = self.document.get(table, {}) if table else self.document
            if not isinstance(section, dict):
                raise self.refuse(table, "must be a table")
            for key in section:
                if key not in names:
                    raise self.refuse(key, f"is unknown; it may have {', '.join(names)}", table)

    def refuse(self, key: str, problem: str, table: str = "") -> ProfileError:
        where, gap = f"[{table}] {key}" if table else key, "" if problem.startswith("[") else " "
        return ProfileError(one_line(f"{self.path}:{self.line_of(key, table)}: {where}{gap}{problem}", MOST_MESSAGE))

    def line_of(self, key: str, table: str) -> int:
        """The line of `key` inside `table`; of the table's header when the key is missing; else 1."""
        current, header = "", 1
        for number, line in enumerate(self.text.splitlines(), start=1):
            if match := re.match(r"\s*\[([^\]]+)\]", line):
                current = match.group(1).strip()
                header = number if current == table else header
            elif current == table and re.match(rf"\s*{re.escape(key)}\s*=", line):
                return number
        return header
