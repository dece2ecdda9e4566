"""Records of bytes that are described by the fields of their dataclass: each is declared once, with its code.

A field is `Annotated[type, Item(...)]`. All numbers are little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeVar, get_type_hints


@dataclass(frozen=True)
class Item:
    """How a field is stored: a code of `struct` or numpy, its meaning with its unit, the names of its dimensions."""

    code: str
    text: str = ""
    shape: tuple[str, ...] = ()


U8 = Annotated[int, Item("B")]
U16 = Annotated[int, Item("H")]
U32 = Annotated[int, Item("I")]
U64 = Annotated[int, Item("Q")]
JointRow = Annotated[tuple[int, ...], Item("i", shape=("joints",))]


class WireError(ValueError):
    """Bytes that do not have the form of their record, or a value that does not fit its field."""


P = TypeVar("P", bound="Packed")


def items_of(record: type) -> dict[str, Item]:
    """The described fields of a dataclass, in order."""
    hints = get_type_hints(record, include_extras=True)
    found = {name: getattr(hint, "__metadata__", (None,))[0] for name, hint in hints.items()}
    return {name: item for name, item in found.items() if isinstance(item, Item)}


class Packed:
    """Base of records: the `FIXED` fields (name and code), then `JOINT_ROWS`, of one int32 per joint each."""

    FIXED: ClassVar[tuple[tuple[str, str], ...]] = ()
    JOINT_ROWS: ClassVar[tuple[str, ...]] = ()
    body: ClassVar[Callable[..., bytes]]
    """Packs the values of the fields, in order, without a record being made. Raises `struct.error`."""
    _head: ClassVar[struct.Struct]

    def __init_subclass__(cls) -> None:
        items = items_of(cls)
        cls.FIXED = tuple((name, item.code) for name, item in items.items() if not item.shape)
        cls.JOINT_ROWS = tuple(name for name, item in items.items() if item.shape)
        cls._head = struct.Struct("<" + "".join(code for _, code in cls.FIXED))
        cls.body = cls._head.pack if not cls.JOINT_ROWS else staticmethod(_with_rows(cls._head, len(cls.FIXED)))

    def pack(self) -> bytes:
        """The bytes. Raises `WireError` when a value does not fit its field."""
        names = (*(name for name, _ in self.FIXED), *self.JOINT_ROWS)
        try:
            return self.body(*(getattr(self, name) for name in names))
        except struct.error as error:
            raise WireError(f"{type(self).__name__}: {error}") from None

    @classmethod
    def unpack(cls: type[P], data: bytes) -> P:
        """Inverse of `pack`. Raises `WireError`."""
        rows = len(cls.JOINT_ROWS)
        extra = len(data) - cls._head.size
        if extra < 0 or (extra and not rows) or (rows and extra % (4 * rows)):
            raise WireError(f"{cls.__name__}: {len(data)} bytes")
        values: list[Any] = list(cls._head.unpack_from(data))
        joints = extra // (4 * rows) if rows else 0
        for row in range(rows):
            values.append(struct.unpack_from(f"<{joints}i", data, cls._head.size + 4 * joints * row))
        return cls(*values)

    @classmethod
    def size(cls, joints: int) -> int:
        """Bytes with one value per joint in every joint row."""
        return cls._head.size + 4 * joints * len(cls.JOINT_ROWS)


def _with_rows(head: struct.Struct, fixed: int) -> Callable[..., bytes]:
    def body(*values: Any) -> bytes:
        flat = list(values[:fixed])
        for row in values[fixed:]:
            flat += row
        return struct.pack(f"{head.format}{len(flat) - fixed}i", *flat)

    return body
