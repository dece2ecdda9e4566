"""Mapping files: which columns of a dataset go to which slots of the policy, in which unit and how often.

A mapping is data. Those in `embodiments/` come with the project; others are given with `--mapping FILE`. The slots are
the paper's (arXiv:2606.26095): actions 37 (left arm 0:7, right arm 7:14, left hand 14:20, right hand 20:26, waist
26:29, joints and gripper 29:37), states 74 (end-effector pose and gripper 0:8, joints and gripper 8:16, whole body
16:74).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from export.training.lerobot import DatasetError, DatasetInfo
from firmware_bridge.reading import Between, Name, Reader, Sized

ACTION_SLOTS, STATE_SLOTS = 37, 74
SHIPPED = Path(__file__).parent / "embodiments"
UNITS = {"rad": 1.0, "deg": math.pi / 180, "m": 1.0, "mm": 1e-3, "1": 1.0, "percent": 1e-2}
"""Factor from each unit to the one the policy works in: rad, m, or a plain number."""
READING = "reading"
"""The unit of a group whose numbers are read as they fit the mapping's arm (`export.training.readings`)."""
OWN_MAPPING = Path("meta") / "vla_edge_mapping.toml"
"""In a dataset's folder, from `edge-record`: what its columns mean."""
MAPPING = Reader(DatasetError, "docs/howto/data.md shows a whole mapping")
Column: TypeAlias = Annotated[str, Sized(1, 128)]
Elements: TypeAlias = Annotated[tuple[Annotated[int, Between(0, 4095)] | Column, ...], Sized(1, 74)]
Factor: TypeAlias = Annotated[float, Between(-1e6, 1e6)]
Factors: TypeAlias = Factor | Annotated[tuple[Factor, ...], Sized(1, 74)]
KINDS = ("state", "position", "increment", "rate", "hold")
"""What an action column holds, and what becomes of it over the frames of one policy step:

- position: a commanded position; the step's action is its change, from the command before the step to the last in it
- increment: a change per frame (joint increments, end-effector deltas); they add up
- rate: a change per second; multiplied by the frame's length, then added up
- hold: a command that counts as it stands, such as a gripper's; the last in the step
"""


@dataclass(frozen=True)
class Group:
    """Some elements of one column and their slots; `value * scale + offset` is in the policy's unit.

    `before` names the state elements that an episode's first commanded positions start from; without it, they start
    from themselves.
    """

    column: str
    elements: tuple[int | str, ...]
    slots: tuple[int, ...]
    kind: str
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    before: tuple[str, tuple[int | str, ...]] | None
    unit: str = ""

    def indices(self, info: DatasetInfo, file: Path) -> list[int]:
        """Where the elements stand in the dataset's column. Raises `DatasetError`."""
        return _indices(info, self.column, self.elements, file)

    def indices_before(self, info: DatasetInfo, file: Path) -> list[int]:
        """The same for `before`."""
        assert self.before is not None
        return _indices(info, *self.before, file)


