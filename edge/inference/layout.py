"""The forms of a record whose fields are described once (`firmware_bridge.layout.Item`).

For shared memory a numpy type, its sizes given by name; for a log a JSON head and the raw arrays behind it.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import EnumMeta
from typing import Annotated, Any, ClassVar, Generic, TypeVar, get_type_hints

import numpy as np
from numpy.typing import NDArray

from edge.inference.mailbox import Mailbox, SharedMemory
from firmware_bridge.layout import Item, items_of
from firmware_bridge.reading import Between, Name, Sized, parse_json, typed

TEXT_BYTES = 400
UP_TO = "up to "
"""Before the name of a first dimension: the most rows; how many there are is stored beside them."""
ROWS = "_rows"
ARRAYS = tuple[tuple[Name, Name, Annotated[tuple[Annotated[int, Between(0, 1 << 20)], ...], Sized(0, 4)]], ...]
"""How the arrays of a record are announced: name, numpy's name of the type, shape."""
NUMBER = re.compile(r"[<|][bfiu][1248]")
HEAD_SIZE = struct.Struct("<I")
R = TypeVar("R")
D = TypeVar("D", bound="Described")


class Layout(Generic[R]):
    """A record in shared memory. `sizes` gives the size of every dimension that its fields name."""

    def __init__(self, record: type[R], **sizes: int) -> None:
        self._record = record
        self._read: dict[str, Callable[[Any], Any]] = {}
        self._varying: list[str] = []
        types, fields = get_type_hints(record), []
        for name, item in items_of(record).items():
            fields.append((name, item.code, tuple(sizes[part.removeprefix(UP_TO)] for part in item.shape)))
            if item.shape and item.shape[0].startswith(UP_TO):
                self._varying.append(name)
                fields.append((name + ROWS, "<i8", ()))
            self._read[name] = _array if item.shape else _text if types[name] is str else types[name]
        self.dtype = np.dtype(fields)

    def pack(self, record: R) -> NDArray[Any]:
        """The record as an array of shape (1,). A text that is too long is cut."""
        packed = np.zeros(1, self.dtype)
        for name in self._read:
            value = getattr(record, name)
            if isinstance(value, str):
                packed[name] = value.encode()[: self.dtype[name].itemsize]
            elif name in self._varying:
                packed[name + ROWS] = len(value)
                packed[name][0, : len(value)] = value
            else:
                packed[name] = value
        return packed

    def unpack(self, packed: NDArray[Any]) -> R:
        """Inverse of `pack`."""
        row = packed[0]
        values = {name: read(row[name]) for name, read in self._read.items()}
        for name in self._varying:
            values[name] = values[name][: row[name + ROWS]]
        return self._record(**values)

    def blank(self) -> R:
        """A record of zeros and empty texts."""
        return self.unpack(np.zeros(1, self.dtype))


class RecordMailbox(Generic[R]):
    """A mailbox whose records are packed and unpacked by their layout."""

    def __init__(self, layout: Layout[R], memory: SharedMemory, offset: int) -> None:
        self._layout, self._box = layout, Mailbox(layout.dtype, memory, offset)

    def write(self, record: R) -> int:
        """Publishes a record; returns its number."""
        return self._box.write(self._layout.pack(record))

    def read(self, after: int) -> tuple[int, R] | None:
        """The newest record and its number, if that is above `after`; None when there is none or it is in flux."""
        found = self._box.read(after)
        return None if found is None else (found[0], self._layout.unpack(found[1]))


class Newest(Generic[R]):
    """One reader of a mailbox, to whom each record is given once."""

    def __init__(self, box: RecordMailbox[R]) -> None:
        self._box, self._seen = box, 0

    def take(self) -> R | None:
        """The newest record, if it has not been taken."""
        found = self._box.read(self._seen)
        if found is None:
            return None
        self._seen, record = found
        return record


def _array(value: Any) -> Any:
    return value


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


@dataclass(frozen=True)
class Described:
    """Base of records that a log holds as JSON, with their arrays, if any, as raw bytes behind it."""

    _items: ClassVar[dict[str, Item]]
    _enums: ClassVar[dict[str, EnumMeta]]

    def __init_subclass__(cls) -> None:
        cls._items = items_of(cls)
        cls._enums = {name: kind for name, kind in get_type_hints(cls).items() if isinstance(kind, EnumMeta)}

    def pack(self) -> bytes:
        """The record's bytes in a log; floats survive exactly."""
        items = self._items.items()
        head: dict[str, Any] = {name: getattr(self, name) for name, item in items if not item.shape}
        arrays = {name: np.asarray(getattr(self, name), item.code) for name, item in items if item.shape}
        if not arrays:
            return pack_plain(head)
        head["arrays"] = [(name, array.dtype.str, array.shape) for name, array in arrays.items()]
        text = pack_plain(head)
        return b"".join((HEAD_SIZE.pack(len(text)), text, *(array.tobytes() for array in arrays.values())))

    @classmethod
    def unpack(cls: type[D], body: bytes) -> D:
        """Inverse of `pack`. Raises `ValueError` and `TypeError`."""
        has_arrays = any(item.shape for item in cls._items.values())
        values = head_and_arrays(body) if has_arrays else parse_table(body)
        for name, kind in cls._enums.items():
            values[name] = kind(values[name])
        return cls(**values)


def parse_table(body: bytes) -> dict[str, Any]:
    """A JSON object, as `pack_plain` writes it. Raises `ValueError`."""
    plain: dict[str, Any] = typed(dict[Name, Any], parse_json(body, finite=False))
    return plain


def pack_plain(value: Any) -> bytes:
    """JSON in as few bytes as it takes."""
    return json.dumps(value, separators=(",", ":")).encode()


def head_and_arrays(body: bytes) -> dict[str, Any]:
    """The fields of a record with arrays, by name. Raises `ValueError` for what is too short to be one."""
    if len(body) < HEAD_SIZE.size:
        raise ValueError("an array record is shorter than its head")
    at = HEAD_SIZE.size + HEAD_SIZE.unpack_from(body)[0]
    values = parse_table(body[HEAD_SIZE.size : at])
    for name, dtype, shape in typed(ARRAYS, values.pop("arrays", None), "arrays"):
        if not NUMBER.fullmatch(dtype):
            raise ValueError(f"an array of type {dtype}")
        array = np.frombuffer(body, np.dtype(dtype), count=math.prod(shape), offset=at).reshape(shape)
        values[name] = array
        at += array.nbytes
    return values
