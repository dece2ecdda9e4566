"""Hypothesis strategies for files that nobody meant to write: half of them valid with one mutation, half anything."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st

NASTY: tuple[Any, ...] = (
    *(None, True, False, 0, -1, -3, 15.5, 10**9, 10**18, 2**63, 10**30, 1e-300, 1e30, 1e308),
    *(
        float("nan"),
        float("inf"),
        float("-inf"),
        "",
        "15",
        "abcdefg",
        "x" * 5000,
        "a\x1b[2Jb\n\x00",
        "../../etc/passwd",
    ),
    *("{foo}", "{chunk_index:>20000000000}", "NaN", "\ud800", [], {}, [[]], {"": {}}, [0] * 5000, {"a": [{"b": None}]}),
)
DEEP = ("[" * 100_000, '{"a":' * 50_000, "[" * 40 + "]" * 40)
PLAIN = st.recursive(
    st.sampled_from(NASTY) | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)


def half(valid: st.SearchStrategy[Any], *others: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Half of the one, half of all the others."""
    return st.booleans().flatmap(lambda first: valid if first else st.one_of(*others))


def places(document: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a document."""
    found, waiting = [], [document]
    while waiting:
        inside = waiting.pop()
        keys = list(inside) if isinstance(inside, dict) else range(len(inside)) if isinstance(inside, list) else ()
        for key in keys:
            found.append((inside, key))
            waiting.append(inside[key])
    return found


@st.composite
def mutated(draw: st.DrawFn, valid: Any) -> Any:
    """A copy of a document with one of its values replaced, removed, added to, scaled or exchanged."""
    document = copy.deepcopy(valid)
    known = places(document)
    inside, key = known[draw(st.integers(0, len(known) - 1))]
    how = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add", "scale", "exchange", "any"]))
    old = inside[key]
    if how == "replace":
        inside[key] = draw(st.sampled_from(NASTY))
    elif how == "remove":
        del inside[key]
    elif how == "add" and isinstance(inside, dict):
        inside[draw(st.text(max_size=8))] = draw(st.sampled_from(NASTY))
    elif how == "add":
        inside.insert(key, old)
    elif how == "scale" and type(old) in (int, float):
        inside[key] = old * draw(st.sampled_from([-1, 0, 2, 10, 0.5, 1e6, 1e-9]))
    elif how == "exchange":
        other, where = known[draw(st.integers(0, len(known) - 1))]
        inside[key] = copy.deepcopy(other[where])
    else:
        inside[key] = draw(PLAIN)
    return document


def spoiled(valid: bytes) -> st.SearchStrategy[bytes]:
    """The bytes of a file, cut short, with some of them changed, repeated or put in."""

    def change(where: float, what: bytes, how: str) -> bytes:
        at = int(where * len(valid))
        if how == "cut":
            return valid[:at]
        if how == "over":
            return valid[:at] + what + valid[at + len(what) :]
        if how == "in":
            return valid[:at] + what + valid[at:]
        return valid[:at] + valid[at // 2 : at] + valid[at:]

    return st.builds(
        change,
        st.floats(0, 1),
        st.binary(min_size=1, max_size=8),
        st.sampled_from(["cut", "over", "over", "in", "twice"]),
    )


def as_json(document: Any) -> bytes:
    """As a careless writer writes it: NaN, and what UTF-8 has no bytes for, among the rest."""
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")


def json_files(valid: Any) -> st.SearchStrategy[bytes]:
    """Of a valid document: half with one mutation, half anything at all."""
    anything = st.one_of(
        PLAIN.map(as_json),
        st.sampled_from(DEEP).map(str.encode),
        st.binary(max_size=200),
        spoiled(as_json(valid)),
    )
    return half(mutated(valid).map(as_json), anything)


TOML_VALUES = (
    *("nan", "inf", "-1", "0", "1e30", "99999999999999999999", '""', '"\\u001b[2J"', "true", "[]", "{}", "[1]", '"x"'),
    *("1979-05-27", "[[1.0]]", "[" * 900, "{a=" * 300, "a." * 900, "'" + "x" * 1900 + "'", "[nan, inf]", '["a", "a"]'),
)


def toml_files(valid: str) -> st.SearchStrategy[bytes]:
    """Likewise, by its lines."""
    lines = valid.splitlines()
    settings = [index for index, line in enumerate(lines) if "=" in line and not line.startswith("#")]

    def change(index: int, how: str, value: str, number: str) -> bytes:
        line, name = lines[index], lines[index].partition("=")[0]
        parts = line.split(",")
        parts[len(value) % len(parts)] = number
        new = {
            "value": [f"{name}= {value}"],
            "number": [",".join(parts)],
            "remove": [],
            "twice": [line, line],
            "name": [line.replace(name, name.strip() + "_ ", 1)],
            "table": [f"[{name.strip()}]", line],
            "rest": [value],
        }[how]
        return "\n".join([*lines[:index], *new, *lines[index + 1 :]]).encode()

    how = st.sampled_from(["value", "value", "number", "number", "remove", "twice", "name", "table", "rest"])
    numbers = st.sampled_from(["nan", "inf", "-9.0", "0.0", "1e30", '"2"', "true", "1" * 400, "2.5"])
    key = st.sampled_from(["format", "name", "joints", "limits"])
    return half(
        st.builds(change, st.sampled_from(settings), how, st.sampled_from(TOML_VALUES), numbers),
        spoiled(valid.encode()),
        st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.sampled_from(["a." * 30_000 + "b = 1", "a = " + "[" * 60_000, "\x00", "[a]\n" * 9000]).map(str.encode),
        st.builds("{} = {}\n".format, key, st.sampled_from(TOML_VALUES)).map(str.encode),
    )
