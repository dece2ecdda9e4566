"""The simulated device in real time with a client in front, on a line that may be slow."""

from __future__ import annotations

import time
from typing import Any

from edge.arms import load_arm
from edge.run.arm import ConnectedArm
from firmware_bridge.client import DeviceClient, KnotChunk
from firmware_bridge.errors import BridgeError
from firmware_bridge.fault_proxy import Faults, FaultyTransport
from firmware_bridge.framing import encode_frame
from firmware_bridge.link import Link
from firmware_bridge.simulator import SimulatedArm, SimulatorProcess
from firmware_bridge.transports import SerialTransport, Transport
from firmware_bridge.transports.can_stream import CanIds, CanTransport, cut
from firmware_bridge.transports.slcan import SlcanBus

ARM = "franka"
KNOTS, JOINTS = 16, 7
"""What a chunk of the policy's horizon of 15 steps has."""
SPACING_US = 100_000
MARGIN_US = 40_000
LOOK_S = 20e-6
PAUSE_S = 0.03
"""Until a chunk has begun, and a place in the device is free."""
BITRATE, DATA_BITRATE = 1_000_000, 5_000_000
"""What the adapter is told; how fast the simulated bus really is, the proxy decides."""


def chunk_sizes(knots: int) -> dict[str, int]:
    """Bytes of a chunk on a serial line and as payload of CAN FD frames, positions alone and with velocities."""
    row = tuple(range(1_000_001, 1_000_001 + JOINTS))
    sizes = {}
    for name, velocities in (("positions", None), ("with velocities", (row,) * knots)):
        messages = KnotChunk(1, 1, SPACING_US, (row,) * knots, velocities).messages()
        frames = [encode_frame(1, 1, message) for message in messages]
        sizes[f"serial, {name}"] = sum(map(len, frames))
        sizes[f"CAN FD payload, {name}"] = sum(len(part.data) for frame in frames for part in cut(0x210, frame, True))
    return sizes


class LinkRig:
    """One line to one device; `how` is serial, slcan or slcan-fd.

    Faults stand in the bytes of the port: those of the protocol on a serial line, the adapter's text on a CAN bus.
    """

    def __init__(self, how: str, faults: Faults, knots: int = KNOTS) -> None:
        self.knots = knots
        self.arm = load_arm(ARM)
        self.process = SimulatorProcess(SimulatedArm(self.arm.name, self.arm.home_rad, line=how))  # type: ignore[arg-type]
        port: Any = SerialTransport(self.process.port)
        self._pump = lambda: None
        if faults != Faults():
            port = FaultyTransport(port, faults, 0, time.monotonic_ns)
            self._pump = port.pump
        line: Transport = port
        if how != "serial":
            fd = how == "slcan-fd"
            line = CanTransport(SlcanBus(port, BITRATE, DATA_BITRATE if fd else None), CanIds(), fd)
        self.client = DeviceClient(Link(line, time.monotonic_ns, 1), self._idle)
        self._tick = 0
        try:
            self.connected = ConnectedArm.connect(self.arm, self.client)
        except BridgeError:
            self.close()
            raise

    def _idle(self, seconds: float) -> None:
        """A paced line moves only when somebody looks at it."""
        until = time.monotonic() + seconds
        while True:
            self._pump()
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, LOOK_S))

    def clock_errors_us(self, seconds: float) -> list[float]:
        """Absolute errors of the host's estimate, every 5 ms, while the clocks are kept as in a run.

        The simulated device counts this machine's monotonic clock and says when it began, so the truth is known.
        """
        zero_ns, errors = self.process.description["zero_ns"], []
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(0.005)
            self.client.poll(time.monotonic_ns())
            self.client.keep_clock(time.monotonic_ns(), slack_s=0.1)
            now_ns = time.monotonic_ns()
            errors.append(abs(self.client.link.clock.device_us(now_ns) - (now_ns - zero_ns) / 1000))
        return errors

    def commit_times_ms(self, count: int) -> tuple[list[float], list[float]]:
        """From a chunk's first byte to its acknowledgement, and from its last; one chunk after the other, at rest.

        The first tells how long the line takes and is not counted: the lead of the others follows from it. The last
        byte counts as sent when the line has taken it, which a paced one does before it has passed it on.
        """
        client, link = self.client, self.client.link
        self.connected.switch_on()
        here = client.wait_for_state().commanded_urad
        rest = (0,) * len(here)
        times: list[float] = []
        after_last: list[float] = []
        lead_us = 500_000
        for number in range(count + 1):
            start_us = int(link.clock.device_us(time.monotonic_ns()) + lead_us) & 0xFFFFFFFF
            began_ns = time.monotonic_ns()
            knots = (here,) * self.knots, (rest,) * self.knots
            client.send_chunk(KnotChunk(number % 60_000 + 1, start_us, SPACING_US, *knots))
            written_ns = time.monotonic_ns()
            self._until_committed()
            done_ns = time.monotonic_ns()
            times.append((done_ns - began_ns) / 1e6)
            after_last.append((done_ns - written_ns) / 1e6)
            if number == 0:
                lead_us = round(2000 * times[0]) + MARGIN_US
            until = time.monotonic() + PAUSE_S + lead_us / 1e6
            while time.monotonic() < until:
                self._beat()
                client.poll(time.monotonic_ns())
                self._idle(0.001)
        return times[1:], after_last[1:]

    def _until_committed(self) -> None:
        while self.client.commit_pending:
            self._beat()
            inbox = self.client.poll(time.monotonic_ns())
            if inbox.refused:
                raise BridgeError(f"a chunk was refused: {inbox.refused[0][1]}")
            time.sleep(LOOK_S)

    def _beat(self) -> None:
        tick = int(time.monotonic() * 100)
        if tick != self._tick:
            self._tick = tick
            self.client.heartbeat(tick)

    def close(self) -> None:
        """Ends the device."""
        self.client.link.transport.close()
        self.process.close()
