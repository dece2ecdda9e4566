"""Reads an arm's TOML profile and checks it; a number that is missing or inverted never reaches the robot."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np

from edge.arms.frames import Frame, Frames
from edge.arms.profile import (
    EDGE_KEYS,
    GOAL_KEYS,
    LIMIT_KEYS,
    UNITS,
    ArmProfile,
    GoalBounds,
    JointLimits,
    Travel,
    VelocityEdges,
)
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
PROFILE_FOLDER = Path(__file__).parent
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
ARMS = "arms"
"""The table of an arm that is made of others: `SIDE = "PROFILE"`."""
PLAIN = ("format", "name", "model", "embodiment", "joints", "units", "gripper")
"""What stands before the first table."""
MOST = {"acceleration_rad_s2": 2e6, "jerk_rad_s3": 2e6}
MOST_ELSEWHERE = 2e3
"""What the wire's whole numbers hold, in rad and m; acceleration and jerk go in thousandths there."""
Table = TypeVar("Table")


class ProfileError(InputError):
    """An arm profile that cannot be used; the message names the file, the line and the fix."""


def available_arms() -> list[str]:
    """Names of the profiles that ship with the package."""
    return sorted(path.stem for path in PROFILE_FOLDER.glob("*.toml"))


def load_arm(name_or_path: str) -> ArmProfile:
    """Loads a shipped profile by name, or any profile by path. Raises `ProfileError`."""
    return _Reader(_profile_file(name_or_path)).profile()


def _profile_file(name_or_path: str) -> Path:
    path = Path(name_or_path) if name_or_path.endswith(".toml") else PROFILE_FOLDER / f"{name_or_path}.toml"
    if not path.is_file():
        raise ProfileError(
            f"unknown arm '{name_or_path}'; choose one of {', '.join(available_arms())}, or give a .toml file"
        )
    return path


def side_by_side(tables: list[Table]) -> Table:
    """One table of rows from those of several arms, axis behind axis."""
    first: Any = tables[0]
    rows = {
        field.name: tuple(value for table in tables for value in getattr(table, field.name)) for field in fields(first)
    }
    found: Table = replace(first, **rows)
    return found


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
        return self.joined() if ARMS in self.document else self.single()

    def single(self) -> ArmProfile:
        """An arm with numbers of its own."""
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
            grippers=self.grippers(joints),
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

    def joined(self) -> ArmProfile:
        """An arm that is made of others: their numbers, side by side, and their links each from a base of its own."""
        for key in self.document:
            if key not in ("format", "name", "model", "embodiment", ARMS):
                raise self.refuse(key, f"stands in the profiles of the arms of [{ARMS}]; leave it out here")
        named = self.typed(Annotated[dict[Name, Name], Sized(2, MAX_JOINTS)], ARMS)
        for side in named:
            if not re.fullmatch("[a-z][a-z0-9]*", side):
                raise self.refuse(side, "must be a word of small letters, as left", ARMS)
        readers = {side: _Reader(_profile_file(name)) for side, name in named.items()}
        for side, reader in readers.items():
            if ARMS in reader.document:
                raise self.refuse(side, f"is '{named[side]}', which is itself made of others", ARMS)
        arms = {side: reader.profile() for side, reader in readers.items()}
        parts = list(arms.values())
        dof = sum(part.dof for part in parts)
        if dof > MAX_JOINTS:
            raise self.refuse(ARMS, f"have {dof} axes together; at most {MAX_JOINTS} are possible")
        first = [sum(part.dof for part in parts[:index]) for index in range(len(parts))]
        edges = [part.edges for part in parts if part.edges is not None]
        goals = [part.goals for part in parts if part.goals is not None]
        if 0 < len(edges) < len(parts):
            raise self.refuse(ARMS, "have [velocity_edges] in some of their profiles; all need them, or none")
        ends = [Travel(*map(tuple, zip(*part.stops_rad))) for part in parts]
        return ArmProfile(
            name=self.typed(Name, "name"),
            model=self.typed(Annotated[str, Sized(1, 120)], "model"),
            embodiment=self.typed(Name, "embodiment"),
            joints=tuple(f"{side}_{joint}" for side, part in arms.items() for joint in part.joints),
            home_rad=tuple(q for part in parts for q in part.home_rad),
            limits=side_by_side([part.limits for part in parts]),
            operating=side_by_side([part.operating for part in parts]),
            following_rad=tuple(most for part in parts for most in part.following_rad),
            edges=side_by_side(edges) if edges else None,
            units=tuple(unit for part in parts for unit in part.units),
            grippers=tuple(at + axis for at, part in zip(first, parts) for axis in part.grippers),
            goals=side_by_side(goals) if len(goals) == len(parts) else None,
            travel=side_by_side(ends) if any(part.travel for part in parts) else None,
            frames=tuple(link.called(side) for side, part in arms.items() for link in part.frames),
            parts=tuple(arms.items()),
        )

    def units(self, dof: int) -> tuple[str, ...]:
        units = self.document.get("units", ["rad"] * dof)
        if not isinstance(units, list) or len(units) != dof or any(unit not in UNITS for unit in units):
            raise self.refuse("units", f"must name one of {', '.join(UNITS)} for each of the {dof} joints")
        return tuple(units)

    def grippers(self, joints: list[str]) -> tuple[int, ...]:
        if "gripper" not in self.document:
            return ()
        name = self.typed(Name, "gripper")
        if name not in joints:
            raise self.refuse("gripper", f"names '{name}', which is none of the joints")
        return (joints.index(name),)

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
