"""What is read from files of others is typed and bounded, and what is refused is one short line."""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.reading import (
    MOST_DEPTH,
    MOST_LINE,
    MOST_MESSAGE,
    MOST_TOML_BYTES,
    Between,
    Name,
    Reader,
    ReadError,
    Sized,
    one_line,
    parse_json,
    parse_toml,
    read_bytes,
    typed,
)


@dataclass(frozen=True)
class Inner:
    slots: Annotated[tuple[Annotated[int, Between(0, 73)], ...], Sized(1, 16)]
    size_px: tuple[int, int]

    def __post_init__(self) -> None:
        if len(set(self.slots)) != len(self.slots):
            raise ValueError("a slot is named twice")


@dataclass(frozen=True)
class Outer:
    name: Name
    step_s: Annotated[float, Between(1e-3, 10)]
    kind: Literal["goal", "increment"]
    inner: Inner
    notes: dict[str, str] = field(default_factory=dict)
    which: int | str | None = None
    passed: bool = False
    free: Any = None


SOUND: dict[str, Any] = {
    "name": "front",
    "step_s": 0.1,
    "kind": "goal",
    "inner": {"slots": [3, 4], "size_px": [96, 128]},
}


class Refused(Exception):
    pass


READER = Reader(Refused, "make another")


def changed(path: str, value: object) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(SOUND))
    inside, names = plain, path.split(".")
    for name in names[:-1]:
        inside = inside[name]
    inside[names[-1]] = value
    return plain


def test_a_sound_document_becomes_its_dataclass() -> None:
    made = typed(Outer, {**SOUND, "notes": {"a": "b"}, "which": "x", "free": [1, {}]})
    assert made == Outer("front", 0.1, "goal", Inner((3, 4), (96, 128)), {"a": "b"}, "x", False, [1, {}])
    assert typed(Outer, {**SOUND, "step_s": 1}).step_s == 1.0


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("name", "", "name must be text of 1 to 64 printable characters, not ''"),
        ("name", "n" * 5000, "name must be text of 1 to 64 printable characters, not 'nnn"),
        ("name", "a\x1b[2Jb", r"not 'a\x1b[2Jb'"),
        ("name", 3, "not 3"),
        ("step_s", 0, "step_s must be a number from 0.001 to 10, not 0"),
        ("step_s", "0.1", "not '0.1'"),
        ("step_s", math.inf, "not inf"),
        ("step_s", math.nan, "not nan"),
        ("step_s", True, "not true"),
        ("step_s", 10**400, "not one of more digits than any"),
        ("kind", "Goal", "kind must be one of goal, increment, not 'Goal'"),
        ("kind", [], "not a list of 0"),
        ("inner", [], "inner must be a table, not a list of 0"),
        ("inner.slots", [], "inner.slots must be a list of 1 to 16"),
        ("inner.slots", "34", "inner.slots must be a list of 1 to 16, not '34'"),
        ("inner.slots", [3, 74], "inner.slots[1] must be a whole number from 0 to 73, not 74"),
        ("inner.slots", [3, 4.0], "inner.slots[1] must be a whole number from 0 to 73, not 4.0"),
        ("inner.slots", [3, 3], "inner: a slot is named twice"),
        ("inner.size_px", [1, 2, 3], "inner.size_px must be a list of 2, not a list of 3"),
        ("inner.other", 1, "inner.other is unknown; it may have slots, size_px"),
        ("notes", {"a": 1}, "notes.a must be text"),
        ("notes", [["a", "b"]], "notes must be a table"),
        ("which", 1.5, "which must be text"),
        ("passed", 1, "passed must be true or false, not 1"),
    ],
)
def test_what_is_wrong_is_named(path: str, value: object, told: str) -> None:
    with pytest.raises(ReadError) as caught:
        typed(Outer, changed(path, value))
    assert told in str(caught.value)


@pytest.mark.parametrize("name", ["name", "step_s", "kind", "inner"])
def test_what_is_missing_is_named(name: str) -> None:
    with pytest.raises(ReadError, match=f"^{name} is missing$"):
        typed(Outer, {key: value for key, value in SOUND.items() if key != name})


