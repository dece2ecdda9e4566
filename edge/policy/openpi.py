"""openpi's protocol: msgpack messages with numpy arrays in them, as `openpi-client` 0.1.2 packs and unpacks them.

A server sends its metadata first; then each observation, a map, is answered by a map with "actions" (horizon, axes).
An error is a text frame. An array is a map with the keys `__ndarray__`, `data`, `dtype` and `shape`, all of them bytes.
What arrives is somebody else's: types are a closed list, sizes are bounded before anything is allocated, and no object
is ever built that the list does not name.
"""

from __future__ import annotations

import math
from typing import Any

import msgpack
import numpy as np

MOST_BYTES = 32 << 20
"""Of one message: two raw frames of 1080p are 12 MB."""
MOST_ENTRIES = 4096
"""Of one list or map."""
MOST_DEPTH = 16
MOST_DIMENSIONS = 5
DTYPES = frozenset(np.dtype(name).str for name in ("?", "u1", "i1", "<u2", "<i2", "<i4", "<i8", "<f2", "<f4", "<f8"))


class ProtocolError(ValueError):
    """A message that is not what the protocol allows; the text says what."""


def pack(message: dict[str, Any]) -> bytes:
    """One message. Arrays and numpy's numbers go as openpi's maps; anything that msgpack lacks is a `TypeError`."""
    return bytes(msgpack.packb(message, default=_from_numpy))


def unpack(data: bytes) -> dict[str, Any]:
    """One message: a map with string keys. Raises `ProtocolError`."""
    if len(data) > MOST_BYTES:
        raise ProtocolError(f"a message of {len(data)} bytes; the most is {MOST_BYTES}")
    try:
        message = msgpack.unpackb(
            data,
            object_hook=_to_numpy,
            max_array_len=MOST_ENTRIES,
            max_map_len=MOST_ENTRIES,
            max_ext_len=0,
        )
    except ProtocolError:
        raise
    except (ValueError, RecursionError, msgpack.UnpackException) as error:
        raise ProtocolError(f"not msgpack as openpi's client writes it ({error or type(error).__name__})") from error
    if not isinstance(message, dict):
        raise ProtocolError(f"a message is a map; this is {type(message).__name__}")
    return flat(message)


def flat(message: dict[str, Any], most_depth: int = MOST_DEPTH) -> dict[str, Any]:
    """Maps within maps as paths: {"observation": {"state": x}} is {"observation/state": x}, as openpi's robots differ.

    Raises `ProtocolError` for keys that are no strings, or the same path twice.
    """
    paths: dict[str, Any] = {}
    waiting = [("", message, most_depth)]
    while waiting:
        prefix, branch, depth = waiting.pop()
        if depth == 0:
            raise ProtocolError(f"maps within maps, more than {most_depth} deep")
        for key, value in branch.items():
            if not isinstance(key, str):
                raise ProtocolError(f"the key {str(key)[:40]!r} is no text")
            if isinstance(value, dict):
                waiting.append((f"{prefix}{key}/", value, depth - 1))
            elif f"{prefix}{key}" in paths:
                raise ProtocolError(f"'{prefix}{key}' twice")
            else:
                paths[f"{prefix}{key}"] = value
    return paths


def _from_numpy(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        array = np.ascontiguousarray(value)
        _check_dtype(array.dtype.str)
        return {b"__ndarray__": True, b"data": array.tobytes(), b"dtype": array.dtype.str, b"shape": array.shape}
    if isinstance(value, np.generic):
        _check_dtype(value.dtype.str)
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    raise TypeError(f"{type(value).__name__} has no form in this protocol")


def _to_numpy(entries: dict[Any, Any]) -> Any:
    if b"__ndarray__" in entries:
        return _array(entries.get(b"data"), entries.get(b"dtype"), entries.get(b"shape"))
    if b"__npgeneric__" in entries:
        value, dtype = entries.get(b"data"), _check_dtype(entries.get(b"dtype"))
        if not isinstance(value, bool | int | float):
            raise ProtocolError(f"a number of numpy's that holds {type(value).__name__}")
        try:
            with np.errstate(over="ignore"):  # infinite then, and refused where numbers have to be finite
                return np.dtype(dtype).type(value)
        except (ValueError, OverflowError) as error:
            raise ProtocolError(f"{value!r} is no {dtype}") from error
    return entries


def _check_dtype(dtype: Any) -> str:
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ProtocolError(f"arrays of type {str(dtype)[:20]!r}; allowed are {', '.join(sorted(DTYPES))}")
    return dtype


def _array(data: Any, dtype: Any, shape: Any) -> np.ndarray[Any, Any]:
    name = _check_dtype(dtype)
    if not isinstance(data, bytes) or not isinstance(shape, list | tuple) or len(shape) > MOST_DIMENSIONS:
        raise ProtocolError("an array without bytes, or without a shape of at most 5 numbers")
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ProtocolError(f"an array of shape {str(shape)[:60]}")
    if math.prod(shape) * np.dtype(name).itemsize != len(data):
        raise ProtocolError(f"an array of shape {tuple(shape)} and type {name} with {len(data)} bytes")
    return np.frombuffer(data, dtype=name).reshape(shape)
