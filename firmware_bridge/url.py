"""URLs of drivers, `SCHEME:TARGET?NAME=VALUE&...`, read into frozen dataclasses of options."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints
from urllib.parse import parse_qsl

TARGET = "target"
"""The field that takes what stands between the scheme and the question mark."""


@dataclass(frozen=True)
class Url:
    """A URL in its parts."""

    scheme: str
    target: str
    options: dict[str, str]

    @staticmethod
    def split(text: str) -> Url:
        """Takes any text apart; without a colon the scheme is empty."""
        scheme, colon, rest = text.partition(":")
        target, _, query = rest.partition("?")
        return Url(scheme if colon else "", target, dict(parse_qsl(query, keep_blank_values=True)))


def option(
    default: Any = dataclasses.MISSING,
    *,
    least: float = 0,
    most: float = math.inf,
    name: str = "",
    read: Callable[[str], Any] | None = None,
) -> Any:
    """A field with a rule for its value in a URL.

    Numbers lie from `least` to `most`. `name` is the option's where it is not the field's own. `read` makes the value
    of a text, and raises `ValueError` with the rule that the text breaks.
    """
    rules = {"least": least, "most": most, "name": name, "read": read}
    return dataclasses.field(default=default, metadata=rules)


def options_of(kind: type) -> dict[str, dataclasses.Field[Any]]:
    """The options that a dataclass takes from a URL, by their names there."""
    fields = (field for field in dataclasses.fields(kind) if field.name != TARGET)
    return {field.metadata.get("name") or field.name: field for field in fields}


def read_options(url: Url, *kinds: type) -> list[Any]:
    """One instance of each dataclass, from the options that are its own.

    Raises `ValueError` for an option that none of them has, a value of the wrong type or outside its bounds, a missing
    target or one that is not wanted.
    """
    known = {name for kind in kinds for name in options_of(kind)}
    unknown = sorted(set(url.options) - known)
    if unknown:
        raise ValueError(f"unknown option {', '.join(unknown)}")
    if url.target and not any(field.name == TARGET for kind in kinds for field in dataclasses.fields(kind)):
        raise ValueError("nothing may stand after the colon")
    return [_read(url, kind) for kind in kinds]


def _read(url: Url, kind: type) -> Any:
    hints = get_type_hints(kind)
    given = {
        field.name: _value(name, url.options[name], hints[field.name], field)
        for name, field in options_of(kind).items()
        if name in url.options
    }
    target = next((field for field in dataclasses.fields(kind) if field.name == TARGET), None)
    if target is not None and url.target:
        given[TARGET] = _value(TARGET, url.target, hints[TARGET], target)
    elif target is not None and target.default is dataclasses.MISSING:
        raise ValueError("something must stand after the colon")
    return kind(**given)


def _value(name: str, text: str, hint: Any, field: dataclasses.Field[Any]) -> Any:
    """The value of an option of type `hint`: str, Path, int, float, bool (0 or 1), or one of some words."""
    rules = field.metadata
    if rules.get("read") is not None:
        try:
            return rules["read"](text)
        except ValueError as error:
            raise ValueError(f"{name}={text}: {error}") from None
    if get_origin(hint) is not Literal:
        hint = next((part for part in get_args(hint) if part is not type(None)), hint)
    if get_origin(hint) is Literal:
        if text not in get_args(hint):
            raise ValueError(f"{name} must be {' or '.join(get_args(hint))}, not '{text}'")
        return text
    if hint is bool:
        if text not in ("0", "1"):
            raise ValueError(f"{name} must be 0 or 1, not '{text}'")
        return text == "1"
    if hint in (int, float):
        return _number(name, text, hint, rules.get("least", 0), rules.get("most", math.inf))
    if not text:
        raise ValueError(f"{name} must not be empty")
    return Path(text) if hint is Path else text


def _number(name: str, text: str, kind: type[int] | type[float], least: float, most: float) -> int | float:
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not (least <= value <= most and math.isfinite(value)):
        what = "whole number" if kind is int else "number"
        raise ValueError(f"{name} must be a {what} from {least:g}" + (f" to {most:g}" if most < math.inf else ""))
    return value