@dataclass(frozen=True)
class EmbodimentMapping:
    """One embodiment: how its datasets become states and actions of policy steps of `step_s`.

    `arm` is the profile whose range and speed the values are held against, where there is one.
    """

    file: Path
    name: str
    robots: tuple[str, ...]
    step_s: float
    joints: tuple[str, ...]
    cameras: tuple[str, ...] | None
    states: tuple[Group, ...]
    actions: tuple[Group, ...]
    arm: str | None = None

    @property
    def reads(self) -> bool:
        """Whether the unit of its numbers is to be found."""
        return any(group.unit == READING for group in (*self.states, *self.actions))

    def names(self, info: DatasetInfo) -> bool:
        """Whether a dataset has every element that is given by name."""
        for group in (*self.states, *self.actions):
            known = info.features[group.column].names if group.column in info.features else ()
            if any(isinstance(element, str) and element not in known for element in group.elements):
                return False
        return True

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read."""
        groups = (*self.states, *self.actions)
        return tuple(dict.fromkeys([group.column for group in groups] + [g.before[0] for g in groups if g.before]))

    def stride(self, info: DatasetInfo) -> int:
        """Frames of the dataset per policy step. Raises `DatasetError` where that is no whole number."""
        exact = self.step_s * info.fps
        if round(exact) < 1 or abs(exact - round(exact)) > 0.02 * exact:
            raise DatasetError(
                f"{info.file}: {info.fps:g} fps does not go into policy steps of {self.step_s * 1e3:g} ms "
                f"({exact:.2f} frames each); {self.file} may name another step_ms"
            )
        return round(exact)


def _indices(info: DatasetInfo, column: str, elements: tuple[int | str, ...], file: Path) -> list[int]:
    feature = info.feature(column, str(file))
    width = math.prod(feature.shape)
    found = []
    for element in elements:
        if isinstance(element, str) and element not in feature.names:
            raise DatasetError(f"{info.file}: {column} has no element '{element}', which {file} takes: {feature.names}")
        index = feature.names.index(element) if isinstance(element, str) else element
        if not 0 <= index < width:
            raise DatasetError(f"{info.file}: {column} has {width} elements, and {file} takes number {index}")
        found.append(index)
    return found


def read_mapping(file: Path) -> EmbodimentMapping:
    """Reads one mapping file. Raises `DatasetError` with the file and what is wrong."""
    plain = MAPPING.into(_Mapping, MAPPING.toml(file), file)
    try:
        return _mapping(file, plain)
    except ValueError as error:
        raise MAPPING.refuse(file, str(error)) from None


@cache
def shipped_mappings() -> tuple[EmbodimentMapping, ...]:
    """The mappings that come with the project."""
    return tuple(read_mapping(file) for file in sorted(SHIPPED.glob("*.toml")))


def choose_mapping(info: DatasetInfo, given: Sequence[EmbodimentMapping]) -> EmbodimentMapping:
    """The mapping for a dataset's robot: a given one before the dataset's own before a shipped one, one whose elements
    the dataset has before others; a single given one fits any robot.

    Raises `DatasetError`, naming the robots that are known.
    """
    own = info.folder / OWN_MAPPING
    known = (*given, *([read_mapping(own)] if own.is_file() else []), *shipped_mappings())
    of_robot = [mapping for mapping in known if info.robot in mapping.robots]
    for mapping in of_robot:
        if mapping.names(info):
            return mapping
    if of_robot:
        return of_robot[0]
    if len(given) == 1:
        return given[0]
    robots = ", ".join(sorted({robot for mapping in known for robot in mapping.robots}))
    raise DatasetError(
        f"{info.file}: no mapping for robot_type {info.robot!r}; write one and give it with --mapping FILE "
        f"(docs/howto/data.md), known are {robots}"
    )


@dataclass(frozen=True)
class _Head:
    """The table [embodiment]."""

    name: Name
    robots: Annotated[tuple[Name, ...], Sized(1, 64)]
    step_ms: Annotated[float, Between(1, 10_000)]
    joints: Annotated[tuple[Name, ...], Sized(1, ACTION_SLOTS)]
    cameras: Annotated[tuple[Column, ...], Sized(0, 16)] | None = None
    arm: Name | None = None


@dataclass(frozen=True)
class _Before:
    column: Column
    elements: Elements


@dataclass(frozen=True)
class _State:
    """A table [[state]]."""

    column: Column
    slots: Annotated[tuple[Annotated[int, Between(0, STATE_SLOTS - 1)], ...], Sized(1, STATE_SLOTS)]
    unit: Literal["rad", "deg", "m", "mm", "1", "percent", "reading"]
    elements: Elements | None = None
    scale: Factors = 1.0
    offset: Factors = 0.0


@dataclass(frozen=True)
class _Action:
    """A table [[action]]."""

    column: Column
    slots: Annotated[tuple[Annotated[int, Between(0, ACTION_SLOTS - 1)], ...], Sized(1, ACTION_SLOTS)]
    unit: Literal["rad", "deg", "m", "mm", "1", "percent", "reading"]
    kind: Literal["position", "increment", "rate", "hold"] = "position"
    elements: Elements | None = None
    scale: Factors = 1.0
    offset: Factors = 0.0
    before: _Before | None = None


@dataclass(frozen=True)
class _Mapping:
    """A whole file."""

    embodiment: _Head
    state: Annotated[tuple[_State, ...], Sized(1, STATE_SLOTS)]
    action: Annotated[tuple[_Action, ...], Sized(1, ACTION_SLOTS)]


def _mapping(file: Path, plain: _Mapping) -> EmbodimentMapping:
    head = plain.embodiment
    mapping = EmbodimentMapping(
        file=file,
        name=head.name,
        robots=head.robots,
        step_s=head.step_ms / 1e3,
        joints=head.joints,
        cameras=head.cameras,
        states=tuple(map(_group, plain.state)),
        actions=tuple(map(_group, plain.action)),
        arm=head.arm,
    )
    for what, groups in (("state", mapping.states), ("action", mapping.actions)):
        slots = [slot for group in groups for slot in group.slots]
        if len(set(slots)) != len(slots):
            raise ValueError(f"{what} slots {slots}: each slot is filled once")
    if len(mapping.joints) != sum(len(group.slots) for group in mapping.actions):
        raise ValueError("joints must name every action slot, in the order of the action groups")
    if mapping.reads and mapping.arm is None:
        raise ValueError("a unit is read by what fits the arm, and the mapping names no arm")
    return mapping


def _group(plain: _State | _Action) -> Group:
    count = len(plain.slots)
    elements = plain.elements if plain.elements is not None else tuple(range(count))
    scale, offset = _each(plain.scale, count), _each(plain.offset, count)
    kind, before = (plain.kind, plain.before) if isinstance(plain, _Action) else ("state", None)
    if before is not None and kind != "position":
        raise ValueError(f"{plain.column}: only positions start from where they were before")
    if len(elements) != count or (before is not None and len(before.elements) != count):
        raise ValueError(f"{plain.column}: {len(elements)} elements for {count} slots")
    if 0.0 in scale:
        raise ValueError(f"{plain.column}: no scale may be 0")
    factor = UNITS.get(plain.unit, 1.0)
    return Group(
        column=plain.column,
        elements=elements,
        slots=plain.slots,
        kind=kind,
        scale=tuple(value * factor for value in scale),
        offset=tuple(value * factor for value in offset),
        before=(before.column, before.elements) if before is not None else None,
        unit=plain.unit,
    )


def _each(value: Factors, count: int) -> tuple[float, ...]:
    values = value if isinstance(value, tuple) else (value,) * count
    if len(values) != count:
        raise ValueError(f"{len(values)} factors for {count} slots")
    return values
