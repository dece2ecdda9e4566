"""A simulated Piper on a simulated CAN bus: its controller, which says no, and an arm that hangs on its motors.

Written from the maker's tables; the bytes are those of `frames.py`, which a public driver is held against. The
controller reports at the arm's own rates, takes targets only under CAN control and with its motors on, refuses what
lies beyond a joint's limits, plans its own way to a target, stops for a collision or an emergency, and loses its torque
when it recovers. Behind it stand position loops, inertia, friction, weight, noise, and a gripper that objects stop.

The links are those of google-deepmind/mujoco_menagerie `agilex_piper/piper.xml`. What the maker states nowhere is ours:
the weight of the last link with its gripper, stiffness, friction, how long a motor takes to come on, and when a joint
takes a load for a collision.
"""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

from firmware_bridge.adapters.gravity import GravityModel, Link
from firmware_bridge.adapters.piper import frames
from firmware_bridge.adapters.piper.frames import (
    FAST_HZ,
    GRIPPER_FAULTS,
    HAS_ZERO,
    HEALTHS,
    JOINTS,
    MOTOR_FAULTS,
    POSITIONS,
    SLOW_HZ,
    SPEEDS,
    STATUS,
    TARGETS,
    WIDTH,
    ArmState,
    Control,
    Gripper,
    Health,
    MotorHealth,
    MotorLimits,
    Status,
)
from firmware_bridge.adapters.simulated_can import STEP_NS, STEP_S, BusFaults, SimulatedArm
from firmware_bridge.adapters.simulated_shaft import Build, Shaft
from firmware_bridge.transports.can_stream import CLASSIC_SIZE, DEFAULT_BITRATE, CanFrame

NOISE_RAD = 1e-4
COMES_ON_S = 0.03
COLLIDES_NM = 12.0
STEPS_OF_FAST, STEPS_OF_SLOW = round(1 / (FAST_HZ * STEP_S)), round(1 / (SLOW_HZ * STEP_S))
GRIPPER_M_S, GRIPPER_LAG_S = 0.15, 0.02
STROKE_M = 0.07
SPEED_RAD_S, ACCELERATION_RAD_S2 = 3.0, 5.0
"""As delivered, and the most that can be set."""
RANGES_RAD = ((-2.618, 2.618), (0.0, 3.14), (-2.967, 0.0), (-1.745, 1.745), (-1.22, 1.22), (-2.0944, 2.0944))
LARGE, SMALL = Build(30.0, 0.3, 2.0, 0.4), Build(8.0, 0.03, 0.3, 0.1)
STIFFNESS = (400.0, 400.0, 400.0, 120.0, 120.0, 120.0)
DAMPING = (25.0, 25.0, 25.0, 3.0, 3.0, 3.0)
Z = (0.0, 0.0, 1.0)
LINKS = (
    Link((0.0, 0.0, 0.123), (0.0, 0.0, -math.pi / 2), Z, 0.098, (0.0013, 0.0003, -0.0092)),
    Link((0.0, 0.0, 0.0), (math.pi / 2, 0.0, -math.pi / 2), Z, 0.291, (0.149, -0.0024, 0.0018)),
    Link((0.2836, 0.0287, 0.0), (0.0, 0.0, 0.1009), Z, 0.291, (-0.0997, 0.0349, 0.0005)),
    Link((-0.2422, 0.0685, 0.0), (-math.pi / 2, 0.0, 1.3825), Z, 0.127, (0.0003, -0.001, -0.0047)),
    Link((0.0, 0.0, 0.0), (math.pi / 2, 0.0, 0.0), Z, 0.145, (0.0001, 0.0567, -0.002)),
    Link((0.0, 0.091, 0.0014), (math.pi / 2, 0.0, math.pi), Z, 0.55, (0.001, 0.0122, 0.0315)),
)


@dataclass
class _Way:
    """Where the controller has a joint go: a way to `target` that stops there, within a speed and an acceleration."""

    target: float
    at: float
    speed: float = 0.0

    def advance(self, seconds: float, fastest: float, acceleration: float) -> None:
        left = self.target - self.at
        wanted = math.copysign(min(fastest, math.sqrt(2 * acceleration * abs(left))), left)
        step = acceleration * seconds
        self.speed += min(max(wanted - self.speed, -step), step)
        if abs(left) < step * seconds and abs(self.speed) <= step:
            self.at, self.speed = self.target, 0.0
        self.at += self.speed * seconds


