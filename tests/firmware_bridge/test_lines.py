"""One contract for every line: the same device behaves alike on serial, SLCAN, CAN, network, in process and in QEMU.

Lines that live in this process run on the device's clock, those to another process in real time.
"""

from __future__ import annotations

import math
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edge.run.arm import wire_limits
from firmware_bridge.client import DeviceClient, Inbox, KnotChunk
from firmware_bridge.codes import DeviceState, StopReason
from firmware_bridge.errors import HandshakeError
from firmware_bridge.fault_proxy import Faults, FaultyNetwork
from firmware_bridge.link import Link
from firmware_bridge.messages import Commit, Limits, StateReport
from firmware_bridge.microcontroller import EmulatedDevice, compile_firmware
from firmware_bridge.simulator import LockstepDevice, SimulatedArm, SimulatorProcess
from firmware_bridge.transports import LINES as REGISTERED
from firmware_bridge.transports import LoopbackTransport, Transport, open_transport
from firmware_bridge.transports.can_stream import CanBus, CanIds, cut
from firmware_bridge.transports.datagrams import NUMBER_SIZE, read_key
from firmware_bridge.transports.network import NetworkTransport, UdpSocket, listen
from firmware_bridge.transports.python_can import PythonCanBus
from tests.support import FRANKA, swing

ARM = SimulatedArm(FRANKA.name, FRANKA.home_rad)
KERNEL_BUS = os.environ.get("VLA_EDGE_CAN", "vcan0")
"""For the marked tests on the kernel's own CAN, with both ends on this bus. To make one:
`ip link add vcan0 type vcan && ip link set vcan0 mtu 72 up`."""


def in_real_time(kind: str) -> list[pytest.MarkDecorator]:
    """What such a line does is waiting, so that several may wait at once, each in a process of pytest's."""
    return [pytest.mark.real_time, pytest.mark.side_by_side, pytest.mark.xdist_group(kind)]


LINES = [
    *("can", "can-fd", "loopback", "net", "net-faulty"),
    *(pytest.param(kind, marks=in_real_time(kind)) for kind in ("serial", "slcan", "slcan-fd", "qemu")),
    *(pytest.param(kind, marks=pytest.mark.hil) for kind in ("socketcan", "socketcan-fd", "real")),
]


def test_every_line_is_held_to_it() -> None:
    held = {kind if isinstance(kind, str) else kind.values[0] for kind in LINES}
    assert {str(kind).partition("-")[0] for kind in held} >= set(REGISTERED.builtin)


@dataclass(frozen=True)
class Line:
    """The host's end, and the time that passes for both ends."""

    transport: Transport
    now_ns: Callable[[], int] = time.monotonic_ns
    sleep: Callable[[float], None] = time.sleep


class LineDevice:
    """A lockstep device at the other end of a line that lives in this process: its ticks are the clock of both ends.

    `pump` moves bytes both ways; a bus of the kernel's gets `tick_s` of real time a tick.
    """

    def __init__(self, tick_s: float = 0.0) -> None:
        self.device, self.tick_s = LockstepDevice(ARM), tick_s

    def now_ns(self) -> int:
        return 1000 * self.device.now_us

    def sleep(self, seconds: float) -> None:
        for _ in range(math.ceil(1000 * seconds)):
            self.pump()
            self.device.tick()
            self.pump()
            if self.tick_s:
                time.sleep(self.tick_s)

    def close(self) -> None:
        self.device.close()

    def pump(self) -> None:
        raise NotImplementedError


class BusDevice(LineDevice):
    """The device as a node of a CAN bus."""

    def __init__(self, bus: CanBus, fd: bool, tick_s: float) -> None:
        super().__init__(tick_s)
        self.bus, self.fd, self.ids = bus, fd, CanIds()

    def pump(self) -> None:
        for frame in self.bus.receive():
            if frame.id in (self.ids.urgent, self.ids.chunks):
                self.device.write(frame.data, channel=int(frame.id == self.ids.urgent))
        for frame in cut(self.ids.reports, self.device.read(), self.fd):
            self.bus.send(frame)

    def close(self) -> None:
        super().close()
        self.bus.close()


class NetworkDevice(LineDevice):
    """The device where a network line ends, with both ends on this computer."""

    def __init__(self, key_file: Path) -> None:
        super().__init__()
        self.listener, place = listen("127.0.0.1:0", key_file)
        self.socket = UdpSocket(place, connected=True)
        self.host = NetworkTransport(self.socket, read_key(key_file), self.now_ns, b"h" * NUMBER_SIZE)
        while not self.host.is_open:
            self.host.read()
            self.sleep(0.001)

    def pump(self) -> None:
        self.device.write(self.listener.read())
        self.listener.write(self.device.read())

    def close(self) -> None:
        super().close()
        self.listener.close()


