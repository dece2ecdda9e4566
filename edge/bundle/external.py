"""Which other files an ONNX file makes a runtime open: the places of its external weights, read from the file itself.

The message types and field numbers are those of onnx.proto (ONNX IR version 3 and later). Nothing but these is decoded:
what is not a graph, a node, an attribute or a tensor is skipped by its length.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
"""Of each message the fields that may lead to external weights, by their numbers."""
LENGTHS = {1: 8, 5: 4}
"""Bytes of fields of a fixed length, by wire type."""
MOST_DEPTH = 64


class OnnxDamaged(ValueError):
    """A file that is no ONNX model."""


def external_files(path: Path) -> set[str]:
    """The locations of external weights that an ONNX file names. Raises `OnnxDamaged`."""
    if path.stat().st_size == 0:
        raise OnnxDamaged("is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return set(_locations(data, 0, len(data), "model", 0))
        except (IndexError, UnicodeDecodeError):
            raise OnnxDamaged("is not an ONNX model") from None


def _locations(data: mmap.mmap, at: int, end: int, kind: str, depth: int) -> Iterator[str]:
    if depth > MOST_DEPTH:
        raise OnnxDamaged(f"is nested deeper than {MOST_DEPTH}")
    inside = INSIDE[kind]
    for number, begin, stop in _fields(data, at, end):
        if number not in inside:
            continue
        if inside[number] == "entry":
            entry = {key: data[first:last] for key, first, last in _fields(data, begin, stop)}
            if entry.get(1) == b"location":
                yield entry.get(2, b"").decode("utf-8")
        else:
            yield from _locations(data, begin, stop, inside[number], depth + 1)


def _fields(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, begin and end of every field that has a length."""
    while at < end:
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 2:
            length, at = _varint(data, at)
            if at + length > end:
                raise OnnxDamaged("is cut short")
            yield number, at, at + length
            at += length
        elif wire == 0:
            _, at = _varint(data, at)
        elif wire in LENGTHS:
            at += LENGTHS[wire]
        else:
            raise OnnxDamaged("is not an ONNX model")


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise OnnxDamaged("is not an ONNX model")
