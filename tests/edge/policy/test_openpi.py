"""openpi's protocol: against its own client's packing, and against whatever else somebody may send."""

from __future__ import annotations

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpi_client import msgpack_numpy

from edge.policy.openpi import DTYPES, MOST_BYTES, ProtocolError, pack, unpack

ARRAYS = [np.arange(12).reshape(3, 4).astype(dtype) for dtype in ("?", "u1", "i4", "i8", "f2", "f4", "f8")]
MESSAGE = {
    "observation/image": np.arange(48, dtype=np.uint8).reshape(4, 4, 3),
    "observation/state": np.linspace(-1, 1, 8),
    "prompt": "pick up the block",
    "step": 3,
    "gripper": np.float32(0.25),
}


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: array.dtype.name)
def test_arrays_pass_between_our_packing_and_openpis_client(array: np.ndarray) -> None:
    theirs, ours = msgpack_numpy.unpackb(pack({"x": array}))["x"], unpack(msgpack_numpy.packb({"x": array}))["x"]
    for found in (theirs, ours):
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)


def test_a_message_is_the_same_bytes_as_openpis_client_makes() -> None:
    assert pack(MESSAGE) == msgpack_numpy.packb(MESSAGE)


def test_maps_within_maps_are_paths() -> None:
    nested = {"observation": {"state": np.zeros(3), "images": {"front": np.zeros((2, 2, 3), np.uint8)}}, "prompt": "x"}
    assert sorted(unpack(pack(nested))) == ["observation/images/front", "observation/state", "prompt"]
    with pytest.raises(ProtocolError, match="'a/b' twice"):
        unpack(pack({"a": {"b": 1}, "a/b": 2}))


def _array(**changes: object) -> dict[str, object]:
    plain = {b"__ndarray__": True, b"data": bytes(12), b"dtype": "<f4", b"shape": (3,)}
    return {"x": plain | {key.encode(): value for key, value in changes.items()}}


@pytest.mark.parametrize(
    "message",
    [
        _array(dtype="O"),
        _array(dtype="|V4"),
        _array(dtype="S4"),
        _array(dtype=["f4"]),
        _array(dtype="<M8[s]"),
        _array(shape=(4,)),
        _array(shape=(-1,)),
        _array(shape=(1 << 40, 1 << 40)),
        _array(shape=(True, 3)),
        _array(shape=[3.0]),
        _array(shape="3"),
        _array(shape=(1, 1, 1, 1, 1, 3)),
        _array(data="text"),
        _array(data=None),
        {"x": {b"__npgeneric__": True, b"data": "7", b"dtype": "<f4"}},
        {"x": {b"__npgeneric__": True, b"data": 300, b"dtype": "|u1"}},
        {"x": {b"__npgeneric__": True, b"data": b"7", b"dtype": "O"}},
        {"x": {b"other": 1}},
        {b"x": 1},
    ],
    ids=str,
)
def test_an_array_or_key_that_is_not_allowed_is_refused(message: dict[object, object]) -> None:
    with pytest.raises(ProtocolError):
        unpack(msgpack.packb(message))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x81\xa1x",
        b"\x93\x01\x02\x03",
        b"\x01",
        b"\x91" * 5000 + b"\x01",
        b"\x81\xa1x" * 900 + b"\x01",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        msgpack.packb({"x": msgpack.ExtType(5, b"12")}),
        msgpack.packb({"x": msgpack.Timestamp(1)}),
        bytes(MOST_BYTES + 1),
    ],
    ids=lambda data: data[:6].hex(),
)
def test_bytes_that_are_no_observation_are_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        unpack(data)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(0, len(pack(MESSAGE)) - 1), st.integers(0, 255))
def test_whatever_comes_is_a_message_or_refused(noise: bytes, at: int, byte: int) -> None:
    """Half of the cases are a valid message with one byte changed."""
    changed = bytearray(pack(MESSAGE))
    changed[at] = byte
    for data in (noise, bytes(changed)):
        try:
            message = unpack(data)
        except ProtocolError as error:
            assert len(str(error)) < 260
        else:
            arrays = [value for value in message.values() if isinstance(value, np.ndarray)]
            assert all(array.dtype.str in DTYPES for array in arrays)
