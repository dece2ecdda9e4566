"""A device that answers for an arm: the handshake, the limits, the clock and the lead time, in one place."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, replace

import numpy as np

from edge.arms import ArmProfile, JointLimits
from edge.errors import SafetyStop
from edge.log.records import Journal
from edge.log.taps import open_client
from edge.plan.trajectory import FloatArray, from_micro
from edge.run.plausible import ReportJudge, check_states
from firmware_bridge.bus_load import BusLoad
from firmware_bridge.client import DeviceClient, stop_text
from firmware_bridge.codes import LATCHED, MICRO, MILLI
from firmware_bridge.errors import Refused
from firmware_bridge.messages import Caps, Limits, StateReport
from firmware_bridge.transports import Transport

LEAD_MARGIN_US = 10_000
RESTS_RAD = 0.02
"""How far apart two reports of an arm that rests on its stops may be: 13 counts of an SO-101's servo (ours)."""


def wire_limits(limits: JointLimits) -> Limits:
    """Limits as the wire carries them, rounded to the tighter side."""

    def scaled(row: tuple[float, ...], unit: float) -> tuple[int, ...]:
        return tuple(int(value / unit * (1 + 1e-12)) for value in row)  # 2.62 is a hair below 2620000e-6

    return Limits(
        position_min_urad=tuple(round(value / MICRO) for value in limits.position_min_rad),
        position_max_urad=tuple(round(value / MICRO) for value in limits.position_max_rad),
        velocity_urad_s=scaled(limits.velocity_rad_s, MICRO),
        acceleration_mrad_s2=scaled(limits.acceleration_rad_s2, MILLI),
        jerk_mrad_s3=scaled(limits.jerk_rad_s3, MILLI),
    )


def _ends(limits: JointLimits) -> tuple[FloatArray, FloatArray]:
    return np.array(limits.position_min_rad), np.array(limits.position_max_rad)


def client_in_real_time(transport: Transport, journal: Journal | None = None) -> DeviceClient:
    """A client with a session of its own on this machine's clock; with a journal, one that records."""
    return open_client(transport, time.monotonic_ns, secrets.randbelow(0xFFFF) + 1, time.sleep, journal)


class LatchedFault(SafetyStop):
    """The device has stopped for good, and only a person's word lets it move again."""


def _check_latched(state: StateReport) -> None:
    if state.state in LATCHED:
        why = f"the device is in {stop_text(state.state, state.reason)}"
        raise LatchedFault(f"{why}; find the cause, then clear it: edge-run --arm NAME --bridge URL --clear")


@dataclass(frozen=True)
class ConnectedArm:
    """An arm whose device has the host's profile, its operating limits, and a clock the host knows."""

    profile: ArmProfile
    client: DeviceClient
    caps: Caps

    @staticmethod
    def connect(profile: ArmProfile, client: DeviceClient) -> ConnectedArm:
        """Handshake, profile hash, limits, clock. Nothing moves. Raises `BridgeError`, `LatchedFault`."""
        caps = client.connect(profile.name, profile.hash32, profile.dof)
        try:
            client.set_limits(wire_limits(profile.operating))
        except Refused:
            _check_latched(client.wait_for_state())
            raise
        client.synchronise_clock()
        return ConnectedArm(profile, client, caps)

    def lead_us(self, load: BusLoad | None = None) -> int:
        """How long before its first new knot a chunk is sent: the device's minimum, the transmission, a margin."""
        return self.caps.min_lead_us + (round(load.chunk_s / MICRO) if load else 0) + LEAD_MARGIN_US

    def standing(self) -> StateReport:
        """Where the arm stands now. Raises `SafetyStop` on a latched fault or a report that cannot be, `LinkLost`
        without one.
        """
        state, link = self.client.wait_for_state(), self.client.link
        check_states([(state.state, state.reason)])
        device_us, at_ns = link.clock.unwrap(state.device_us), self.client.last_state_ns
        ReportJudge(self.profile).check(state, device_us, link.clock, at_ns, link.sequence_jumps)
        _check_latched(state)
        return state

    def _reach(self, state: StateReport) -> None:
        """Lets an arm begin outside its operating limits, if it lies on its stops: for this session the device's limits
        reach as far as it lies, and the host's own checks let it move inward alone. Raises `BridgeError`."""
        limits, pose = self.profile.operating, from_micro(state.measured_urad)
        (low, high), (least, most) = _ends(limits), _ends(self.profile.limits)
        reached_low = np.minimum(low, np.maximum(pose - RESTS_RAD, least))
        reached_high = np.maximum(high, np.minimum(pose + RESTS_RAD, most))
        if (reached_low < low).any() or (reached_high > high).any():
            ends = {"position_min_rad": tuple(reached_low.tolist()), "position_max_rad": tuple(reached_high.tolist())}
            self.client.set_limits(wire_limits(replace(limits, **ends)))

    def switch_on(self, loop_tick: int = 1) -> StateReport:
        """Switches the drive on where the arm stands; returns that report. Raises `SafetyStop` or `BridgeError`."""
        state = self.standing()
        self._reach(state)
        self.client.arm(state.measured_urad, loop_tick)
        return state
