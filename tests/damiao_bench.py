"""The simulated motors of a YAM in this process, on a clock that stands still until somebody waits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edge.arms import load_arm
from edge.arms.damiao import load_motors
from firmware_bridge.adapters import Adapter
from firmware_bridge.adapters.damiao.drive import BRIDGED_PERIODS, DamiaoDrive
from firmware_bridge.adapters.damiao.gravity import GravityModel
from firmware_bridge.adapters.damiao.motors import CYCLE_PERIODS, BusShare
from firmware_bridge.adapters.damiao.simulated import BusFaults, SimulatedBus, SimulatedMotor, simulated_motors
from firmware_bridge.client import KnotChunk
from firmware_bridge.codes import TICK_US, DeviceState
from firmware_bridge.errors import LinkLost
from firmware_bridge.hosted import HostedDevice
from firmware_bridge.messages import Nak
from firmware_bridge.transports.can_stream import CanFrame
from tests.servo_bench import Line, SteppedClock
from tests.support import Rig, chunk_from

YAM = load_arm("yam")
MOTORS = load_motors(YAM)
CYCLE_NS = 1_000_000 * CYCLE_PERIODS
CARRIED_KG = 1.2
"""The gripper, and half a kilogram of which the drive knows nothing."""
SOUND = BusFaults()


class Motion:
    """A swing of every joint of a YAM around a pose, from rest; a chunk replaces the one before after `EVERY_US`."""

    AMPLITUDE_RAD = np.array([0.6, 0.4, 0.4, 0.4, 0.5, 0.6])
    RATE_1_S = 1.5
    SPACING_US, KNOTS, EVERY_US = 100_000, 11, 400_000

    def __init__(self, origin_rad: np.ndarray, zero_us: int) -> None:
        self.origin_rad, self.zero_us = origin_rad, zero_us

    def chunk(self, number: int) -> KnotChunk:
        start_us = self.zero_us + number * self.EVERY_US
        phase = self.RATE_1_S * 1e-6 * (number * self.EVERY_US + self.SPACING_US * np.arange(self.KNOTS)[:, None])
        q = self.origin_rad + self.AMPLITUDE_RAD * np.sin(phase) ** 3
        dq = self.AMPLITUDE_RAD * 3 * self.RATE_1_S * np.sin(phase) ** 2 * np.cos(phase)
        return chunk_from(number + 1, start_us % 2**32, q, dq, self.SPACING_US)


class SimulatedCan:
    """A `CanBus` to the simulated motors. `broken` is an adapter that was pulled out."""

    def __init__(self, bus: SimulatedBus, clock: SteppedClock) -> None:
        self.bus, self.clock = bus, clock
        self.broken = False
        self.sent: list[CanFrame] = []
        self._coming: deque[tuple[int, CanFrame]] = deque()

    def send(self, frame: CanFrame) -> bool:
        self._check()
        self.sent.append(frame)
        self._coming += self.bus.receive(frame, self.clock.ns)
        return True

    def receive(self) -> list[CanFrame]:
        self._check()
        self.bus.advance(self.clock.ns)
        arrived = []
        while self._coming and self._coming[0][0] <= self.clock.ns:
            arrived.append(self._coming.popleft()[1])
        return arrived

    def close(self) -> None:
        pass

    def _check(self) -> None:
        if self.broken:
            raise LinkLost("the adapter was pulled out")


class DamiaoBench:
    """Motors, bus and drive. `core` adds the firmware's core and the adapter: then the rig of `tests.support` fits."""

    def __init__(
        self,
        faults: BusFaults = SOUND,
        core: bool = False,
        trace: Path | None = None,
        change: Callable[[list[SimulatedMotor]], None] = lambda motors: None,
        propped: bool = True,
    ) -> None:
        self.clock = SteppedClock()
        self.motors = simulated_motors(MOTORS, YAM.home_rad)
        change(self.motors)
        self.bus = SimulatedBus(MOTORS, self.motors, faults, self.clock.ns, CARRIED_KG)
        self.bus.is_propped = propped
        self.can = SimulatedCan(self.bus, self.clock)
        self.said: list[str] = []
        self.drive = self.open_drive()
        self.seen: list[tuple[int, np.ndarray]] = []
        if core:
            self._line = Line(self)
            self.host_ns = self.clock.ns
            self.core = HostedDevice("yam", self.drive.position_rad, trace)
            idle_us = BRIDGED_PERIODS * TICK_US
            self.adapter = Adapter(
                self.core, self.drive, self._line, self.clock.now_ns, BRIDGED_PERIODS, CYCLE_PERIODS, idle_us
            )

    def open_drive(self) -> DamiaoDrive:
        """Connects to the motors, as the last one left them."""
        return DamiaoDrive(
            lambda: self.can,
            MOTORS,
            GravityModel([spec.link for spec in MOTORS.motors], MOTORS.tool_kg),
            BusShare(len(MOTORS.motors), 1_000_000),
            self.said.append,
            self.clock.now_ns,
            self.clock.sleep,
        )

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
        while self.clock.ns + CYCLE_NS <= self.host_ns:
            self.adapter.step()
            self.seen.append((self.clock.ns, np.array(self.bus.joints_rad)))

    def read(self) -> bytes:
        return self._line.for_host(self.host_ns)

    def write(self, data: bytes) -> None:
        self._line.from_host(self.host_ns, data)

    def close(self) -> None:
        self.core.close()


class DamiaoRig(Rig):
    """The rig on a bench with a core."""

    def __init__(self, bench: DamiaoBench) -> None:
        super().__init__(arm=YAM, device=bench)

    def _idle(self, seconds: float) -> None:
        self.device.run_s(seconds)

    @property
    def device_us(self) -> int:
        """Device time at the host's present."""
        return round(self.client.link.clock.device_us(self.device.host_ns))

    def commit(self, chunk: KnotChunk) -> Nak | None:
        """As in the rig, through a line that is read once a cycle."""
        self.client.send_chunk(chunk)
        inbox = self.run(12)
        assert len(inbox.committed) + len(inbox.refused) == 1
        return inbox.refused[0][1] if inbox.refused else None
