"""Shared by the tests: a lockstep device with a client in front, and chunks to send."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.arms import ArmProfile, load_arm
from edge.session import wire_limits
from firmware_bridge.client import DeviceClient, Inbox, KnotChunk
from firmware_bridge.link import Link
from firmware_bridge.messages import Nak, StateReport
from firmware_bridge.simulator import LockstepDevice, SimulatedArm

FRANKA = load_arm("franka")
HOME = np.array(FRANKA.home_rad)


class Rig:
    """A device in lockstep and a client; `heartbeats` can be turned off to starve the watchdog."""

    def __init__(self, trace: Path | None = None, arm: ArmProfile = FRANKA, session: int = 7) -> None:
        self.arm = arm
        self.device = LockstepDevice(SimulatedArm(arm.name, arm.home_rad, trace=trace))
        self.client = self.new_client(session)
        self.heartbeats = True
        self.loop_tick = 1
        self.inbox = Inbox()

    def new_client(self, session: int) -> DeviceClient:
        return DeviceClient(Link(self.device, lambda: self.device.now_us * 1000, session), self._idle)

    def _idle(self, seconds: float) -> None:
        self.device.tick(math.ceil(1000 * seconds))

    def armed(self) -> Rig:
        """Brings the device to ARMED through the whole handshake."""
        self.device.tick()
        self.client.connect(self.arm.name, self.arm.hash32, self.arm.dof)
        self.client.set_limits(wire_limits(self.arm.operating))
        self.client.synchronise_clock()
        self.client.arm(self.client.wait_for_state().measured_urad, self.loop_tick)
        return self

    def run(self, milliseconds: int) -> Inbox:
        """Lets time pass with heartbeats every 10 ms; returns everything that arrived meanwhile."""
        gathered = Inbox()
        for step in range(milliseconds):
            if self.heartbeats and step % 10 == 0:
                self.loop_tick += 1
                self.client.heartbeat(self.loop_tick)
            self.device.tick()
            inbox = self.client.poll(self.device.now_us * 1000)
            gathered.state = inbox.state or gathered.state
            gathered.committed += inbox.committed
            gathered.refused += inbox.refused
            gathered.events += inbox.events
            gathered.naks += inbox.naks
        return gathered

    def state(self) -> StateReport:
        state = self.run(20).state
        assert state is not None
        return state

    def commit(self, chunk: KnotChunk) -> Nak | None:
        """Sends a chunk and waits for the answer: None when it was accepted."""
        self.client.send_chunk(chunk)
        inbox = self.run(2)
        assert len(inbox.committed) + len(inbox.refused) == 1
        return inbox.refused[0][1] if inbox.refused else None

    def close(self) -> None:
        self.device.close()


def chunk_from(
    identity: int, start_us: int, q_rad: NDArray[np.float64], dq_rad_s: NDArray[np.float64] | None, spacing_us: int
) -> KnotChunk:
    """A chunk from rows of knots in radians."""

    def rows(values: NDArray[np.float64]) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(row) for row in np.rint(values * 1e6).astype(int).tolist())

    return KnotChunk(identity, start_us, spacing_us, rows(q_rad), None if dq_rad_s is None else rows(dq_rad_s))


def swing(
    identity: int,
    start_us: int,
    knots: int = 11,
    spacing_us: int = 100_000,
    amplitude: float = 0.2,
    zero_us: int | None = None,
    around: NDArray[np.float64] = HOME,
) -> KnotChunk:
    """Knots on a smooth swing from a pose that begins at rest at `zero_us` (default: at the start of the chunk)."""
    zero_us = start_us if zero_us is None else zero_us
    times = (start_us - zero_us + spacing_us * np.arange(knots)[:, None]) * 1e-6
    rate = 2.0
    q = around + amplitude * (1 - np.cos(rate * times))
    return chunk_from(identity, start_us, q, amplitude * rate * np.sin(rate * times) * np.ones(7), spacing_us)
