"""Authenticated datagrams: what passes does so once, in its own session; all else is dropped and counted."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import astuple
from itertools import count, pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.codes import DeviceState, StopReason
from firmware_bridge.errors import PortError
from firmware_bridge.fault_proxy import Faults, FaultyNetwork
from firmware_bridge.framing import encode_frame
from firmware_bridge.messages import Arm, Clear, Disarm, Estop, Heartbeat, Message, Stop
from firmware_bridge.transports import open_transport
from firmware_bridge.transports.datagrams import (
    AGAIN_NS,
    HEAD_SIZE,
    MOST_FRAMES_SIZE,
    SILENT_NS,
    TAG_SIZE,
    WINDOW,
    Counts,
    DeviceEnd,
    HostEnd,
    Kind,
    Opening,
    Packer,
    Session,
    Window,
    read_key,
)
from firmware_bridge.transports.network import MOST_AT_ONCE, Place, UdpSocket, listen
from tests.support import Rig

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
HERE, THERE = ("10.0.0.2", 5000), ("10.0.0.9", 5000)
FRAME = encode_frame(7, 0, Stop())


def numbers() -> Callable[[], bytes]:
    drawn = count(1)
    return lambda: next(drawn).to_bytes(16, "big")


class Pair:
    """A host and a device, and all that was said while the line was opened."""

    def __init__(self, device: DeviceEnd | None = None, number: bytes = b"h" * 16, now_ns: int = 0) -> None:
        self.host, self.device = HostEnd(KEY, number), device or DeviceEnd(KEY, numbers())
        self.said: list[bytes] = []
        while asked := self.host.asks(now_ns):
            _, answer = self.device.take(asked, HERE, now_ns)
            self.host.take(answer)
            self.said += [asked, answer]

    def session(self) -> Session:
        assert self.host.session is not None and self.device.session is not None
        return self.host.session


def counted(counts: Counts) -> tuple[int, ...]:
    return astuple(counts)


def test_four_datagrams_open_a_line_and_frames_pass_both_ways() -> None:
    pair = Pair()
    assert [Kind(datagram[3]) for datagram in pair.said] == [Kind.OPEN, Kind.ANSWER, Kind.CONFIRM, Kind.READY]
    assert pair.device.take(pair.session().seal(FRAME), HERE, 0) == (FRAME, b"")
    assert pair.device.session is not None
    assert pair.host.take(pair.device.session.seal(FRAME)) == FRAME
    assert pair.host.asks(10**12) == b""


@pytest.mark.parametrize("lost", range(4))
def test_an_opening_datagram_that_is_lost_is_sent_again(lost: int) -> None:
    host, device, sent = HostEnd(KEY, b"h" * 16), DeviceEnd(KEY, numbers()), 0
    for now_ns in range(0, 4 * AGAIN_NS, AGAIN_NS // 10):
        for _ in range(2):
            if asked := host.asks(now_ns):
                sent += 1
                answer = device.take(asked, HERE, now_ns)[1] if sent - 1 != lost // 2 or lost % 2 else b""
                if answer and not (lost % 2 and sent - 1 == lost // 2):
                    host.take(answer)
    assert host.session is not None and device.session is not None and sent == 3
    assert device.take(host.session.seal(FRAME), HERE, 0)[0] == FRAME


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_damaged_datagram_never_passes(at: int, flip: int) -> None:
    pair = Pair()
    sound = pair.session().seal(FRAME)
    damaged = bytearray(sound)
    damaged[at % len(sound)] ^= flip
    assert pair.device.take(bytes(damaged), HERE, 0) == (b"", b"")
    assert counted(pair.device.counts) in ((0, 1, 0, 0, 0), (0, 0, 0, 1, 0))
    assert pair.device.take(sound, HERE, 0)[0] == FRAME


def test_another_key_opens_nothing_and_says_nothing() -> None:
    device = DeviceEnd(KEY, numbers())
    assert device.take(HostEnd(OTHER_KEY, b"h" * 16).asks(0), HERE, 0) == (b"", b"")
    assert device.take(Opening(Kind.CONFIRM, b"h" * 16, (1).to_bytes(16, "big")).pack(OTHER_KEY), HERE, 0)[1] == b""
    assert device.session is None and counted(device.counts) == (0, 2, 0, 0, 0)
    pair = Pair()
    forged = Session(OTHER_KEY, b"h" * 16 + (1).to_bytes(16, "big"), Kind.TO_DEVICE, Kind.TO_HOST, Counts())
    assert pair.device.take(forged.seal(FRAME), HERE, 0)[0] == b"" and pair.device.counts.forged == 1


def test_a_recorded_datagram_passes_in_no_second_place() -> None:
    pair = Pair()
    recorded = [pair.session().seal(FRAME) for _ in range(3)]
    for datagram in recorded:
        assert pair.device.take(datagram, HERE, 0)[0] == FRAME
    for datagram in recorded:
        assert pair.device.take(datagram, HERE, 0)[0] == b""  # again
        assert pair.host.take(datagram) == b""  # back at its sender
        assert pair.device.take(datagram, THERE, 0) == (b"", b"")  # from elsewhere
    assert pair.device.counts.replayed == 3 and pair.host.counts.foreign == 3 and pair.device.counts.foreign == 3
    later = Pair(pair.device, b"i" * 16, SILENT_NS)
    for datagram in recorded + pair.said[::2]:  # in the next session, and by the one who would open it
        assert later.device.take(datagram, HERE, SILENT_NS)[0] == b""
    assert later.device.take(later.session().seal(FRAME), HERE, SILENT_NS)[0] == FRAME
    for datagram in pair.said + recorded:  # the whole of it, when the line is free again
        assert later.device.take(datagram, HERE, 9 * SILENT_NS)[0] == b""
    assert later.device.take(later.session().seal(FRAME), HERE, 9 * SILENT_NS)[0] == FRAME
    restarted = DeviceEnd(KEY, lambda: random.randbytes(16))
    for datagram in pair.said + recorded:
        restarted.take(datagram, HERE, 0)
    assert restarted.session is None


def test_a_second_host_waits_until_the_first_is_silent() -> None:
    pair = Pair()
    pair.device.take(pair.session().seal(FRAME), HERE, 0)
    second = HostEnd(KEY, b"2" * 16)
    for _ in range(2):
        second.take(pair.device.take(second.asks(0), THERE, SILENT_NS - 1)[1])
    assert second.is_busy and second.session is None
    assert pair.device.take(pair.session().seal(FRAME), HERE, SILENT_NS - 1)[0] == FRAME
    second.take(pair.device.take(second.asks(AGAIN_NS), THERE, 2 * SILENT_NS)[1])
    assert second.session is not None and pair.device.address == THERE
    assert pair.device.take(pair.session().seal(FRAME), HERE, 2 * SILENT_NS)[0] == b""


@given(st.permutations(range(WINDOW)))
def test_within_the_window_any_order_passes_once(order: list[int]) -> None:
    window = Window()
    assert all(window.takes(count) for count in order)
    assert not any(window.takes(count) for count in order)


@given(st.lists(st.integers(0, 4 * WINDOW), max_size=200))
def test_no_count_passes_twice(counts: list[int]) -> None:
    window, taken, newest = Window(), set(), -1
    for number in counts:
        expected = number not in taken and number > newest - WINDOW
        assert window.takes(number) == expected
        if expected:
            taken.add(number)
            newest = max(newest, number)


@pytest.mark.parametrize(
    ("message", "passes"),
    [
        (Heartbeat(1), False),
        (Arm((0,) * 7), False),
        (Clear(), False),
        (Stop(), True),
        (Estop(), True),
        (Disarm(), True),
    ],
)
def test_what_was_held_back_moves_no_arm(message: Message, passes: bool) -> None:
    pair = Pair()
    held = pair.session().seal(encode_frame(7, 0, message))
    pair.device.take(pair.session().seal(FRAME), HERE, 0)
    assert bool(pair.device.take(held, HERE, 0)[0]) == passes
    assert pair.device.counts.late == (not passes)


@given(st.lists(st.binary(min_size=1, max_size=300).map(lambda data: data.replace(b"\0", b"\1") + b"\0")))
def test_frames_travel_whole(frames: list[bytes]) -> None:
    packer, stream = Packer(), b"".join(frames)
    cut = [packer.pack(stream[at : at + 500]) for at in range(0, len(stream), 500)]
    parts = [part for parts in cut for part in parts]
    assert b"".join(parts) == stream
    assert all(part.endswith(b"\0") and len(part) <= MOST_FRAMES_SIZE for part in parts)


class NetworkDevice:
    """A lockstep device behind a faulty network, in place of the device itself."""

    def __init__(self, device: object, line: FaultyNetwork) -> None:
        self.device, self.line = device, line
        self.read, self.write = line.read, line.write

    def __getattr__(self, name: str) -> object:
        return getattr(self.device, name)


def test_heartbeats_that_are_released_late_do_not_keep_an_arm_moving() -> None:
    """Whoever stands between the two can hold datagrams back; to the core each of these is a new tick of the loop."""
    rig = Rig()
    line = FaultyNetwork(rig.device, Faults(), 1, lambda: rig.host_ns)
    rig.client.link.transport = line
    rig.armed()
    held: list[bytes] = []
    session = line.host.end.session
    assert session is not None
    for tick in range(1000, 1030):
        held.append(session.seal(encode_frame(rig.client.link.session, tick, Heartbeat(tick))))
    rig.run(50)
    assert rig.client.last_state is not None and rig.client.last_state.state == DeviceState.ARMED
    for datagram in held:  # the host is gone; one old heartbeat every 10 ms
        line.outward.push(datagram, rig.host_ns)
        for _ in range(10):
            line.pump()
            rig.device.tick()
    assert rig.device.state in (DeviceState.DECEL, DeviceState.HOLD)
    assert line.device.end.counts.late == len(held)
    rig.client.poll(rig.host_ns)
    assert rig.client.last_state.reason == StopReason.HEARTBEAT_LOST
    rig.close()


def key_file(folder: Path, text: str = "correct horse battery staple", rights: int = 0o600) -> Path:
    path = folder / "arm.key"
    path.write_text(text + "\n")
    path.chmod(rights)
    return path


def test_a_key_comes_from_a_file_that_its_owner_alone_reads(tmp_path: Path) -> None:
    path = key_file(tmp_path)
    assert len(read_key(path)) == 32
    for rights in (0o640, 0o604, 0o620, 0o660):
        path.chmod(rights)
        with pytest.raises(PortError, match="others can read or write it; chmod 600"):
            read_key(path)
    with pytest.raises(PortError, match="a key has 16 to 1024 bytes, not 5; make one with"):
        read_key(key_file(tmp_path, "short"))
    with pytest.raises(PortError, match="there is no such file"):
        read_key(tmp_path / "none")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("net:", "something must stand after the colon; write net:HOST:PORT"),
        ("net:10.0.0.2", "needs a key; add key_file=FILE; write net:HOST:PORT"),
        ("net:robot", "needs a key"),
        ("net:10.0.0.2:70000?key_file=k", "an address is HOST:PORT"),
        ("net:10.0.0.2:x?key_file=k", "an address is HOST:PORT"),
        ("net:127.0.0.1?key=k", "unknown option key"),
        ("net:127.0.0.1?key_file=/nowhere/k", "key file /nowhere/k: there is no such file"),
    ],
)
def test_a_bad_url_is_one_line(url: str, message: str) -> None:
    with pytest.raises(PortError, match=message):
        open_transport(url)


def test_without_a_key_nobody_outside_is_listened_to(tmp_path: Path) -> None:
    for text in ("0.0.0.0", "10.0.0.2:5000", "[::]:5000", "robot"):
        with pytest.raises(PortError, match="others could move the arm"):
            listen(text, None)
    with pytest.raises(PortError, match="an address is HOST:PORT"):
        listen("127.0.0.1:port", None)
    listener, place = listen("127.0.0.1:0", None)
    with pytest.raises(PortError, match=rf"{place}: cannot be listened on"):
        listen(str(place), None)
    listener.close()
    listener, place = listen("[::1]:0", key_file(tmp_path))
    assert str(place).startswith("[::1]:")
    listener.close()


def test_a_flood_takes_bounded_work() -> None:
    listener, place = listen("127.0.0.1:0", None)
    sender = UdpSocket(Place(place.host, place.port), connected=True)
    for index in range(3 * MOST_AT_ONCE):
        sender.send(bytes([index & 0xFF]) * (HEAD_SIZE + TAG_SIZE), None)
    seen = [0]
    while True:
        listener.read()
        if listener.end.counts.foreign == seen[-1]:
            break
        seen.append(listener.end.counts.foreign)
    assert max(after - before for before, after in pairwise(seen)) <= MOST_AT_ONCE and seen[-1] > 0
    sender.close()
    listener.close()
