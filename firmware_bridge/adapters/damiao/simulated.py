"""Simulated Damiao motors on a simulated CAN bus: registers, states, MIT mode, and an arm that hangs on them.

Written from the manuals' tables; the bytes are those of `frames.py`, which a public driver is held against. A motor
gives kp (q - q_now) + kd (dq - dq_now) + torque through a current loop that lags, up to TMAX. Behind it stand inertia,
friction, and the weight of the arm with whatever it carries, so that what it reports differs from what it was told. Its
encoder is noisy, and counts in 16 bits across PMAX. Frames take their time on the bus, and some of them are lost.
"""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from firmware_bridge.adapters.damiao import frames
from firmware_bridge.adapters.damiao.frames import Feedback, MitCommand, MotorState, Ranges, Register
from firmware_bridge.adapters.damiao.gravity import GravityModel
from firmware_bridge.adapters.damiao.motors import MotorArm
from firmware_bridge.bus_load import classic_bits
from firmware_bridge.transports.can_stream import CanFrame

STEP_S = 0.0005
STEP_NS = 500_000
ANSWER_NS = 40_000
"""From the end of a command to the motor's answer asking for the bus (ours)."""
CURRENT_LOOP_S = 0.001
NOISE_RAD = 2e-4
STILL_RAD_S = 1e-3
LONGEST_JUMP_NS = 20_000_000
STOP_NM_RAD, STOP_NMS_RAD = 2000.0, 20.0
"""Of the arm's own end stops."""


@dataclass(frozen=True)
class Build:
    """What a motor and its share of an arm are made of; ours but for the torque, which is the manual's peak."""

    torque_nm: float
    inertia_kgm2: float
    viscous_nms: float
    friction_nm: float


@dataclass(frozen=True)
class BusFaults:
    """Shares of the frames, of either direction, that get lost, by a seed."""

    lost: float = 0.0
    seed: int = 0


SHIPPED = {
    "DM4310": (Ranges(12.5, 30.0, 10.0), Build(7.0, 0.02, 0.05, 0.06)),
    "DM4340": (Ranges(12.5, 10.0, 28.0), Build(27.0, 0.35, 0.6, 0.3)),
}
"""Registers 21 to 23 and peak torque, as delivered, by model."""


class SimulatedMotor:
    """One motor: `position_rad` and `velocity_rad_s` of its shaft. `fault` is what it tells instead of its state."""

    def __init__(self, identity: int, feedback_id: int, model: str, position_rad: float, seed: int = 0) -> None:
        ranges, self.build = SHIPPED[model]
        self.position_rad, self.velocity_rad_s = position_rad, 0.0
        self.state = MotorState.DISABLED
        self.fault = MotorState.DISABLED
        self.driver_c, self.motor_c = 35, 33
        self.silent = False
        self.stops_rad = (-math.inf, math.inf)
        self.registers: dict[int, float] = {
            Register.MST_ID: feedback_id,
            Register.ESC_ID: identity,
            Register.TIMEOUT: 8000,
            Register.CTRL_MODE: frames.MIT_MODE,
            Register.SW_VER: 5013,
            Register.PMAX: ranges.position_rad,
            Register.VMAX: ranges.velocity_rad_s,
            Register.TMAX: ranges.torque_nm,
        }
        self._command = MitCommand(0.0, 0.0, 0.0, 0.0, 0.0)
        self._torque_nm = 0.0
        self._heard_s = 0.0
        self._noise = random.Random(seed * 1000 + identity)

    @property
    def ranges(self) -> Ranges:
        return Ranges(*(self.registers[one] for one in (Register.PMAX, Register.VMAX, Register.TMAX)))

    def take(self, frame: CanFrame) -> bytes:
        """What the motor answers to a frame; nothing to one that is not for it."""
        identity = int(self.registers[Register.ESC_ID])
        if self.silent or len(frame.data) < 4:
            return b""
        if frame.id == frames.REGISTERS:
            if frame.data[0] | frame.data[1] << 8 != identity:
                return b""
            if frame.data[2] == frames.REFRESH:
                return self._feedback()
            return self._about_register(frame.data)
        if frame.id != identity or len(frame.data) != 8:
            return b""
        self._heard_s = 0.0
        if frame.data == frames.ENABLE:
            if self.state == MotorState.DISABLED:
                self._command = MitCommand(0.0, 0.0, 0.0, 0.0, 0.0)
                self.state = MotorState.ENABLED
        elif frame.data == frames.DISABLE:
            self.state = MotorState.DISABLED if self.state == MotorState.ENABLED else self.state
        elif frame.data == frames.CLEAR_ERROR:
            self.state = MotorState.DISABLED
        elif frame.data == frames.ZERO:
            self.position_rad = 0.0
        elif self.registers[Register.CTRL_MODE] == frames.MIT_MODE:
            self._command = MitCommand.unpack(frame.data, self.ranges)
        return self._feedback()

    def advance(self, seconds: float, load_nm: float, held: bool = False) -> None:
        """`load_nm` is what the arm's weight pulls with, in the direction of the angle; `held` stops the shaft."""
        self._heard_s += seconds
        if self.fault >= MotorState.OVERVOLTAGE:
            self.state = self.fault
        timeout_s = self.registers[Register.TIMEOUT] * frames.TIMEOUT_UNIT_S
        if self.state == MotorState.ENABLED and 0.0 < timeout_s < self._heard_s:
            self.state = MotorState.COMMUNICATION_LOST
        wanted = 0.0
        if self.state == MotorState.ENABLED:
            one, build = self._command, self.build
            wanted = one.kp * (one.position_rad - self.position_rad) + one.torque_nm
            wanted += one.kd * (one.velocity_rad_s - self.velocity_rad_s)
            most = min(build.torque_nm, self.registers[Register.TMAX])
            wanted = min(max(wanted, -most), most)
        self._torque_nm += (wanted - self._torque_nm) * min(1.0, seconds / CURRENT_LOOP_S)
        if held:
            self.velocity_rad_s = 0.0
        else:
            self._move(seconds, self._torque_nm + load_nm)

    def _move(self, seconds: float, torque_nm: float) -> None:
        build = self.build
        low, high = self.stops_rad
        beyond = min(self.position_rad - low, 0.0) + max(self.position_rad - high, 0.0)
        if beyond:
            torque_nm -= STOP_NM_RAD * beyond + STOP_NMS_RAD * self.velocity_rad_s
        if abs(self.velocity_rad_s) < STILL_RAD_S and abs(torque_nm) <= build.friction_nm:
            self.velocity_rad_s = 0.0
            return
        direction = math.copysign(1.0, self.velocity_rad_s or torque_nm)
        torque_nm -= build.viscous_nms * self.velocity_rad_s + build.friction_nm * direction
        before = self.velocity_rad_s
        self.velocity_rad_s += torque_nm / build.inertia_kgm2 * seconds
        if before and before * self.velocity_rad_s < 0.0:  # friction stops a shaft, and does not turn it round
            self.velocity_rad_s = 0.0
        self.position_rad += self.velocity_rad_s * seconds

    def _feedback(self) -> bytes:
        identity = int(self.registers[Register.ESC_ID]) & 0xF
        position = self.position_rad + self._noise.gauss(0.0, NOISE_RAD)
        told = Feedback(
            identity, self.state, position, self.velocity_rad_s, self._torque_nm, self.driver_c, self.motor_c
        )
        return told.pack(self.ranges)

    def _about_register(self, data: bytes) -> bytes:
        register = data[3]
        if register not in self.registers or data[2] not in (frames.READ, frames.WRITE):
            return b""
        form = "<I" if register in frames.WHOLE else "<f"
        if data[2] == frames.WRITE and self.state != MotorState.ENABLED and register != Register.SW_VER:
            self.registers[register] = struct.unpack_from(form, data, 4)[0]
        value = self.registers[register]
        return data[:4] + struct.pack(form, int(value) if register in frames.WHOLE else value)


