"""A slow move from where the arm stands to its home pose: planned as a whole, checked, and streamed in chunks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge.arms import ArmProfile
from edge.bundle import EmbodimentSpec
from edge.errors import InputError, SafetyStop
from edge.plan.checks import check_knots
from edge.plan.trajectory import FloatArray, Knots, to_micro
from edge.run.controller import HEARTBEAT_NS
from firmware_bridge.client import DeviceClient, KnotChunk, refusal_text, stop_text
from firmware_bridge.clock_sync import WRAP_US
from firmware_bridge.codes import MICRO, DeviceState
from firmware_bridge.constants import POSE_TOLERANCE_RAD
from firmware_bridge.messages import StateReport

SPACING_US = 100_000
CHUNK_KNOTS, STRIDE = 30, 15
"""3 s a chunk, the next one 1.5 s before it would be missed."""
REST_KNOTS = 5
SHARE = 0.2
"""Of the profile's operating velocity and acceleration, and never more than the two below."""
MOST_VELOCITY, MOST_ACCELERATION = 0.25, 0.5
"""rad/s and rad/s^2 (a gripper's axis: m): a hand's breadth a second at the end of a metre of arm."""
PEAK_VELOCITY, PEAK_ACCELERATION = 15 / 8, 10 / math.sqrt(3)
"""Of the quintic 10 s^3 - 15 s^4 + 6 s^5, which is at rest at both ends, for a distance of 1 in a time of 1."""
HELD_US = 200_000
RARE = 3.0
"""Standard deviations of the states in training."""
STOPPED = (DeviceState.DECEL, DeviceState.HOLD, DeviceState.FAULT, DeviceState.ESTOP)


@dataclass(frozen=True)
class HomeMove:
    """From `start_rad` to `home_rad`: all joints begin together and arrive together."""

    start_rad: FloatArray
    home_rad: FloatArray
    steps: int

    @property
    def duration_s(self) -> float:
        return self.steps * SPACING_US * MICRO

    @property
    def last_knot(self) -> int:
        return self.steps + REST_KNOTS

    def position_rad(self, shares: FloatArray) -> FloatArray:
        """Where the joints are (n, J) after these shares (n,) of the duration; after the arrival they stay at home."""
        share = np.minimum(shares, 1.0)[:, None]
        q: FloatArray = self.start_rad + (self.home_rad - self.start_rad) * share**3 * (10 - 15 * share + 6 * share**2)
        return q

    def knots(self, first: int, count: int) -> Knots:
        """Knots `first`, `first` + 1, ..."""
        shares = np.arange(first, first + count) / self.steps
        q, share = self.position_rad(shares), np.minimum(shares, 1.0)[:, None]
        dq = (self.home_rad - self.start_rad) * 30 * share**2 * (1 - share) ** 2 / self.duration_s
        return Knots(first, to_micro(q), to_micro(dq), SPACING_US)


def plan_home(arm: ArmProfile, start_rad: Sequence[float] | FloatArray) -> HomeMove | None:
    """The move from a measured pose; None when the arm is at home. Raises `InputError` when it must not be made."""
    start, home = np.array(start_rad), np.array(arm.home_rad)
    limits = arm.operating
    for joint, q in enumerate(start):
        low, high = limits.position_min_rad[joint], limits.position_max_rad[joint]
        if not low <= q <= high:
            raise InputError(
                f"joint {joint + 1} stands at {q:.3f}, outside its limits {low:.3f} to {high:.3f}; "
                "move it inside by hand, with the drive off, and try again"
            )
    way = np.abs(home - start)
    if way.max() < POSE_TOLERANCE_RAD:
        return None
    velocity = np.minimum(SHARE * np.array(limits.velocity_rad_s), MOST_VELOCITY)
    acceleration = np.minimum(SHARE * np.array(limits.acceleration_rad_s2), MOST_ACCELERATION)
    needed_s = max((PEAK_VELOCITY * way / velocity).max(), np.sqrt(PEAK_ACCELERATION * way / acceleration).max())
    move = HomeMove(start, home, math.ceil(needed_s / (SPACING_US * MICRO)))
    refusal = check_knots(move.knots(0, move.last_knot + 1), limits)
    if refusal is not None:
        raise InputError(f"the way home is not within the limits of '{arm.name}' ({refusal}); move the arm by hand")
    return move