class SimulatedJoint(Shaft):
    """One joint's motor. `faults` are what its driver tells; with one it has let go."""

    def __init__(self, number: int, position_rad: float) -> None:
        super().__init__(LARGE if number <= 3 else SMALL, position_rad)
        low, high = RANGES_RAD[number - 1]
        self.stops_rad = (low - 0.01, high + 0.01)
        self.limits = MotorLimits(number, high, low, round(100 * SPEED_RAD_S))
        self.acceleration_rad_s2 = ACCELERATION_RAD_S2
        self.way = _Way(position_rad, position_rad)
        self.on_s = 0.0
        """For how long it has been on, or coming on; 0 for one that is off."""
        self.faults = Health(0)
        self.driver_c, self.motor_c = 34, 32
        self.load_nm = 0.0
        """Of somebody who leans on it."""

    @property
    def is_on(self) -> bool:
        return self.on_s > COMES_ON_S

    def switch(self, on: bool) -> None:
        if not on or self.faults:
            self.on_s = 0.0
        elif not self.on_s:
            self.on_s = STEP_S
            self.way = _Way(self.position_rad, self.position_rad)

    def live(self, share: float, stiffness: float, damping: float, load_nm: float, held: bool) -> None:
        """A step, at a share of its speed."""
        if self.faults:
            self.on_s = 0.0
        wanted = 0.0
        if self.on_s:
            self.on_s += STEP_S
        if self.is_on:
            way = self.way
            way.advance(STEP_S, max(share * SPEED_RAD_S, 1e-3), self.acceleration_rad_s2)
            wanted = stiffness * (way.at - self.position_rad) + damping * (way.speed - self.velocity_rad_s)
        self.advance(STEP_S, wanted, load_nm + self.load_nm, held and not self.load_nm)