def simulated_motors(arm: MotorArm, pose_rad: Sequence[float]) -> list[SimulatedMotor]:
    """The motors of an arm as delivered, at a pose.

    Raises `KeyError` for a model that is not in `SHIPPED`.
    """
    motors = []
    for spec, q in zip(arm.motors, pose_rad):
        motor = SimulatedMotor(spec.id, spec.feedback_id, spec.model, spec.direction * q)
        ends = sorted(spec.direction * end for end in spec.range_rad)
        motor.stops_rad = (ends[0], ends[1])
        motors.append(motor)
    return motors


class SimulatedBus:
    """Motors and the arm on them. `receive` takes the host's frames and gives the answers, each with its own time."""

    def __init__(
        self,
        arm: MotorArm,
        motors: Sequence[SimulatedMotor],
        faults: BusFaults,
        now_ns: int,
        payload_kg: float,
        bitrate: int = 1_000_000,
    ) -> None:
        self.arm, self.motors, self.faults = arm, list(motors), faults
        self.frames = self.lost = 0
        self.is_propped = False
        """Whether something holds the arm up while every motor is off; else it sinks until its stops."""
        self._weight = GravityModel([spec.link for spec in arm.motors], payload_kg)
        self._random = random.Random(faults.seed)
        self._frame_ns = round(1e9 * classic_bits(8) / bitrate)
        self._now_ns = self._free_ns = now_ns
        self._load_nm = self._loads()

    @property
    def joints_rad(self) -> list[float]:
        """Where the joints are, not what the motors tell."""
        return [spec.direction * motor.position_rad for spec, motor in zip(self.arm.motors, self.motors)]

    def advance(self, now_ns: int) -> None:
        """Moves the arm up to `now_ns`; of a time longer than 20 ms, in which this process was held up, the end."""
        self._now_ns = max(self._now_ns, now_ns - LONGEST_JUMP_NS)
        while self._now_ns + STEP_NS <= now_ns:
            self._now_ns += STEP_NS
            if self._now_ns // STEP_NS % 8 == 0:
                self._load_nm = self._loads()
            held = self.is_propped and all(motor.state != MotorState.ENABLED for motor in self.motors)
            for motor, load in zip(self.motors, self._load_nm):
                motor.advance(STEP_S, load, held)

    def receive(self, frame: CanFrame, now_ns: int) -> list[tuple[int, CanFrame]]:
        """A frame that asks for the bus at `now_ns`; (time, frame) of what comes back."""
        self.advance(now_ns)
        self._free_ns = max(self._free_ns, now_ns) + self._frame_ns
        if self._is_lost():
            return []
        answers = []
        for motor in self.motors:
            data = motor.take(frame)
            if data:
                self._free_ns = max(self._free_ns, now_ns + ANSWER_NS) + self._frame_ns
                if not self._is_lost():
                    answers.append((self._free_ns, CanFrame(int(motor.registers[Register.MST_ID]), data)))
        return answers

    def _is_lost(self) -> bool:
        self.frames += 1
        lost = self._random.random() < self.faults.lost
        self.lost += lost
        return lost

    def _loads(self) -> list[float]:
        """What the weight turns every motor with."""
        held = self._weight.torques_nm(self.joints_rad)
        return [-spec.direction * torque for spec, torque in zip(self.arm.motors, held)]
