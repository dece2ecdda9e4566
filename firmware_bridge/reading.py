"""Files of others, read into frozen dataclasses: JSON and TOML, bounded in size, depth, range and length.

What a file may hold is said by the dataclass that it becomes: the types of its fields, and `Annotated` bounds beside
them. A value that is missing, unknown, of another type or outside its bounds is refused in one line that names the
file, the field, what is expected and the fix. Without a bound of its own a field has a safe one, so none is unbounded.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")
MOST_LINE, MOST_TOLD, MOST_RAISED = 300, 100, 1000
"""Printable characters of a message, with the name of the command before it; of what a library says in it; of any error
of ours."""
MOST_MESSAGE = 260
"""Printable characters of a message; the name of a command, and what was being done, come before it."""
MOST_NAME, MOST_FIX = 110, 90
"""Of them for the file and for what to do; the rest says what is wrong."""
MOST_BYTES = 4 << 20
MOST_TOML_BYTES = 64 << 10
MOST_TOML_LINE = 2000
"""A dotted name takes the parser a time that grows with the square of its length."""
MOST_DEPTH = 32
MOST_ENTRIES = 4 << 20
MOST_DIGITS = 40
"""Of a whole number: nanoseconds since 1970 have 19, and transformers writes 31 where it means "without a limit"."""
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
"""What stands in place of a file in a checkout without Git LFS."""


@dataclass(frozen=True)
class Between:
    """Bounds of a number, both allowed."""

    least: float
    most: float


@dataclass(frozen=True)
class Sized:
    """How many characters a text has, or how many entries a list or a table."""

    fewest: int
    most: int


ANY_NUMBER = Between(-1e12, 1e12)
ANY_SIZE = Sized(0, 4096)
ANY_TEXT = Sized(0, 256)
Name = Annotated[str, Sized(1, 64)]
"""Of a joint, a camera, an engine, a file."""


class ReadError(ValueError):
    """What is wrong with a value; says where in its file it stands, what is expected and what is there."""


def one_line(text: str, most: int = MOST_LINE) -> str:
    """The text in one line of at most so many printable characters; what is not printable is escaped.

    Of one that is too long both ends stay: the file at the beginning, the fix at the end.
    """
    if len(text) > 8 * most:
        text = f"{text[: 4 * most]} {text[-4 * most :]}"
    line = " ".join(text.split())
    if not line.isprintable():
        line = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in line)
    if len(line) <= most:
        return line
    tail = most // 3
    return f"{line[: most - tail - 5]} ... {line[-tail:]}"


class OneLine(Exception):
    """Its text is one line of at most 1000 printable characters, whatever a file, a device or a library has put in.

    A command prints 300 of them; long paths stay whole for whoever catches it.
    """

    def __init__(self, text: object = "") -> None:
        super().__init__(one_line(str(text), MOST_RAISED))


def told(error: object) -> str:
    """What another's exception says, for a message of ours: it may quote a whole file."""
    return one_line(str(error), MOST_TOLD)


def shown(value: Any) -> str:
    """A value in a few printable characters, for a message."""
    if isinstance(value, Mapping):
        return f"a table of {len(value)}"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    if isinstance(value, str):
        return f"'{one_line(value, 40)}'"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 10**MOST_DIGITS else "one of more digits than any"
    return f"a {type(value).__name__}"


def is_lfs_pointer(path: Path) -> bool:
    """Whether Git LFS has left its pointer where a file should be."""
    with path.open("rb") as file:
        return file.read(len(LFS_POINTER)) == LFS_POINTER


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """A regular file of at most so many bytes. Raises `ReadError`, which does not name the file."""
    try:
        if not path.is_file():
            raise ReadError("is not a regular file" if path.exists() else "there is no such file")
        with path.open("rb") as file:
            data = file.read(most + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, ReadError):
            raise
        reason = error.strerror if isinstance(error, OSError) else error
        raise ReadError(f"cannot be read ({reason})") from None
    if len(data) > most:
        raise ReadError(f"is larger than {most / 2**20:.3g} MB, which none of these is")
    if data.startswith(LFS_POINTER):
        raise ReadError("is a pointer of Git LFS, not the file itself: fetch it with git lfs pull")
    return data


