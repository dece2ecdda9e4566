"""One run of the bridge with one fault in it: a scripted host, a line that can go wrong, the real firmware in lockstep.

The host streams a smooth motion drawn from the seed, without a policy, and is as stubborn as can be: it goes on
sending after the device has stopped, so that whatever moves the arm again would be the device's fault.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge.arms import ArmProfile
from edge.log.trace import Trace, read_trace
from edge.run.arm import ConnectedArm
from firmware_bridge.client import DeviceClient, KnotChunk
from firmware_bridge.fault_proxy import Faults, FaultyNetwork, FaultyTransport
from firmware_bridge.link import Link
from firmware_bridge.simulator import LockstepDevice, SimulatedArm

SPACING_US = 100_000
KNOTS = 11
NEW_CHUNK_EVERY_MS = 200
LEAD_US = 60_000
HEARTBEAT_EVERY_MS = 10
RUN_MS = 2600
ONSET_MS = (500, 1200)
HOST_CLOCK_ORIGIN_NS = 10**12


LineMaker: TypeAlias = Callable[[LockstepDevice, Faults, int, Callable[[], int]], FaultyTransport | FaultyNetwork]


@dataclass(frozen=True)
class FaultRun:
    """What one run left behind. `chunks` are those the host sent as it meant to, whole and legal."""

    trace: Trace
    onset_us: int
    chunks: dict[int, KnotChunk]
    committed: int
    refused: int
    bad_frames: int


class Motion:
    """A swing of every joint around the home pose, from rest, well inside all limits."""

    def __init__(self, arm: ArmProfile, draw: Random) -> None:
        self.home = np.array(arm.home_rad)
        self.amplitude = np.array([draw.uniform(-0.15, 0.15) for _ in range(arm.dof)])
        self.rate = np.array([draw.uniform(1.0, 2.5) for _ in range(arm.dof)])

    def chunk(self, identity: int, start_us: int, zero_us: int) -> KnotChunk:
        """Knots from `start_us` on, of the motion that begins at rest at `zero_us`."""
        time_s = 1e-6 * (start_us - zero_us + SPACING_US * np.arange(KNOTS)[:, None])
        q = self.home + self.amplitude * (1 - np.cos(self.rate * time_s))
        dq = self.amplitude * self.rate * np.sin(self.rate * time_s)
        return KnotChunk(identity, start_us % 2**32, SPACING_US, _urad(q), _urad(dq))


@dataclass
class Bench:
    """Device, line and host of one run; a fault acts on it. Everything happens in steps of one tick."""

    arm: ArmProfile
    device: LockstepDevice
    draw: Random
    seed: int
    alive: bool = True
    """Whether the host's process runs."""
    loop_hangs: bool = False
    """Whether its control loop hangs while its I/O goes on."""
    over: LineMaker = FaultyTransport
    """The line to the device: a serial one, or a network."""
    spoil: Callable[[KnotChunk], KnotChunk] | None = None
    """Makes an illegal chunk of a legal one."""
    chunks: dict[int, KnotChunk] = field(default_factory=dict)
    committed: int = 0
    refused: int = 0
    commit_ms: list[float] = field(default_factory=list)
    """From sending a chunk to the acknowledgement of its commit, in the host's time."""

    def __post_init__(self) -> None:
        self._drift = 1.0 + 1e-6 * self.draw.uniform(-100, 100)
        self.line = self.over(self.device, Faults(), self.seed, self.clock_ns)
        self.client = DeviceClient(Link(self.line, self.clock_ns, self.draw.randrange(1, 2**16)), self._idle)
        self._motion = Motion(self.arm, self.draw)
        self._zero_us = 0
        self._loop_tick = 1
        self._next_id = 1
        self._sent_ns = 0

    def clock_ns(self) -> int:
        """The host's clock: another origin than the device's, and up to 100 ppm off."""
        return HOST_CLOCK_ORIGIN_NS + round(self.device.now_us * 1000 * self._drift)

    def arm_device(self) -> None:
        """The whole handshake, and the start of the motion."""
        self.device.tick()
        ConnectedArm.connect(self.arm, self.client).switch_on(self._loop_tick)
        self._zero_us = self._device_us() + LEAD_US

    def step(self, at_ms: int) -> None:
        """One tick: the host acts if it can, the line moves bytes, the device runs."""
        if self.alive:
            self._host(at_ms)
        self.line.pump()
        self.device.tick()

    def take_over_line(self, faults: Faults) -> None:
        """Puts faults on the line from now on."""
        self.line.change(faults)

    def _host(self, at_ms: int) -> None:
        inbox = self.client.poll(self.clock_ns())
        self.committed += len(inbox.committed)
        self.commit_ms += [1e-6 * (self.clock_ns() - self._sent_ns)] * len(inbox.committed)
        self.refused += len(inbox.refused)
        if at_ms % HEARTBEAT_EVERY_MS == 0:
            self._loop_tick += not self.loop_hangs
            self.client.heartbeat(self._loop_tick)
        if at_ms % NEW_CHUNK_EVERY_MS == 0 and not self.loop_hangs and not self.client.commit_pending:
            self._send_chunk()

    def _send_chunk(self) -> None:
        steps = max(0, math.ceil((self._device_us() + LEAD_US - self._zero_us) / SPACING_US))
        chunk = self._motion.chunk(self._next_id, self._zero_us + steps * SPACING_US, self._zero_us)
        self._next_id += 1
        if self.spoil is not None:
            chunk = self.spoil(chunk)
        else:
            self.chunks[chunk.id] = chunk
        self._sent_ns = self.clock_ns()
        self.client.send_chunk(chunk)

    def _device_us(self) -> int:
        return round(self.client.link.clock.device_us(self.clock_ns()))

    def _idle(self, seconds: float) -> None:
        for _ in range(math.ceil(1000 * seconds)):
            self.line.pump()
            self.device.tick()


def run_with_fault(
    arm: ArmProfile,
    seed: int,
    draw: Random,
    strike: Callable[[Bench, int], None],
    trace: Path,
    over: LineMaker = FaultyTransport,
) -> FaultRun:
    """One run; `strike(bench, since_ms)` is called at every tick from the onset of the fault on."""
    device = LockstepDevice(SimulatedArm(arm.name, arm.home_rad, trace=trace))
    try:
        bench = Bench(arm, device, draw, seed, over=over)
        bench.arm_device()
        onset_ms = draw.randrange(*ONSET_MS)
        onset_us = 0
        for at_ms in range(RUN_MS):
            if at_ms == onset_ms:
                onset_us = device.now_us
            if at_ms >= onset_ms:
                strike(bench, at_ms - onset_ms)
            bench.step(at_ms)
    finally:
        device.close()
    link = bench.client.link
    return FaultRun(read_trace(trace), onset_us, bench.chunks, bench.committed, bench.refused, link.bad_frames)


def _urad(values: NDArray[np.float64]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(row) for row in np.rint(values * 1e6).astype(int).tolist())