def test_entries_without_a_field_are_left_out_where_that_is_allowed() -> None:
    plain = changed("inner.more", 5) | {"more": 1}
    assert typed(Outer, plain, extra=True) == typed(Outer, SOUND)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[" * 100_000, "nested deeper"),
        ('{"a":' * 100_000, "nested deeper"),
        ("[" * (MOST_DEPTH + 1) + "]" * (MOST_DEPTH + 1), "nested deeper"),
        ("[NaN]", "NaN, which is no finite number"),
        ("[-Infinity]", "-Infinity, which is no finite number"),
        ("[1e999]", "1e999, which is no finite number"),
        ("1" * 1_000_000, "a number of 1000000 digits"),
        ('{"a": 1, "a": 2}', "has 'a' twice in one table"),
        ("{", "is not JSON (Expecting property name enclosed in double quotes, line 1, column 2)"),
        (b"\xff\xfe", "is not text in UTF-8 (byte 0)"),
        ("", "is not JSON"),
    ],
)
def test_json_that_is_no_sound_document(text: str | bytes, told: str) -> None:
    with pytest.raises(ReadError) as caught:
        parse_json(text)
    assert told in str(caught.value)


def test_json_up_to_its_bounds_is_read() -> None:
    assert parse_json(b"\xef\xbb\xbf[1, -2.5e3, null]") == [1, -2500.0, None]
    assert parse_json("[" * MOST_DEPTH + "]" * MOST_DEPTH) is not None


@pytest.mark.parametrize(
    "text",
    [
        *("a." * 32_000 + "b = 1", "[" + "a." * 32_000 + "a]", ("a." * 900 + "b = 1\n") * 35),
        *("a = " + "[" * 60_000, "a = " + "{b = " * 12_000, "a = " + "[\n" * 30_000, "a = " + "1" * 60_000),
        *("'" * 60_000, "a = nan\nb = [", "\x00"),
    ],
)
def test_toml_that_is_no_sound_document_is_refused_at_once(text: str) -> None:
    began = time.process_time()
    with pytest.raises(ReadError):
        parse_toml(text[:MOST_TOML_BYTES])
    assert time.process_time() - began < 5


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.sampled_from(["", *SOUND, "inner.slots", "inner.size_px", "notes", "which", "free"]), PLAIN)
def test_whatever_stands_in_a_document_it_is_typed_or_refused(path: str, value: object) -> None:
    plain = changed(path, value) if path else value
    try:
        made = READER.into(Outer, plain, Path("f.json"))
    except Refused as refused:
        assert str(refused).isprintable() and len(str(refused)) <= MOST_MESSAGE
        return
    assert 0 < len(made.name) <= 64 and 1e-3 <= made.step_s <= 10 and made.kind in ("goal", "increment")
    assert type(made.step_s) is float and all(type(slot) is int and 0 <= slot <= 73 for slot in made.inner.slots)


@given(st.text(max_size=2000), st.integers(20, MOST_LINE))
def test_a_message_is_one_short_printable_line(text: str, most: int) -> None:
    line = one_line(text, most)
    assert line.isprintable() and len(line) <= most
    if text.isprintable() and len(text) <= most and text == " ".join(text.split()):
        assert line == text


def test_the_line_of_a_refusal_keeps_the_field_and_the_fix_however_long_the_path(tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        READER.into(Outer, changed("name", "x\n" * 9000), Path("/" + "folder/" * 100 + "f\x1b.json"))
    line = str(caught.value)
    assert "name must be text of 1 to 64" in line and line.endswith("; make another")
    assert line.isprintable() and len(line) <= MOST_MESSAGE


def test_only_regular_files_within_their_size_are_read(tmp_path: Path) -> None:
    pipe, big, pointer, good = (tmp_path / name for name in ("pipe", "big", "pointer", "good"))
    os.mkfifo(pipe)
    big.write_bytes(b" " * 101)
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")
    good.write_text("[1, 2]")
    for path, told in (
        (pipe, "not a regular file"),
        (tmp_path, "not a regular file"),
        (tmp_path / "none", "there is no such file"),
        (tmp_path / ("n" * 300), "cannot be read"),
        (tmp_path / "n\0", "no such file|cannot be read"),
        (Path("/dev/zero"), "not a regular file"),
        (big, "is larger than"),
        (pointer, "git lfs pull"),
    ):
        with pytest.raises(ReadError, match=told):
            read_bytes(path, 100)
    assert READER.json(good) == [1, 2]
    with pytest.raises(Refused, match=r"good: is not TOML .*; make another"):
        READER.toml(good)
