"""Mapping files: which columns of a dataset go to which slots of the policy, in which unit and how often.

A mapping is data. Those in `embodiments/` come with the project; others are given with `--mapping FILE`. The slots are
the paper's (arXiv:2606.26095): actions 37 (left arm 0:7, right arm 7:14, left hand 14:20, right hand 20:26, waist
26:29, joints and gripper 29:37), states 74 (end-effector pose and gripper 0:8, joints and gripper 8:16, whole body
16:74).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from export.training.lerobot import DatasetError, DatasetInfo

ACTION_SLOTS, STATE_SLOTS = 37, 74
SHIPPED = Path(__file__).parent / "embodiments"
UNITS = {"rad": 1.0, "deg": math.pi / 180, "m": 1.0, "mm": 1e-3, "1": 1.0, "percent": 1e-2}
"""Factor from each unit to the one the policy works in: rad, m, or a plain number."""
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

    def indices(self, info: DatasetInfo, file: Path) -> list[int]:
        """Where the elements stand in the dataset's column. Raises `DatasetError`."""
        return _indices(info, self.column, self.elements, file)

    def indices_before(self, info: DatasetInfo, file: Path) -> list[int]:
        """The same for `before`."""
        assert self.before is not None
        return _indices(info, *self.before, file)


@dataclass(frozen=True)
class EmbodimentMapping:
    """One embodiment: how its datasets become states and actions of policy steps of `step_s`."""

    file: Path
    name: str
    robots: tuple[str, ...]
    step_s: float
    joints: tuple[str, ...]
    cameras: tuple[str, ...] | None
    states: tuple[Group, ...]
    actions: tuple[Group, ...]

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
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
        return _mapping(file, document)
    except KeyError as error:
        raise DatasetError(f"{file}: no {error.args[0]!r}; docs/howto/data.md shows a whole mapping") from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DatasetError(f"{file}: not a mapping: {error}") from None


def shipped_mappings() -> tuple[EmbodimentMapping, ...]:
    """The mappings that come with the project."""
    return tuple(read_mapping(file) for file in sorted(SHIPPED.glob("*.toml")))


def choose_mapping(info: DatasetInfo, given: Sequence[EmbodimentMapping]) -> EmbodimentMapping:
    """The mapping for a dataset's robot: a given one before a shipped one; a single given one fits any robot.

    Raises `DatasetError`, naming the robots that are known.
    """
    known = (*given, *shipped_mappings())
    for mapping in known:
        if info.robot in mapping.robots:
            return mapping
    if len(given) == 1:
        return given[0]
    robots = ", ".join(sorted({robot for mapping in known for robot in mapping.robots}))
    raise DatasetError(
        f"{info.file}: no mapping for robot_type {info.robot!r}; write one and give it with --mapping FILE "
        f"(docs/howto/data.md), known are {robots}"
    )


def _mapping(file: Path, document: dict[str, Any]) -> EmbodimentMapping:
    head = dict(document["embodiment"])
    mapping = EmbodimentMapping(
        file=file,
        name=str(head.pop("name")),
        robots=tuple(map(str, head.pop("robots"))),
        step_s=float(head.pop("step_ms")) / 1e3,
        joints=tuple(map(str, head.pop("joints"))),
        cameras=tuple(map(str, head.pop("cameras"))) if "cameras" in head else None,
        states=tuple(_group(dict(plain), "state", STATE_SLOTS) for plain in document["state"]),
        actions=tuple(_group(dict(plain), "position", ACTION_SLOTS) for plain in document["action"]),
    )
    unknown = [*head, *(set(document) - {"embodiment", "state", "action"})]
    if unknown:
        raise ValueError(f"unknown: {', '.join(map(str, unknown))}")
    if not mapping.step_s > 0:
        raise ValueError("step_ms must be positive")
    for what, groups in (("state", mapping.states), ("action", mapping.actions)):
        slots = [slot for group in groups for slot in group.slots]
        if len(set(slots)) != len(slots) or not slots:
            raise ValueError(f"{what} slots {slots}: each slot is filled once, and at least one is")
    if len(mapping.joints) != sum(len(group.slots) for group in mapping.actions):
        raise ValueError("joints must name every action slot, in the order of the action groups")
    return mapping


def _group(plain: dict[str, Any], default_kind: str, slot_count: int) -> Group:
    column, slots = str(plain.pop("column")), tuple(map(int, plain.pop("slots")))
    elements = tuple(plain.pop("elements", range(len(slots))))
    kind = str(plain.pop("kind", default_kind))
    unit, count = str(plain.pop("unit")), len(slots)
    scale, offset = _each(plain.pop("scale", 1.0), count), _each(plain.pop("offset", 0.0), count)
    before = plain.pop("before", None)
    if plain:
        raise ValueError(f"unknown: {', '.join(plain)}")
    if unit not in UNITS:
        raise ValueError(f"unit '{unit}' of {column}; known are {', '.join(UNITS)}")
    if kind not in KINDS or (kind == "state") != (default_kind == "state"):
        raise ValueError(f"kind '{kind}' of {column}; an action's is one of {', '.join(KINDS[1:])}")
    if before is not None and kind != "position":
        raise ValueError(f"{column}: only positions start from where they were before")
    if len(elements) != count or not all(0 <= slot < slot_count for slot in slots):
        raise ValueError(f"{column}: {len(elements)} elements for slots {slots}; slots go from 0 to {slot_count - 1}")
    if not all(math.isfinite(value) for value in (*scale, *offset)) or 0.0 in scale:
        raise ValueError(f"{column}: scale and offset must be finite, and no scale 0")
    return Group(
        column=column,
        elements=elements,
        slots=slots,
        kind=kind,
        scale=tuple(value * UNITS[unit] for value in scale),
        offset=tuple(value * UNITS[unit] for value in offset),
        before=(str(before["column"]), tuple(before["elements"])) if before is not None else None,
    )


def _each(value: float | list[float], count: int) -> tuple[float, ...]:
    values = tuple(map(float, value)) if isinstance(value, list) else (float(value),) * count
    if len(values) != count:
        raise ValueError(f"{len(values)} factors for {count} slots")
    return values