class SimulatedPiper(SimulatedArm):
    """The arm. `blocked_m` is the width of what lies between its fingers; None: nothing."""

    def __init__(
        self,
        pose: Sequence[float],
        faults: BusFaults,
        now_ns: int,
        payload_kg: float = 0.0,
        bitrate: int = DEFAULT_BITRATE,
        firmware: str = "S-V1.8-2",
    ) -> None:
        own = {STATUS, WIDTH, frames.LIMITS, frames.MOST_ACCELERATION, frames.ANSWER}
        own.update(POSITIONS, frames.POSES, SPEEDS, HEALTHS)
        super().__init__(frozenset(own), faults, now_ns, bitrate)
        self.joints = [SimulatedJoint(number + 1, q) for number, q in enumerate(pose[:JOINTS])]
        self.width_m, self._wanted_m = pose[JOINTS], pose[JOINTS]
        self.blocked_m: float | None = None
        self.gripper_on, self.gripper_faults, self.has_zero = False, Health(0), True
        self.status = Status(Control.STANDBY, ArmState.NORMAL)
        self.silent: set[int] = set()
        self.voltage_v = 24.0
        self.leads = False
        """Set up as a leader: it reports by other ids, and takes no commands."""
        self.firmware = firmware
        self._share, self._moves, self._effort_nm = 0.0, False, 0.0
        self._weight = GravityModel(LINKS, payload_kg)
        self._load_nm = self._loads()
        self._noise = random.Random(faults.seed + 1)

    @property
    def joints_rad(self) -> list[float]:
        return [joint.position_rad for joint in self.joints] + [self.width_m]

    @property
    def is_on(self) -> bool:
        return all(joint.is_on for joint in self.joints) and self.gripper_on

    # What it understands ---------------------------------------------------------------------------------------------

    def _answers(self, frame: CanFrame) -> list[CanFrame]:
        data = frame.data
        if len(data) != CLASSIC_SIZE or (self.leads and frame.id in frames.COMMANDS):
            return []
        if frame.id in TARGETS:
            self._take_targets(2 * TARGETS.index(frame.id), frames.unpack_pair(data))
        elif frame.id == frames.MODE:
            self._take_mode(data)
        elif frame.id == frames.STOP:
            self._take_stop(data[0])
        elif frame.id == frames.GRIPPER:
            self._take_gripper(data)
        elif frame.id == frames.ENABLE:
            self._take_enable(data[0], data[1])
        elif frame.id == frames.CONFIGURE and data[5] == frames.YES:
            self._clear_errors(data[0])
        elif frame.id == frames.ASK_LIMITS and 1 <= data[0] <= JOINTS:
            return [self._limits(self.joints[data[0] - 1], data[1])]
        elif frame.id == frames.FIRMWARE and data[0] == 1:
            text = f"H-V1.2-1  {self.firmware}  2026".encode().ljust(32)
            return [CanFrame(frames.FIRMWARE, text[at : at + 8]) for at in range(0, 32, 8)]
        return []

    def _take_mode(self, data: bytes) -> None:
        stopped = self.status.state in (ArmState.EMERGENCY_STOP, ArmState.COLLISION)
        if stopped or self.status.control == Control.TEACHING or data[0] not in (Control.STANDBY, Control.CAN):
            return
        self._share = min(data[2], 100) / 100
        self._moves = data[1] == 1 and data[3] == 0
        self.status = replace(self.status, control=data[0], move=data[1])

    def _take_targets(self, first: int, targets: tuple[float, float]) -> None:
        if self.status.control != Control.CAN or not self._moves:
            return
        for joint, target in zip(self.joints[first : first + 2], targets):
            limits = joint.limits
            if not limits.low_rad <= target <= limits.high_rad:
                self.status = replace(self.status, state=ArmState.TARGET_BEYOND_LIMIT)
                return
            joint.way.target = target

    def _take_stop(self, word: int) -> None:
        if word == 1:
            self.status = replace(self.status, control=Control.STANDBY, state=ArmState.EMERGENCY_STOP)
            for joint in self.joints:
                joint.way.target = joint.way.at
        elif word == 2:  # it recovers, and loses its torque
            self.status = replace(self.status, control=Control.STANDBY, state=ArmState.NORMAL)
            self._take_enable(frames.ALL_JOINTS, 1)

    def _take_gripper(self, data: bytes) -> None:
        width, effort, code, zero = struct.unpack(">iHBB", data)
        if zero == frames.YES:
            self.has_zero = True
        if code in (2, 3):
            self.gripper_faults = Health(0)
        self.gripper_on = code in (1, 3) and not self.gripper_faults
        self._wanted_m = min(max(width / frames.COUNTS_PER_M, 0.0), STROKE_M)
        self._effort_nm = min(effort / 1000, frames.MOST_EFFORT_NM)

    def _take_enable(self, motor: int, flag: int) -> None:
        whom = self.joints if motor in (frames.ALL_JOINTS, 0xFF) else self.joints[motor - 1 : motor]
        for joint in whom:
            joint.switch(flag == 2)

    def _clear_errors(self, motor: int) -> None:
        for joint in self.joints if motor == frames.ALL_JOINTS else self.joints[motor - 1 : motor]:
            joint.faults = Health(0)
        if self.status.state != ArmState.EMERGENCY_STOP:
            self.status = replace(self.status, state=ArmState.NORMAL)

    def _limits(self, joint: SimulatedJoint, which: int) -> CanFrame:
        if which == 1:
            return CanFrame(frames.LIMITS, joint.limits.pack())
        value = struct.pack(">BH5x", joint.limits.motor, round(100 * joint.acceleration_rad_s2))
        return CanFrame(frames.MOST_ACCELERATION, value)

    # What it does ----------------------------------------------------------------------------------------------------

    def collide(self, joint: int) -> None:
        """A joint has met something: its motor lets go, and the arm stops."""
        self.joints[joint].faults |= Health.COLLISION
        self.status = replace(self.status, control=Control.STANDBY, state=ArmState.COLLISION)

    def _step(self, now_ns: int) -> None:
        step = now_ns // STEP_NS
        if step % 8 == 0:
            self._load_nm = self._loads()
        held = self.is_propped and not any(joint.on_s for joint in self.joints)
        for at, (joint, load) in enumerate(zip(self.joints, self._load_nm)):
            if joint.is_on and abs(joint.load_nm) > COLLIDES_NM:
                self.collide(at)
            joint.live(self._share, STIFFNESS[at], DAMPING[at], load, held)
        if self.gripper_on and not self.gripper_faults:
            pull = min(max((self._wanted_m - self.width_m) / GRIPPER_LAG_S, -GRIPPER_M_S), GRIPPER_M_S)
            stop = 0.0 if self.blocked_m is None else self.blocked_m
            self.width_m = max(self.width_m + pull * STEP_S, min(stop, self.width_m))
        if step % STEPS_OF_FAST == 0:
            self._report(now_ns, self._fast())
        if step % STEPS_OF_SLOW == 0:
            self._report(now_ns, self._slow())

    def _report(self, now_ns: int, reports: list[tuple[int, bytes]]) -> None:
        for one, data in reports:
            if one not in self.silent:
                offset = 0x10 if self.leads and one in range(STATUS, WIDTH + 1) else 0
                self._send(CanFrame(one + offset, data), now_ns)

    def _fast(self) -> list[tuple[int, bytes]]:
        told = [joint.position_rad + self._noise.gauss(0.0, NOISE_RAD) for joint in self.joints]
        moving = any(abs(joint.way.target - joint.position_rad) > 0.01 for joint in self.joints)
        flags = self.gripper_faults | (Health.ENABLED if self.gripper_on else Health(0))
        flags |= HAS_ZERO if self.has_zero else Health(0)
        width = self.width_m if self.has_zero else 0.0
        holds = self._effort_nm if self.gripper_on and self.width_m - self._wanted_m > 1e-3 else 0.0
        return [
            (STATUS, replace(self.status, motion=int(moving)).pack()),
            *((one, bytes(8)) for one in frames.POSES),
            *((one, frames.pack_pair(*told[2 * at : 2 * at + 2])) for at, one in enumerate(POSITIONS)),
            (WIDTH, Gripper(width, holds, flags & (GRIPPER_FAULTS | Health.ENABLED | HAS_ZERO)).pack()),
            *(
                (one, frames.pack_speed(joint.velocity_rad_s, joint.torque_nm / 10, q))
                for one, joint, q in zip(SPEEDS, self.joints, told)
            ),
        ]

    def _slow(self) -> list[tuple[int, bytes]]:
        rows = []
        for one, joint in zip(HEALTHS, self.joints):
            flags = joint.faults & MOTOR_FAULTS | (Health.ENABLED if joint.is_on else Health(0))
            rows.append((one, MotorHealth(self.voltage_v, joint.driver_c, joint.motor_c, flags).pack()))
        return rows

    def _loads(self) -> list[float]:
        """What the weight turns every joint with."""
        return [-torque for torque in self._weight.torques_nm([joint.position_rad for joint in self.joints])]
