"""One contract for every line: the same device behaves alike on serial, SLCAN, python-can, in process and in QEMU."""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from edge.run.arm import wire_limits
from firmware_bridge.client import DeviceClient, Inbox, KnotChunk
from firmware_bridge.codes import DeviceState, StopReason
from firmware_bridge.errors import HandshakeError
from firmware_bridge.link import Link
from firmware_bridge.messages import Commit, Limits, StateReport
from firmware_bridge.microcontroller import EmulatedDevice, compile_firmware
from firmware_bridge.simulator import LockstepDevice, SimulatedArm, SimulatorProcess
from firmware_bridge.transports import LINES as REGISTERED
from firmware_bridge.transports import LoopbackTransport, Transport, open_transport
from firmware_bridge.transports.can_stream import CanBus, CanIds, cut
from firmware_bridge.transports.python_can import PythonCanBus
from tests.support import FRANKA, swing

ARM = SimulatedArm(FRANKA.name, FRANKA.home_rad)
KERNEL_BUS = os.environ.get("VLA_EDGE_CAN", "vcan0")
"""For the marked tests on the kernel's own CAN, with both ends on this bus. To make one:
`ip link add vcan0 type vcan && ip link set vcan0 mtu 72 up`."""
LINES = [
    *("serial", "slcan", "slcan-fd", "can", "can-fd", "loopback", "qemu"),
    *(pytest.param(kind, marks=pytest.mark.hil) for kind in ("socketcan", "socketcan-fd", "real")),
]


def test_every_line_is_held_to_it() -> None:
    assert {kind.partition("-")[0] for kind in LINES if isinstance(kind, str)} >= set(REGISTERED.builtin)


class DeviceThread:
    """A lockstep device in real time, for lines that live in this process; `pump` moves bytes both ways."""

    def __init__(self) -> None:
        self.device = LockstepDevice(ARM)
        self.stopping = False
        self.thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self.thread.start()

    def close(self) -> None:
        self.stopping = True
        self.thread.join()
        self.device.close()

    def pump(self) -> None:
        raise NotImplementedError

    def _run(self) -> None:
        due = time.monotonic()
        while not self.stopping:
            due += 0.001
            while time.monotonic() < due:
                self.pump()
                time.sleep(0.0002)
            self.device.tick()


class BusDevice(DeviceThread):
    """The device as a node of a CAN bus."""

    def __init__(self, bus: CanBus, fd: bool) -> None:
        super().__init__()
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


class LoopbackDevice(DeviceThread):
    """The device at the other end of a loopback."""

    def __init__(self, end: LoopbackTransport) -> None:
        super().__init__()
        self.end = end

    def pump(self) -> None:
        self.device.write(self.end.read())
        self.end.write(self.device.read())


def open_line(kind: str, stack: ExitStack, folder: Path) -> Transport:
    if kind in ("serial", "slcan", "slcan-fd"):
        process = SimulatorProcess(SimulatedArm(ARM.arm, ARM.start_rad, line=kind))
        stack.callback(process.close)
        return open_transport(f"{kind.partition('-')[0]}:{process.port}" + ("?fd=1" if kind == "slcan-fd" else ""))
    if kind == "real":
        if "VLA_EDGE_BRIDGE" not in os.environ:
            pytest.skip("no device: VLA_EDGE_BRIDGE names one, as edge-run --bridge would; what it drives will MOVE")
        return open_transport(os.environ["VLA_EDGE_BRIDGE"])
    name, _, form = kind.partition("-")
    if name in ("can", "socketcan"):
        interface, channel = ("virtual", kind) if name == "can" else ("socketcan", KERNEL_BUS)
        fd = form == "fd"
        if name == "socketcan" and not Path(f"/sys/class/net/{channel}").exists():
            pytest.skip(f"no CAN interface {channel}; name another in VLA_EDGE_CAN")
        device: DeviceThread = BusDevice(PythonCanBus(interface, channel, 1_000_000, 5_000_000 if fd else None), fd)
        transport = open_transport(f"can:{interface}:{channel}" + ("?fd=1" if fd else ""))
    elif kind == "loopback":
        transport, end = LoopbackTransport.pair()
        device = LoopbackDevice(end)
    else:
        if not (shutil.which("arm-none-eabi-gcc") and shutil.which("qemu-system-arm")):
            pytest.skip("needs gcc-arm-none-eabi, libnewlib-arm-none-eabi and qemu-system-arm")
        elf = folder / "firmware.elf"
        compile_firmware(elf, 0, FRANKA.home_rad)
        board = EmulatedDevice(elf)
        stack.callback(board.close)
        return open_transport(f"serial:{board.port}")
    device.start()
    stack.callback(device.close)
    return transport


@pytest.fixture(scope="module", params=LINES)
def line(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Transport]:
    with ExitStack() as stack:
        transport = open_line(request.param, stack, tmp_path_factory.mktemp("line"))
        stack.callback(transport.close)
        yield transport


class Host:
    """A client on a real line, with a loop that keeps the heart beating."""

    def __init__(self, line: Transport, session: int) -> None:
        self.client = DeviceClient(Link(line, time.monotonic_ns, session), time.sleep)
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
        gathered, until, next_beat = Inbox(), time.monotonic() + seconds, 0.0
        while time.monotonic() < until:
            if heartbeats and time.monotonic() >= next_beat:
                self.tick += 1
                self.client.heartbeat(self.tick)
                next_beat = time.monotonic() + 0.01
            inbox = self.client.poll(time.monotonic_ns())
            gathered.state = inbox.state or gathered.state
            gathered.committed += inbox.committed
            gathered.refused += inbox.refused
            gathered.events += inbox.events
            gathered.naks += inbox.naks
            time.sleep(0.001)
        return gathered

    def until(
        self, state: DeviceState, seconds: float = 5.0, heartbeats: bool = True, chunk: int | None = None
    ) -> StateReport:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            report = self.run(0.03, heartbeats).state
            if report is not None and report.state == state and chunk in (None, report.chunk):
                return report
        raise AssertionError(f"not {state.name} within {seconds} s, but {report}")

    def swing(self, identity: int, start_us: int, knots: int, zero_us: int | None = None) -> KnotChunk:
        return swing(identity, start_us, knots, zero_us=zero_us, around=self.pose)

    def lead(self, seconds: float = 0.2) -> int:
        return int(self.client.link.clock.device_us(time.monotonic_ns()) + 1e6 * seconds) & 0xFFFFFFFF


@pytest.fixture
def host(line: Transport) -> Iterator[Host]:
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
    assert any(host.client.link.exchange_clock(time.sleep, 0.1) for _ in range(2)), "the second frame gets through"


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
