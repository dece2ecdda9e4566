"""Packets of the servo bus, registers, and a reader that finds its way back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.adapters.feetech import packets
from firmware_bridge.adapters.feetech import registers as reg
from firmware_bridge.adapters.feetech.packets import HEADER, Packet, PacketReader

ANSWER = Packet(3, 0, b"\xe8\x03")


def test_bytes_are_the_vendors() -> None:
    # Feetech's communication protocol manual: reading two bytes at 0x38 of servo 1, and its answer of 0x0518.
    assert packets.read(1, 0x38, 2).hex(" ") == "ff ff 01 04 02 38 02 be"
    assert Packet(1, 0, b"\x18\x05").pack().hex(" ") == "ff ff 01 04 00 18 05 dd"
    assert Packet(1, packets.Instruction.PING).pack().hex(" ") == "ff ff 01 02 01 fb"


def test_sync_packets_name_address_size_and_servos() -> None:
    assert packets.sync_read((1, 2), 56, 2)[2:-1] == bytes((0xFE, 6, 0x82, 56, 2, 1, 2))
    assert packets.sync_write(42, {1: b"\x00\x08", 2: b"\x01\x08"})[2:-1] == bytes(
        (0xFE, 10, 0x83, 42, 2, 1, 0, 8, 2, 1, 8)
    )


@pytest.mark.parametrize(("value", "coded"), [(0, "0000"), (1000, "e803"), (-1000, "e883"), (-32767, "ffff")])
def test_negative_numbers_are_magnitudes_with_a_sign_bit(value: int, coded: str) -> None:
    assert reg.GOAL_POSITION.pack(value).hex() == coded and reg.GOAL_POSITION.unpack(bytes.fromhex(coded)) == value


def test_the_homing_offset_has_its_sign_in_bit_11() -> None:
    assert reg.HOMING_OFFSET.pack(-5) == (0x805).to_bytes(2, "little")
    assert reg.HOMING_OFFSET.unpack(b"\x05\x08") == -5


@pytest.mark.parametrize(("register", "value"), [(reg.HOMING_OFFSET, 2048), (reg.LOCK, -1), (reg.ACCELERATION, 256)])
def test_what_does_not_fit_is_refused(register: reg.Register, value: int) -> None:
    with pytest.raises(ValueError, match="does not take"):
        register.pack(value)


def test_a_stream_in_any_pieces() -> None:
    stream = b"\x00\xff" + ANSWER.pack() + HEADER + ANSWER.pack() + b"\xff"
    reader = PacketReader()
    assert [packet for byte in stream for packet in reader.feed(bytes((byte,)))] == [ANSWER, ANSWER]


@given(st.integers(0, 7), st.integers(1, 255), st.binary(max_size=12))
def test_one_damaged_byte_loses_that_packet_and_no_other(at: int, flip: int, noise: bytes) -> None:
    raw = bytearray(ANSWER.pack())
    raw[at] ^= flip
    after = Packet(4, 0, b"\x01\x02")
    reader = PacketReader(parameters=2)
    found = reader.feed(noise.replace(b"\xff", b"") + bytes(raw) + after.pack()) + reader.finish()
    assert found == [after]


@given(st.binary(max_size=40))
def test_noise_is_survived(noise: bytes) -> None:
    reader = PacketReader(parameters=2)
    reader.feed(noise)
    reader.finish()
    assert reader.feed(ANSWER.pack()) == [ANSWER]


def test_a_damaged_length_does_not_swallow_what_follows() -> None:
    raw = bytearray(ANSWER.pack())
    raw[3] = 200
    reader = PacketReader()  # the length is not known beforehand
    assert reader.feed(bytes(raw) + ANSWER.pack()) == []
    assert reader.finish() == [ANSWER] and reader.corrupted >= 1
