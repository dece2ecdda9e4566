"""URLs, CAN framing, the SLCAN codec and the load of a line, without any device."""

from __future__ import annotations

import os
import tty

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.bus_load import BITS_PER_BYTE, bus_load, chunk_frames, classic_bits, frame_size, wire_seconds
from firmware_bridge.client import KnotChunk
from firmware_bridge.codes import MAX_FRAME, MAX_JOINTS
from firmware_bridge.errors import LinkLost, PortError
from firmware_bridge.framing import FrameReader, encode_frame
from firmware_bridge.messages import Arm, Chunk, Estop, Heartbeat, Limits, Message, StateReport, TimeRequest
from firmware_bridge.transports import LINES, LineRate, SerialTransport, open_transport
from firmware_bridge.transports.can_stream import FD_SIZES, MAX_BACKLOG, CanFrame, CanIds, CanTransport, cut
from firmware_bridge.transports.slcan import SlcanBus, decode, encode


class SlowBus:
    """Takes `room` frames and no more until told."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.sent: list[CanFrame] = []
        self.arrived: list[CanFrame] = []

    def send(self, frame: CanFrame) -> bool:
        if self.room == 0:
            return False
        self.room -= 1
        self.sent.append(frame)
        return True

    def receive(self) -> list[CanFrame]:
        arrived, self.arrived = self.arrived, []
        return arrived

    def close(self) -> None:
        self.room = 0


@pytest.mark.parametrize(
    ("url", "rate", "node"),
    [
        ("serial:/dev/ttyACM0", LineRate(baud=1_000_000), 0),
        ("serial:/dev/ttyACM0?baud=115200", LineRate(baud=115_200), 0),
        ("slcan:/dev/ttyACM0?node=3", LineRate(1_000_000, 1_000_000), 3),
        ("slcan:/dev/ttyACM0?fd=1&baud=12000000", LineRate(12_000_000, 1_000_000, 5_000_000), 0),
        ("can:socketcan:can0?fd=1&data_bitrate=2000000", LineRate(None, 1_000_000, 2_000_000), 0),
        ("can:gs_usb:0?bitrate=500000", LineRate(None, 500_000), 0),
    ],
)
def test_urls_say_what_line_it_is(url: str, rate: LineRate, node: int) -> None:
    line = LINES.read(url)
    assert (line.rate, getattr(line, "node", 0)) == (rate, node)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("usb:/dev/ttyACM0", "write serial:PATH"),
        ("serial:", "write serial:PATH"),
        ("serial:/dev/x?speed=1", "unknown option speed"),
        ("serial:/dev/x?baud=0", "baud must be a whole number from 1"),
        ("serial:/dev/x?baud=fast", "baud must be"),
        ("slcan:/dev/x?node=16", "node must be a whole number from 0 to 15; write slcan:PATH"),
        ("slcan:/dev/x?fd=2", "fd must be 0 or 1"),
        ("slcan:/dev/x?data_bitrate=2000000", "add fd=1"),
        ("can:socketcan", "write can:INTERFACE:CHANNEL"),
        ("can::can0", "write can:INTERFACE:CHANNEL"),
        ("can:virtual:x?baud=1", "unknown option baud"),
    ],
)
def test_a_bad_url_is_refused_with_the_right_form(url: str, message: str) -> None:
    with pytest.raises(PortError, match=message):
        open_transport(url)


def test_an_interface_that_python_can_does_not_know_is_one_line() -> None:
    with pytest.raises(PortError, match="can:nonsense:x: cannot be opened") as refused:
        open_transport("can:nonsense:x")
    assert "\n" not in str(refused.value)


def test_a_bit_rate_that_slcan_has_no_code_for_is_refused() -> None:
    master, slave = os.openpty()
    tty.setraw(slave)
    with pytest.raises(PortError, match="no code for 123 bit/s"):
        open_transport(f"slcan:{os.ttyname(slave)}?bitrate=123")
    again = open_transport(f"slcan:{os.ttyname(slave)}?fd=1")  # the refused one has let go of the port
    assert os.read(master, 100) == b"\rC\rS8\rY5\rO\r"
    again.close()
    os.close(slave)
    os.close(master)


@given(st.lists(st.sampled_from([Heartbeat(7), Estop(), TimeRequest(2**60)]), min_size=1, max_size=20), st.booleans())
def test_frames_survive_being_cut(messages: list[Message], fd: bool) -> None:
    reader, got = FrameReader(), []
    for index, message in enumerate(messages):
        for frame in cut(0x210, encode_frame(5, index, message), fd):
            assert len(frame.data) in (FD_SIZES if fd else range(9))
            got += reader.feed(frame.data)
    assert [frame.message for frame in got] == messages and reader.bad_frames == 0


@given(st.integers(0, 0x7FF), st.binary(max_size=64), st.booleans())
def test_slcan_lines_come_back(identity: int, data: bytes, fd: bool) -> None:
    for frame in cut(identity, data, fd):
        assert decode(encode(frame).removesuffix(b"\r")) == frame


@given(st.binary(max_size=160))
def test_any_line_is_a_frame_or_none(line: bytes) -> None:
    frame = decode(line)
    assert frame is None or (frame.id <= 0x7FF and len(frame.data) in FD_SIZES)


@pytest.mark.parametrize(
    "line", [b"", b"t", b"t1232AB", b"t1232ABCDEF", b"tXYZ0", b"t123G", b"t1239" + b"00" * 12, b"z"]
)
def test_a_damaged_slcan_line_is_dropped(line: bytes) -> None:
    assert decode(line) is None


def test_slcan_survives_noise_and_refusals() -> None:
    master, slave = os.openpty()
    tty.setraw(slave)
    port = SerialTransport(os.ttyname(slave))
    bus = SlcanBus(port, 1_000_000, None)
    good = encode(CanFrame(0x110, b"\x01\x02"))
    os.write(master, b"\a\r" + b"t11" + b"q" * 400 + b"\r" + good[:4])
    assert bus.receive() == []
    os.write(master, good[4:] + b"z\r" + b"t1102ABC\r" + good)
    assert bus.receive() == [CanFrame(0x110, b"\x01\x02")] * 2
    assert bus.bad_lines == 2
    bus.close()
    os.close(slave)
    os.close(master)


def test_urgent_frames_overtake_chunks() -> None:
    bus = SlowBus(room=1)
    transport = CanTransport(bus, CanIds(2), fd=False)
    transport.write(encode_frame(1, 0, TimeRequest(1)))
    transport.write(encode_frame(1, 1, Estop()))
    bus.room = 100
    transport.read()
    assert [frame.id for frame in bus.sent] == [0x212] + [0x012] * 2 + [0x212] * 2
    assert CanIds(2).urgent < CanIds(2).reports < CanIds(2).chunks


def test_only_this_devices_reports_are_read() -> None:
    bus = SlowBus(room=0)
    bus.arrived = [CanFrame(0x110, b"a"), CanFrame(0x111, b"b"), CanFrame(0x010, b"c"), CanFrame(0x110, b"d")]
    assert CanTransport(bus, CanIds(0), fd=False).read() == b"ad"


def test_a_bus_that_takes_nothing_is_a_lost_link() -> None:
    transport = CanTransport(SlowBus(room=0), CanIds(), fd=False)
    frame = encode_frame(1, 0, TimeRequest(1))
    with pytest.raises(LinkLost, match="takes no frames"):
        for _ in range(MAX_BACKLOG):
            transport.write(frame)


def chunk_bytes(knots: int, joints: int) -> int:
    row = tuple(range(10**6, 10**6 + joints))
    chunk = KnotChunk(1, 0, 100_000, (row,) * knots, (row,) * knots)
    return sum(len(encode_frame(1, index, message)) for index, message in enumerate(chunk.messages()))


@pytest.mark.parametrize(("knots", "joints"), [(2, 6), (16, 7), (50, 7), (50, 8)])
def test_the_load_knows_how_large_a_chunk_is(knots: int, joints: int) -> None:
    assumed = sum(frame_size(payload) for payload in chunk_frames(knots, joints))
    assert chunk_bytes(knots, joints) <= assumed <= chunk_bytes(knots, joints) + 2 * len(chunk_frames(knots, joints))


def test_fifty_knots_without_velocities_take_one_and_a_half_kilobytes() -> None:
    row = tuple(range(10**6, 10**6 + 7))
    encoded = [encode_frame(1, 0, message) for message in KnotChunk(1, 0, 20_000, (row,) * 50, None).messages()]
    assert sum(map(len, encoded)) <= 1500
    assert sum(len(frame.data) for part in encoded for frame in cut(0x210, part, fd=True)) <= 2200


def test_the_longest_classic_frame_has_135_bits() -> None:
    """Davis et al., 2007, table 1."""
    assert [classic_bits(size) for size in (0, 1, 8)] == [55, 65, 135]


def test_a_serial_load_is_bytes_over_baud() -> None:
    load = bus_load(LineRate(baud=115_200), joints=7, knots=16, chunk_every_s=0.5, heartbeat_hz=100)
    outward = [frame_size(payload) for payload in chunk_frames(16, 7)]
    assert load.chunk_s == pytest.approx(sum(outward) * BITS_PER_BYTE / 115_200)
    assert 0.3 < load.share < 0.8
    load.check()


@pytest.mark.parametrize(
    ("rate", "fits"),
    [
        (LineRate(baud=1_000_000), True),
        (LineRate(baud=57_600), False),
        (LineRate(bitrate=1_000_000), True),
        (LineRate(bitrate=125_000), False),
        (LineRate(bitrate=1_000_000, data_bitrate=5_000_000), True),
        (LineRate(baud=115_200, bitrate=1_000_000), False),
    ],
)
def test_a_line_that_is_too_slow_is_refused_with_the_arithmetic(rate: LineRate, fits: bool) -> None:
    load = bus_load(rate, joints=7, knots=16, chunk_every_s=0.5, heartbeat_hz=100)
    if fits:
        load.check()
    else:
        with pytest.raises(PortError, match=r"% busy \(limit 80 %\): .*state at 100 Hz \d+ %"):
            load.check()


@pytest.mark.parametrize("joints", [12, MAX_JOINTS])
def test_two_arms_on_one_line(joints: int) -> None:
    """Every message with a row of them is one frame, and the usual rates carry them; half a megabit of CAN does not."""
    widest = [StateReport.size(joints), Limits.size(joints), Arm.size(joints), *chunk_frames(50, joints)]
    assert max(map(frame_size, widest)) <= MAX_FRAME
    assert sum(chunk_frames(50, joints)[:-1]) == 50 * 8 * joints + Chunk.size(0) * (len(chunk_frames(50, joints)) - 1)
    loads = {
        rate: bus_load(rate, joints, knots=50, chunk_every_s=0.5, heartbeat_hz=100).share
        for rate in (LineRate(baud=1_000_000), LineRate(bitrate=1_000_000, data_bitrate=5_000_000))
    }
    assert max(loads.values()) < 0.5, loads
    with pytest.raises(PortError, match=rf"x {joints} joints every"):
        bus_load(LineRate(bitrate=500_000), joints, knots=50, chunk_every_s=0.5, heartbeat_hz=100).check()


def test_fd_is_faster_than_classic() -> None:
    classic, fd = LineRate(bitrate=1_000_000), LineRate(bitrate=1_000_000, data_bitrate=5_000_000)
    assert wire_seconds(512, fd) < 0.35 * wire_seconds(512, classic)