class FaultyNetworkDevice(LineDevice):
    """The same over a network that loses 1 % and delays by up to 5 ms, so that one datagram overtakes another."""

    def __init__(self) -> None:
        super().__init__()
        self.network = FaultyNetwork(self.device, Faults(loss=0.01, jitter_ms=5.0, duplicate=0.01), 1, self.now_ns)
        while not self.network.host.is_open:
            self.network.read()
            self.sleep(0.001)

    def pump(self) -> None:
        self.network.pump()


class LoopbackDevice(LineDevice):
    """The device at the other end of a loopback."""

    def __init__(self, end: LoopbackTransport) -> None:
        super().__init__()
        self.end = end

    def pump(self) -> None:
        self.device.write(self.end.read())
        self.end.write(self.device.read())


def open_line(kind: str, stack: ExitStack, folder: Path) -> Line:
    if kind in ("serial", "slcan", "slcan-fd"):
        process = SimulatorProcess(SimulatedArm(ARM.arm, ARM.start_rad, line=kind))
        stack.callback(process.close)
        url = f"{kind.partition('-')[0]}:{process.port}" + ("?fd=1" if kind == "slcan-fd" else "")
        return Line(open_transport(url))
    if kind == "real":
        if "VLA_EDGE_BRIDGE" not in os.environ:
            pytest.skip("no device: VLA_EDGE_BRIDGE names one, as edge-run --bridge would; what it drives will MOVE")
        return Line(open_transport(os.environ["VLA_EDGE_BRIDGE"]))
    name, _, form = kind.partition("-")
    if name in ("can", "socketcan"):
        interface, channel = ("virtual", kind) if name == "can" else ("socketcan", KERNEL_BUS)
        fd = form == "fd"
        if name == "socketcan" and not Path(f"/sys/class/net/{channel}").exists():
            pytest.skip(f"no CAN interface {channel}; name another in VLA_EDGE_CAN")
        bus = PythonCanBus(interface, channel, 1_000_000, 5_000_000 if fd else None)
        device: LineDevice = BusDevice(bus, fd, 0.001 if name == "socketcan" else 0.0)
        transport = open_transport(f"can:{interface}:{channel}" + ("?fd=1" if fd else ""))
    elif kind == "net":
        key = folder / "arm.key"
        key.touch(0o600)
        key.write_text("a key of sixteen bytes")
        device = network = NetworkDevice(key)
        transport = network.host
    elif kind == "net-faulty":
        device = faulty = FaultyNetworkDevice()
        transport = faulty.network
    elif kind == "loopback":
        transport, end = LoopbackTransport.pair()
        device = LoopbackDevice(end)
    else:
        if not (shutil.which("arm-none-eabi-gcc") and shutil.which("qemu-system-arm")):
            pytest.skip("needs gcc-arm-none-eabi, libnewlib-arm-none-eabi and qemu-system-arm")
        elf = folder / "firmware.elf"
        compile_firmware(elf, FRANKA.name, FRANKA.home_rad)
        board = EmulatedDevice(elf)
        stack.callback(board.close)
        return Line(open_transport(f"serial:{board.port}"))
    stack.callback(device.close)
    return Line(transport, device.now_ns, device.sleep)