def describe(move: HomeMove) -> str:
    """What is going to happen, for whoever has to say yes."""
    way = [abs(end - begin) for begin, end in zip(move.start_rad, move.home_rad)]
    joint = way.index(max(way))
    return f"the way home takes {move.duration_s:.1f} s; joint {joint + 1} moves furthest, {way[joint]:.2f} rad"


def far_from_training(spec: EmbodimentSpec, measured_urad: Sequence[int]) -> str | None:
    """In words, which joint stands where the policy has hardly been in training; None when none does."""
    rows = zip(measured_urad, spec.states.offset, spec.states.scale)
    away = [abs(q * MICRO - mean) / scale for q, mean, scale in rows]
    joint = max(range(len(away)), key=away.__getitem__)
    if away[joint] < RARE:
        return None
    mean, scale = spec.states.offset[joint], spec.states.scale[joint]
    return (
        f"joint {joint + 1} stands at {measured_urad[joint] * MICRO:.2f} rad, and the policy was trained around "
        f"{mean:.2f} +- {scale:.2f}"
    )


class Homing:
    """The armed device's move. `step` never waits; the caller ends it with a controlled stop.

    How far the arm is, the device's reports tell: its clock may be slower than the host's estimate of it.
    """

    def __init__(self, client: DeviceClient, move: HomeMove, lead_us: int) -> None:
        self.client, self.move = client, move
        self._lead_us = lead_us
        self._start_us: int | None = None
        self._next_first: int | None = 0
        self._next_heartbeat_ns = 0
        self._told_us = 0
        self.share = 0.0
        self.state: StateReport | None = None

    def step(self, now_ns: int, loop_tick: int) -> bool:
        """One step; returns whether the arm has arrived. Raises `SafetyStop` or `LinkLost`."""
        inbox = self.client.poll(now_ns)
        self.client.check_alive(now_ns)
        if now_ns >= self._next_heartbeat_ns:
            self.client.heartbeat(loop_tick)
            self._next_heartbeat_ns = now_ns + HEARTBEAT_NS
        if inbox.refused:
            raise SafetyStop(f"the device refused the way home: {refusal_text(inbox.refused[0][1])}")
        if inbox.state is not None:
            self.state = inbox.state
            self._told_us = self.client.link.clock.unwrap(self.state.device_us)
            if self.state.state in STOPPED:
                raise SafetyStop(f"the device stopped the arm: {stop_text(self.state.state, self.state.reason)}")
        if self._start_us is None:
            self._start_us = round(self.client.link.clock.device_us(now_ns)) + self._lead_us
        self._send()
        self.share = min(max((self._told_us - self._start_us) * MICRO / self.move.duration_s, 0.0), 1.0)
        return self._told_us >= self._due_us(self.move.steps) + HELD_US

    def _due_us(self, knot: int) -> int:
        assert self._start_us is not None
        return self._start_us + knot * SPACING_US

    def _send(self) -> None:
        """The next chunk, once the one before is under way by the device's report: it holds one plan that waits."""
        first = self._next_first
        if first is None or self.client.commit_pending or (first and self._told_us < self._due_us(first - STRIDE)):
            return
        knots = self.move.knots(first, min(CHUNK_KNOTS, self.move.last_knot + 1 - first))
        self.client.send_chunk(
            KnotChunk(
                id=first // STRIDE + 1,
                start_us=self._due_us(first) % WRAP_US,
                spacing_us=SPACING_US,
                q_urad=tuple(tuple(row) for row in knots.q_urad.tolist()),
                dq_urad_s=tuple(tuple(row) for row in knots.dq_urad_s.tolist()),
            )
        )
        self._next_first = first + STRIDE if knots.last < self.move.last_knot else None
