"""JSON of a folder, and the fields of its config: what a family implements, and every other one refused by name."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from export.families.base import CheckpointError
from firmware_bridge.reading import Reader

Fields = TypeVar("Fields")
OF_EVERY_POLICY = frozenset({"type", "input_features", "output_features", "normalization_mapping"})
"""Fields of the config that the folder's reader itself uses; normalisation is read from the processors."""
OF_TRAINING = frozenset(
    {
        *("device", "license", "pretrained_path", "pretrained_revision", "private", "push_to_hub", "repo_id", "tags"),
        *("use_amp", "use_peft"),
    }
)
"""Fields that say where and how a policy was trained, of all families. Mixed precision is a way of computing."""
TRAINING_PREFIXES = ("optimizer_", "scheduler_")


DOCUMENT = Reader(CheckpointError, "copy it again")
MOST_DOCUMENT_BYTES = 64 << 20
"""A tokenizer's vocabulary is the largest of them."""


def read_document(file: Path) -> dict[str, Any]:
    """A JSON object. Raises `CheckpointError`."""
    if not file.exists():
        raise CheckpointError(f"{file}: missing; copy the whole folder")
    document = DOCUMENT.json(file, MOST_DOCUMENT_BYTES)
    if not isinstance(document, dict):
        raise CheckpointError(f"{file}: is no JSON object; copy it again")
    return document


def read_fields(
    file: Path,
    document: Mapping[str, Any],
    shape: type[Fields],
    fixed: Mapping[str, object] = types.MappingProxyType({}),
    ignored: Collection[str] = (),
) -> Fields:
    """The fields of a policy's config as a frozen dataclass of its family.

    shape    a field of it is implemented; absent from the file, it has the dataclass's default
    fixed    implemented with this one value alone; another is refused
    ignored  changes nothing of what a trained policy computes
    Every other field is refused by name, unless it is null. Raises `CheckpointError`.
    """
    hints = typing.get_type_hints(shape)
    kind, values = document.get("type"), {}
    for name, value in document.items():
        if name in hints:
            if not _fits(value, hints[name]):
                raise CheckpointError(f"{file}: '{name}' is {_show(value)}; {kind} takes {_words(hints[name])}")
            values[name] = tuple(value) if isinstance(value, list) else value
        elif name in fixed:
            if value != fixed[name]:
                wanted = _show(fixed[name])
                raise CheckpointError(
                    f"{file}: '{name}' is {_show(value)}, and only {wanted} is implemented for {kind}; "
                    f"train or export with {wanted}"
                )
        elif name in OF_EVERY_POLICY | OF_TRAINING or name in ignored or name.startswith(TRAINING_PREFIXES):
            continue
        elif value is not None:
            raise CheckpointError(
                f"{file}: '{name}' ({_show(value)}) is a field that is not implemented for {kind}; "
                "folders of LeRobot 0.4 to 0.6.1 are read"
            )
    needed = [field.name for field in dataclasses.fields(shape) if field.default is dataclasses.MISSING]  # type: ignore[arg-type]
    missing = [name for name in needed if name not in values]
    if missing:
        raise CheckpointError(f"{file}: no '{missing[0]}' there, which {kind} needs; copy the whole folder")
    return shape(**values)


def _fits(value: object, hint: Any) -> bool:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return any(_fits(value, one) for one in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return value in typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        elements = typing.get_args(hint)
        if not isinstance(value, list):
            return False
        if elements[-1] is Ellipsis:
            return all(_fits(one, elements[0]) for one in value)
        return len(value) == len(elements) and all(map(_fits, value, elements))
    if hint is type(None):
        return value is None
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _words(hint: Any) -> str:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return " or ".join(_words(one) for one in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(map(_show, typing.get_args(hint)))
    if typing.get_origin(hint) is tuple:
        elements = typing.get_args(hint)
        return f"a list of {_words(elements[0])}" if elements[-1] is Ellipsis else f"a list of {len(elements)} numbers"
    return {type(None): "null", float: "a number", int: "a whole number", bool: "true or false"}.get(hint, "a text")


def _show(value: object) -> str:
    return json.dumps(value, default=str)[:80]
