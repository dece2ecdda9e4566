"""What benches of simulated buses share: a clock that stands still until somebody waits, the core, and its line."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from firmware_bridge.adapters import Adapter
from firmware_bridge.adapters.bus_drive import BRIDGED_PERIODS, BusDrive
from firmware_bridge.adapters.latch import LatchFile
from firmware_bridge.adapters.simulated_can import SimulatedArm
from firmware_bridge.client import KnotChunk
from firmware_bridge.codes import TICK_US, DeviceState
from firmware_bridge.errors import LinkLost
from firmware_bridge.hosted import HostedDevice
from firmware_bridge.messages import Nak
from firmware_bridge.transports.can_stream import CanFrame
from tests.support import Rig, chunk_from

POLL_NS = 50_000


class SteppedClock:
    def __init__(self) -> None:
        self.ns = 1_000_000_000

    def now_ns(self) -> int:
        return self.ns

    def wait(self, seconds: float) -> None:
        """Something may have arrived after a moment."""
        self.ns += min(POLL_NS, max(1, round(seconds * 1e9)))

    def sleep(self, seconds: float) -> None:
        self.ns += max(1, round(seconds * 1e9))


class Swing:
    """A swing of every axis around a pose, from rest; a chunk replaces the one before after `EVERY_US`."""

    SPACING_US, KNOTS, EVERY_US = 100_000, 11, 400_000

    def __init__(self, amplitude_rad: Sequence[float], rate_1_s: float, origin_rad: np.ndarray, zero_us: int) -> None:
        self._amplitude_rad, self._rate_1_s = np.array(amplitude_rad), rate_1_s
        self._origin_rad, self._zero_us = origin_rad, zero_us

    def chunk(self, number: int) -> KnotChunk:
        start_us = self._zero_us + number * self.EVERY_US
        phase = self._rate_1_s * 1e-6 * (number * self.EVERY_US + self.SPACING_US * np.arange(self.KNOTS)[:, None])
        q = self._origin_rad + self._amplitude_rad * np.sin(phase) ** 3
        dq = self._amplitude_rad * 3 * self._rate_1_s * np.sin(phase) ** 2 * np.cos(phase)
        return chunk_from(number + 1, start_us % 2**32, q, dq, self.SPACING_US)


class Line:
    """Between host and adapter, whose clocks are a little apart: nobody reads what is written later than now."""

    def __init__(self, bench: BusBench) -> None:
        self._bench = bench
        self.is_clear = True
        self._to_device: deque[tuple[int, bytes]] = deque()
        self._to_host: deque[tuple[int, bytes]] = deque()

    def read(self) -> bytes:
        return self._until(self._to_device, self._bench.clock.ns)

    def write(self, data: bytes) -> None:
        self._to_host.append((self._bench.clock.ns, data))

    def from_host(self, now_ns: int, data: bytes) -> None:
        self._to_device.append((now_ns, data))

    def for_host(self, now_ns: int) -> bytes:
        return self._until(self._to_host, now_ns)

    @staticmethod
    def _until(waiting: deque[tuple[int, bytes]], now_ns: int) -> bytes:
        data = b""
        while waiting and waiting[0][0] <= now_ns:
            data += waiting.popleft()[1]
        return data

    def close(self) -> None:
        pass


class SimulatedCan:
    """A `CanBus` to a simulated arm. `broken` is an adapter that was pulled out."""

    def __init__(self, arm: SimulatedArm, clock: SteppedClock) -> None:
        self.arm, self.clock = arm, clock
        self.broken = False
        self.sent: list[CanFrame] = []

    def send(self, frame: CanFrame) -> bool:
        self._check()
        self.sent.append(frame)
        self.arm.receive(frame, self.clock.ns)
        return True

    def receive(self) -> list[CanFrame]:
        self._check()
        return self.arm.arrived(self.clock.ns)

    def close(self) -> None:
        pass

    def _check(self) -> None:
        if self.broken:
            raise LinkLost("the adapter was pulled out")


class BusBench:
    """A bus on its clock. With a core and the adapter it is what the rig of `tests.support` asks of a device."""

    drive: BusDrive[Any]

    def __init__(self) -> None:
        self.clock = SteppedClock()
        self.seen: list[tuple[int, np.ndarray]] = []

    @property
    def joints_rad(self) -> np.ndarray:
        """Where the joints are, not what the bus tells."""
        raise NotImplementedError

    def _begin_core(
        self, arm: str, drive: BusDrive[Any], trace: Path | None = None, latch: LatchFile | None = None
    ) -> None:
        self._line, self._name = Line(self), arm
        bridged, cycle = BRIDGED_PERIODS, drive.CYCLE_PERIODS
        self._cycle_ns = 1000 * TICK_US * cycle
        self.host_ns = self.clock.ns
        self.core = HostedDevice(arm, drive.position_rad, trace)
        self.adapter = Adapter(
            self.core, drive, self._line, self.clock.now_ns, bridged, cycle, bridged * TICK_US, latch
        )

    def begins_again(self, latch: LatchFile) -> None:
        """Another process: a new core and a new line beside the same arm."""
        self.core.close()
        self._begin_core(self._name, self.drive, latch=latch)

    # What the rig of tests.support asks of a device

    @property
    def now_us(self) -> int:
        """The host's clock; the adapter is behind it by less than a cycle."""
        return self.host_ns // 1000

    @property
    def state(self) -> DeviceState:
        return self.core.state

    def tick(self, count: int = 1) -> None:
        """Milliseconds."""
        self.run_s(1e-3 * count)

    def run_s(self, seconds: float) -> None:
        self.host_ns += round(1e9 * seconds)
        while self.clock.ns + self._cycle_ns <= self.host_ns:
            self.adapter.step()
            self.seen.append((self.clock.ns, self.joints_rad))

    def read(self) -> bytes:
        return self._line.for_host(self.host_ns)

    def write(self, data: bytes) -> None:
        self._line.from_host(self.host_ns, data)

    def close(self) -> None:
        self.core.close()


class BusRig(Rig):
    """The rig on a bench with a core."""

    def _idle(self, seconds: float) -> None:
        self.device.run_s(seconds)

    @property
    def device_us(self) -> int:
        """Device time at the host's present."""
        return round(self.client.link.clock.device_us(self.device.host_ns))

    def swing(self, swing: Callable[[np.ndarray, int], Swing], seconds: float) -> None:
        """Streams one from where the arm is commanded to be, for so long; every chunk is committed."""
        motion = swing(np.array(self.state().commanded_urad) * 1e-6, self.device_us + 100_000)
        for number in range(round(1e6 * seconds / Swing.EVERY_US)):
            self.client.send_chunk(motion.chunk(number))
            inbox = self.run(Swing.EVERY_US // 1000)
            assert inbox.committed == [number + 1], inbox

    def commit(self, chunk: KnotChunk) -> Nak | None:
        """As in the rig, through a line that is read once a cycle."""
        self.client.send_chunk(chunk)
        inbox = self.run(12)
        assert len(inbox.committed) + len(inbox.refused) == 1
        return inbox.refused[0][1] if inbox.refused else None