def parse_json(data: bytes | str, finite: bool = True) -> Any:
    """A JSON document: UTF-8, no name twice, numbers finite unless all are allowed, at most `MOST_DEPTH` deep.

    Raises `ReadError`.
    """
    real = _real if finite else float
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
        plain = json.loads(text, object_pairs_hook=_table, parse_int=_whole, parse_float=real, parse_constant=real)
    except UnicodeDecodeError as error:
        raise ReadError(f"is not text in UTF-8 (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise ReadError(f"is not JSON ({error.msg}, line {error.lineno}, column {error.colno})") from None
    except RecursionError:
        raise ReadError(f"is nested deeper than {MOST_DEPTH}") from None
    check_depth(plain)
    return plain


def parse_toml(data: bytes | str) -> dict[str, Any]:
    """A TOML document, bounded likewise. Raises `ReadError`."""
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
        if max(map(len, text.split("\n"))) > MOST_TOML_LINE:
            raise ReadError(f"has a line of more than {MOST_TOML_LINE} characters")
        plain: dict[str, Any] = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise ReadError(f"is not text in UTF-8 (byte {error.start})") from None
    except ReadError:
        raise
    except ValueError as error:
        raise ReadError(f"is not TOML ({one_line(str(error), 120)})") from None
    except RecursionError:
        raise ReadError(f"is nested deeper than {MOST_DEPTH}") from None
    check_depth(plain)
    return plain


def check_depth(plain: Any) -> None:
    """Raises `ReadError` for lists and tables in each other deeper than `MOST_DEPTH`, or with too many entries.

    Where lists are shared, as in a pickle, a short document may have entries without end.
    """
    layer, entries = [plain], 1
    for _ in range(MOST_DEPTH):
        inner: list[Any] = []
        for one in layer:
            if isinstance(one, dict):
                inner += one.values()
            elif isinstance(one, (list, tuple)):
                inner += one
            if entries + len(inner) > MOST_ENTRIES:
                raise ReadError(f"has more than {MOST_ENTRIES} entries")
        if not inner:
            return
        layer, entries = inner, entries + len(inner)
    raise ReadError(f"is nested deeper than {MOST_DEPTH}")


def typed(kind: Any, plain: Any, where: str = "", extra: bool = False) -> Any:
    """A value as `kind`: a dataclass, a tuple, dict, `Literal`, number, text, bool, or one of several; None, Any.

    where  the value's place in its document, for messages
    extra  whether a table may have entries that its dataclass has no field for; they are left out

    Raises `ReadError`.
    """
    bounds: tuple[Any, ...] = ()
    if get_origin(kind) is Annotated:
        kind, *marks = get_args(kind)
        bounds = tuple(marks)
    origin = get_origin(kind)
    if kind is Any:
        return plain
    if origin in (Union, types.UnionType):
        return _one_of(get_args(kind), plain, where, extra)
    if origin is Literal:
        if plain not in get_args(kind) or type(plain) not in map(type, get_args(kind)):
            raise _unlike(where, f"one of {', '.join(map(str, get_args(kind)))}", plain)
        return plain
    if origin is tuple:
        return _tuple(get_args(kind), plain, where, _bound(bounds, Sized, ANY_SIZE), extra)
    if origin is dict:
        return _dict(get_args(kind), plain, where, _bound(bounds, Sized, ANY_SIZE), extra)
    if is_dataclass(kind):
        return _record(cast(type, kind), plain, where, extra)
    if kind in (int, float):
        return _number(kind, plain, where, _bound(bounds, Between, ANY_NUMBER))
    if kind is str:
        return _text(plain, where, _bound(bounds, Sized, ANY_TEXT))
    if kind is bool or kind is type(None):
        if type(plain) is not kind:
            raise _unlike(where, "true or false" if kind is bool else "null", plain)
        return plain
    raise TypeError(f"{where}: files hold nothing of type {kind}")


@dataclass(frozen=True)
class Reader:
    """Reads files of one kind; what it refuses is raised as `error`, in one line that ends with `fix`."""

    error: Callable[[str], Exception]
    fix: str

    def json(self, path: Path, most_bytes: int = MOST_BYTES) -> Any:
        """The document of a JSON file."""
        return self._guarded(path, lambda: parse_json(read_bytes(path, most_bytes)))

    def toml(self, path: Path, most_bytes: int = MOST_TOML_BYTES) -> dict[str, Any]:
        """The document of a TOML file."""
        plain: dict[str, Any] = self._guarded(path, lambda: parse_toml(read_bytes(path, most_bytes)))
        return plain

    def into(self, kind: type[T], plain: Any, path: Path, where: str = "", extra: bool = False) -> T:
        """A part of a file's document as `kind`; see `typed`."""
        made: T = self._guarded(path, lambda: typed(kind, plain, where, extra))
        return made

    def refuse(self, path: Path, problem: str) -> Exception:
        """The error that says of a file what is wrong with it."""
        fix, name = one_line(self.fix, MOST_FIX), one_line(str(path), MOST_NAME)
        left = MOST_MESSAGE - len(name) - len(fix) - 4
        return self.error(f"{name}: {one_line(problem, left)}; {fix}")

    def _guarded(self, path: Path, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except ReadError as error:
            raise self.refuse(path, str(error)) from None


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        names = sorted(name for name, _ in pairs)
        twice = next(one for one, other in itertools.pairwise(names) if one == other)
        raise ReadError(f"has {shown(twice)} twice in one table")
    return table


def _whole(digits: str) -> int:
    if len(digits.lstrip("-")) > MOST_DIGITS:
        raise ReadError(f"has a number of {len(digits)} digits")
    return int(digits)


def _real(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ReadError(f"has {one_line(text, 40)}, which is no finite number")
    return value


def _unlike(where: str, expected: str, found: Any) -> ReadError:
    return ReadError(f"{where or 'the document'} must be {expected}, not {shown(found)}")


def _bound(bounds: tuple[Any, ...], kind: type[T], usual: T) -> T:
    return next((one for one in bounds if isinstance(one, kind)), usual)


def _place(where: str, name: object) -> str:
    text = f"[{name}]" if isinstance(name, int) else one_line(str(name), 40)
    return f"{where}{text}" if isinstance(name, int) else f"{where}.{text}".lstrip(".")


def _number(kind: type, plain: Any, where: str, bounds: Between) -> float:
    whole = kind is int
    sound = type(plain) is int or (not whole and type(plain) is float and math.isfinite(plain))
    if not sound or not bounds.least <= plain <= bounds.most:
        what = "a whole number" if whole else "a number"
        raise _unlike(where, f"{what} from {bounds.least:g} to {bounds.most:g}", plain)
    return cast(float, kind(plain))


def _text(plain: Any, where: str, size: Sized) -> str:
    if not isinstance(plain, str) or not size.fewest <= len(plain) <= size.most or not plain.isprintable():
        raise _unlike(where, f"text of {_count(size)} printable characters", plain)
    return plain


def _count(size: Sized) -> str:
    return f"{size.fewest} to {size.most}" if size.fewest != size.most else f"{size.most}"


def _tuple(kinds: tuple[Any, ...], plain: Any, where: str, size: Sized, extra: bool) -> tuple[Any, ...]:
    if len(kinds) != 2 or kinds[1] is not Ellipsis:
        size = Sized(len(kinds), len(kinds))
    if not isinstance(plain, (list, tuple)) or not size.fewest <= len(plain) <= size.most:
        raise _unlike(where, f"a list of {_count(size)}", plain)
    each = kinds if kinds[-1] is not Ellipsis else (kinds[0],) * len(plain)
    return tuple(typed(kind, one, _place(where, at), extra) for at, (kind, one) in enumerate(zip(each, plain)))


def _dict(kinds: tuple[Any, ...], plain: Any, where: str, size: Sized, extra: bool) -> dict[Any, Any]:
    if not isinstance(plain, dict) or not size.fewest <= len(plain) <= size.most:
        raise _unlike(where, f"a table of {_count(size)}", plain)
    name, value = kinds
    return {
        typed(name, key, f"a name in {where or 'the document'}"): typed(value, one, _place(where, key), extra)
        for key, one in plain.items()
    }


def _one_of(kinds: tuple[Any, ...], plain: Any, where: str, extra: bool) -> Any:
    """The first of several types that the value has; the last one's refusal where it has none."""
    if plain is None and type(None) in kinds:
        return None
    real = [kind for kind in kinds if kind is not type(None)]
    for kind in real[:-1]:
        try:
            return typed(kind, plain, where, extra)
        except ReadError:
            continue
    return typed(real[-1], plain, where, extra)


@cache
def _fields_of(kind: type) -> tuple[dict[str, Any], dict[str, Field[Any]]]:
    """Types and fields of a dataclass, by name: to evaluate the types takes longer than to read a small file."""
    return get_type_hints(kind, include_extras=True), {field.name: field for field in fields(kind)}


def _record(kind: type, plain: Any, where: str, extra: bool) -> Any:
    if not isinstance(plain, dict):
        raise _unlike(where, "a table", plain)
    hints, known = _fields_of(kind)
    unknown = [name for name in plain if name not in known]
    if unknown and not extra:
        raise ReadError(f"{_place(where, unknown[0])} is unknown; it may have {', '.join(known)}")
    missing = [
        name
        for name, field in known.items()
        if name not in plain and field.default is MISSING and field.default_factory is MISSING
    ]
    if missing:
        raise ReadError(f"{_place(where, missing[0])} is missing")
    values = {name: typed(hints[name], plain[name], _place(where, name), extra) for name in known if name in plain}
    try:
        return kind(**values)
    except ReadError:
        raise
    except ValueError as error:
        raise ReadError(f"{where + ': ' if where else ''}{error}") from None
