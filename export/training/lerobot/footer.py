"""What a Parquet file says of its columns, read from its footer without pyarrow.

pyarrow's own `RowGroupMetaData.column` ends the process where a footer is damaged: it lets a C++ exception pass
(pyarrow 26.0.1; of three files, one change of a byte in 170 to 700 does it). What pyarrow reads by other calls ends in
an error.
The footer is Thrift's compact protocol (thrift/doc/specs/thrift-compact-protocol.md) of `FileMetaData` in
apache/parquet-format's parquet.thrift, whose numbers of fields stand here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MAGIC, TAIL = b"PAR1", 8
MOST_FOOTER_BYTES = 1 << 26
MOST_DEPTH = 16
ROW_GROUPS, COLUMNS, META_DATA = 4, 1, 3
PATH_IN_SCHEMA, NUM_VALUES, TOTAL_UNCOMPRESSED_SIZE = 3, 5, 6
STOP, TRUE, FALSE, BYTE, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = 0, 1, 2, 3, 7, 8, 9, 10, 11, 12
INTEGERS = (4, 5, 6)


@dataclass(frozen=True)
class ColumnClaim:
    """Of one column of one row group: its dotted name, how many values it holds, and their bytes when unpacked."""

    path: str
    values: int
    unpacked_bytes: int


def column_claims(path: Path) -> list[ColumnClaim]:
    """Of every row group, in the file's order. Raises `ValueError` for what is no footer, `OSError`."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - TAIL))
        tail = file.read(TAIL)
        length = int.from_bytes(tail[:4], "little")
        if len(tail) != TAIL or tail[4:] != MAGIC or not length <= min(MOST_FOOTER_BYTES, size - TAIL - len(MAGIC)):
            raise ValueError("no footer of Parquet")
        file.seek(size - TAIL - length)
        footer = _Compact(file.read(length))
    return [
        claim
        for number, kind in footer.fields()
        for group in footer.structs(kind, number == ROW_GROUPS)
        for inside, its_kind in group.fields()
        for column in group.structs(its_kind, inside == COLUMNS)
        for claim in _claims(column)
    ]


def _claims(column: _Compact) -> Iterator[ColumnClaim]:
    for number, kind in column.fields():
        if (number, kind) != (META_DATA, STRUCT):
            column.skip(kind)
            continue
        path, values, unpacked = "", 0, 0
        for inside, its_kind in column.fields():
            if inside == PATH_IN_SCHEMA and its_kind == LIST:
                count, of = column.list_head()
                if of != BINARY:
                    raise ValueError("a column's name is no text")
                path = ".".join(column.binary().decode() for _ in range(count))
            elif inside == NUM_VALUES and its_kind in INTEGERS:
                values = column.integer()
            elif inside == TOTAL_UNCOMPRESSED_SIZE and its_kind in INTEGERS:
                unpacked = column.integer()
            else:
                column.skip(its_kind)
        yield ColumnClaim(path, values, unpacked)


class _Compact:
    """A position in bytes of the compact protocol. Every read raises `ValueError` where they end."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def byte(self) -> int:
        if self._at >= len(self._data):
            raise ValueError("the footer is cut short")
        self._at += 1
        return self._data[self._at - 1]

    def varint(self) -> int:
        value = shift = 0
        while True:
            one = self.byte()
            value |= (one & 0x7F) << shift
            if one < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("a number of the footer has no end")

    def integer(self) -> int:
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def binary(self) -> bytes:
        length = self.varint()
        self.pass_over(length)
        return self._data[self._at - length : self._at]

    def pass_over(self, length: int) -> None:
        if length > len(self._data) - self._at:
            raise ValueError("the footer is cut short")
        self._at += length

    def fields(self) -> Iterator[tuple[int, int]]:
        """Number and kind of each field of a struct; whoever takes one reads it, or skips it, before the next."""
        number = 0
        while (head := self.byte()) != STOP:
            number = number + (head >> 4) if head >> 4 else self.integer()
            yield number, head & 0x0F

    def list_head(self) -> tuple[int, int]:
        """Number and kind of a list's elements, of which each takes at least a byte."""
        head = self.byte()
        count = head >> 4 if head >> 4 < 15 else self.varint()
        if count > len(self._data) - self._at:
            raise ValueError("a list of the footer is longer than it")
        return count, head & 0x0F

    def structs(self, kind: int, wanted: bool) -> Iterator[_Compact]:
        """This, at each struct of a list; another value is skipped."""
        if not wanted or kind != LIST:
            self.skip(kind)
            return
        count, of = self.list_head()
        if of != STRUCT:
            raise ValueError("a list of the footer holds no structs")
        for _ in range(count):
            yield self

    def skip(self, kind: int, depth: int = 0) -> None:
        if depth > MOST_DEPTH:
            raise ValueError("the footer is too deep")
        if kind in (TRUE, FALSE):
            return  # the kind is the value
        if kind == BYTE:
            self.byte()
        elif kind in INTEGERS:
            self.varint()
        elif kind == DOUBLE:
            self.pass_over(8)
        elif kind == BINARY:
            self.pass_over(self.varint())
        elif kind in (LIST, SET):
            count, of = self.list_head()
            for _ in range(count):
                self._skip_element(of, depth)
        elif kind == MAP:
            self._skip_map(depth)
        elif kind == STRUCT:
            for _, inside in self.fields():
                self.skip(inside, depth + 1)
        else:
            raise ValueError("the footer has a field of no kind")

    def _skip_element(self, kind: int, depth: int) -> None:
        """Inside a list or a map a truth takes a byte."""
        if kind in (TRUE, FALSE):
            self.byte()
        else:
            self.skip(kind, depth + 1)

    def _skip_map(self, depth: int) -> None:
        count = self.varint()
        if count > len(self._data) - self._at:
            raise ValueError("a map of the footer is longer than it")
        kinds = self.byte() if count else 0
        for _ in range(count):
            self._skip_element(kinds >> 4, depth)
            self._skip_element(kinds & 0x0F, depth)