@pytest.fixture(scope="module", params=LINES)
def line(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    with ExitStack() as stack:
        line = open_line(request.param, stack, tmp_path_factory.mktemp("line"))
        stack.callback(line.transport.close)
        yield line


class Host:
    """A client on a line, with a loop that keeps the heart beating."""

    def __init__(self, line: Line, session: int) -> None:
        self.line = line
        self.client = DeviceClient(Link(line.transport, line.now_ns, session), line.sleep)
        self.client.connect("franka", FRANKA.hash32, 7)
        self.tick = 0
        self.pose = np.zeros(7)

    def armed(self) -> Host:
        self.client.set_limits(wire_limits(FRANKA.operating))
        self.client.synchronise_clock()
        state = self.client.wait_for_state()
        self.tick += 1
        self.client.arm(state.measured_urad, self.tick)
        self.pose = np.array(self.client.wait_for_state().commanded_urad) * 1e-6
        return self

    def run(self, seconds: float, heartbeats: bool = True) -> Inbox:
        gathered, until_ns, next_beat_ns = Inbox(), self.line.now_ns() + round(1e9 * seconds), 0
        while (now_ns := self.line.now_ns()) < until_ns:
            if heartbeats and now_ns >= next_beat_ns:
                self.tick += 1
                self.client.heartbeat(self.tick)
                next_beat_ns = now_ns + 10_000_000
            inbox = self.client.poll(now_ns)
            gathered.state = inbox.state or gathered.state
            gathered.committed += inbox.committed
            gathered.refused += inbox.refused
            gathered.events += inbox.events
            gathered.naks += inbox.naks
            self.line.sleep(0.001)
        return gathered

    def until(
        self, state: DeviceState, seconds: float = 5.0, heartbeats: bool = True, chunk: int | None = None
    ) -> StateReport:
        deadline_ns = self.line.now_ns() + round(1e9 * seconds)
        while self.line.now_ns() < deadline_ns:
            report = self.run(0.03, heartbeats).state
            if report is not None and report.state == state and chunk in (None, report.chunk):
                return report
        raise AssertionError(f"not {state.name} within {seconds} s, but {report}")

    def swing(self, identity: int, start_us: int, knots: int, zero_us: int | None = None) -> KnotChunk:
        return swing(identity, start_us, knots, zero_us=zero_us, around=self.pose)

    def lead(self, seconds: float = 0.2) -> int:
        return int(self.client.link.clock.device_us(self.line.now_ns()) + 1e6 * seconds) & 0xFFFFFFFF


@pytest.fixture
def host(line: Line) -> Iterator[Host]:
    """A new session; whatever a test leaves, the next one finds the drive off."""
    sessions = random.Random()
    host = Host(line, sessions.randint(1, 0xFFFF))
    yield host
    host.client.estop()
    host.run(0.3)
    after = Host(line, (host.client.link.session % 0xFFFF) + 1)
    after.client.clear()
    after.until(DeviceState.IDLE)


def rest_at(identity: int, start_us: int, q_urad: tuple[int, ...], travel_urad: int) -> KnotChunk:
    """A chunk that moves every joint by `travel_urad` in 0.8 s and ends at rest."""
    shares = [0.0, 0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0, 1.0]
    speeds = [0.0, 0.0, 1.25, 2.25, 2.5, 2.25, 1.25, 0.0, 0.0]
    rows = tuple(tuple(q + round(share * travel_urad) for q in q_urad) for share in shares)
    velocities = tuple(tuple(round(speed * travel_urad) for _ in q_urad) for speed in speeds)
    return KnotChunk(identity, start_us, 100_000, rows, velocities)


def test_a_chunk_is_executed_and_comes_to_rest(host: Host) -> None:
    host.armed()
    before = host.client.wait_for_state().commanded_urad
    host.client.send_chunk(rest_at(1, host.lead(), before, 50_000))
    inbox = host.run(0.15)
    assert inbox.committed == [1] and not inbox.refused
    host.until(DeviceState.STREAMING)
    after = host.until(DeviceState.ARMED).commanded_urad
    assert [now - then for now, then in zip(after, before)] == [50_000] * 7


def test_a_second_chunk_takes_over_without_a_step(host: Host) -> None:
    host.armed()
    start = host.lead()
    host.client.send_chunk(host.swing(1, start, knots=16))
    host.run(0.5)
    host.client.send_chunk(host.swing(2, start + 1_000_000, knots=16, zero_us=start))
    assert host.run(0.2).committed == [2]
    report = host.until(DeviceState.STREAMING, chunk=2)
    assert report.interventions == 0


def test_a_chunk_with_a_hole_is_refused_and_sent_again(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.armed()
    whole = host.swing(1, host.lead(0.4), knots=30)
    messages = whole.messages()
    sent = []
    monkeypatch.setattr(type(whole), "messages", lambda self: sent.append(1) or messages[len(sent) == 1 :])
    host.client.send_chunk(whole)
    inbox = host.run(0.3)
    assert inbox.committed == [1] and len(sent) >= 2


def test_a_commit_without_knots_is_refused(host: Host) -> None:
    host.armed()
    host.client.link.send(Commit(9, 5, 0, host.lead(), 100_000, 0))
    state = host.run(0.1).state
    assert state is not None and (state.state, state.refusals > 0) == (DeviceState.ARMED, True)


def test_garbage_costs_no_more_than_the_frame_it_hits(host: Host) -> None:
    noise = random.Random(1)
    for _ in range(20):
        host.client.link.transport.write(bytes([0x55, 0x06]) + noise.randbytes(200))
    assert any(host.client.link.exchange_clock(host.line.sleep, 0.1) for _ in range(2)), "the second frame gets through"


def test_stop_brings_the_arm_to_rest(host: Host) -> None:
    host.armed()
    host.client.send_chunk(host.swing(1, host.lead(0.1), knots=40))
    host.until(DeviceState.STREAMING)
    host.client.stop()
    assert host.until(DeviceState.HOLD).reason == StopReason.HOST_STOP
    host.client.disarm()
    host.until(DeviceState.IDLE)


def test_a_missing_heartbeat_stops_the_arm(host: Host) -> None:
    host.armed()
    host.client.send_chunk(host.swing(1, host.lead(0.1), knots=40))
    host.until(DeviceState.STREAMING)
    assert host.until(DeviceState.HOLD, heartbeats=False).reason == StopReason.HEARTBEAT_LOST


def test_an_emergency_stop_latches(host: Host) -> None:
    host.armed()
    host.client.estop()
    host.until(DeviceState.ESTOP)
    with pytest.raises(HandshakeError, match="same session"):
        host.client.clear()


def test_wider_limits_are_refused(host: Host) -> None:
    wide = wire_limits(FRANKA.limits)
    wider = Limits(*(getattr(wide, row) for row in Limits.JOINT_ROWS[:4]), tuple(2 * j for j in wide.jerk_mrad_s3))
    with pytest.raises(HandshakeError, match="wider than compiled"):
        host.client.set_limits(wider)
