"""Simulated Damiao motors on a simulated CAN bus: registers, states, MIT mode, and an arm that hangs on them.

Written from the manuals' tables; the bytes are those of `frames.py`, which a public driver is held against. A motor
gives kp (q - q_now) + kd (dq - dq_now) + torque through a current loop that lags, up to TMAX. Behind it stand inertia,
friction, and the weight of the arm with whatever it carries, so that what it reports differs from what it was told. Its
encoder is noisy, and counts in 16 bits across PMAX. Frames take their time on the bus, and some of them are lost.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence

from firmware_bridge.adapters.damiao import frames
from firmware_bridge.adapters.damiao.frames import Feedback, MitCommand, MotorState, Ranges, Register
from firmware_bridge.adapters.damiao.motors import MotorArm
from firmware_bridge.adapters.gravity import GravityModel
from firmware_bridge.adapters.simulated_can import STEP_NS, STEP_S, BusFaults, SimulatedArm
from firmware_bridge.adapters.simulated_shaft import Build, Shaft
from firmware_bridge.transports.can_stream import DEFAULT_BITRATE, CanFrame

NOISE_RAD = 2e-4

SHIPPED = {
    "DM4310": (Ranges(12.5, 30.0, 10.0), Build(7.0, 0.02, 0.05, 0.06)),
    "DM4340": (Ranges(12.5, 10.0, 28.0), Build(27.0, 0.35, 0.6, 0.3)),
}
"""Registers 21 to 23 and peak torque, as delivered, by model; the rest of what they turn is ours."""


class SimulatedMotor(Shaft):
    """One motor. `fault` is what it tells instead of its state."""

    def __init__(self, identity: int, feedback_id: int, model: str, position_rad: float, seed: int = 0) -> None:
        ranges, build = SHIPPED[model]
        super().__init__(build, position_rad)
        self.state = MotorState.DISABLED
        self.fault = MotorState.DISABLED
        self.driver_c, self.motor_c = 35, 33
        self.silent = False
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

    def live(self, seconds: float, load_nm: float, held: bool) -> None:
        """A while, by what it was told last; the rest as of `Shaft.advance`."""
        self._heard_s += seconds
        if self.fault >= MotorState.OVERVOLTAGE:
            self.state = self.fault
        timeout_s = self.registers[Register.TIMEOUT] * frames.TIMEOUT_UNIT_S
        if self.state == MotorState.ENABLED and 0.0 < timeout_s < self._heard_s:
            self.state = MotorState.COMMUNICATION_LOST
        wanted = 0.0
        if self.state == MotorState.ENABLED:
            one, most = self._command, self.registers[Register.TMAX]
            wanted = one.kp * (one.position_rad - self.position_rad) + one.torque_nm
            wanted += one.kd * (one.velocity_rad_s - self.velocity_rad_s)
            wanted = min(max(wanted, -most), most)
        self.advance(seconds, wanted, load_nm, held)

    def _feedback(self) -> bytes:
        identity = int(self.registers[Register.ESC_ID]) & 0xF
        position = self.position_rad + self._noise.gauss(0.0, NOISE_RAD)
        told = Feedback(
            identity, self.state, position, self.velocity_rad_s, self.torque_nm, self.driver_c, self.motor_c
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


class SimulatedBus(SimulatedArm):
    """The motors, and the arm on them."""

    def __init__(
        self,
        arm: MotorArm,
        motors: Sequence[SimulatedMotor],
        faults: BusFaults,
        now_ns: int,
        payload_kg: float,
        bitrate: int = DEFAULT_BITRATE,
    ) -> None:
        super().__init__(frozenset(spec.feedback_id for spec in arm.motors), faults, now_ns, bitrate)
        self.arm, self.motors = arm, list(motors)
        self._weight = GravityModel([spec.link for spec in arm.motors], payload_kg)
        self._load_nm = self._loads()

    @property
    def joints_rad(self) -> list[float]:
        return [spec.direction * motor.position_rad for spec, motor in zip(self.arm.motors, self.motors)]

    @property
    def is_on(self) -> bool:
        return all(motor.state == MotorState.ENABLED for motor in self.motors)

    def _step(self, now_ns: int) -> None:
        if now_ns // STEP_NS % 8 == 0:
            self._load_nm = self._loads()
        held = self.is_propped and all(motor.state != MotorState.ENABLED for motor in self.motors)
        for motor, load in zip(self.motors, self._load_nm):
            motor.live(STEP_S, load, held)

    def _answers(self, frame: CanFrame) -> list[CanFrame]:
        told = [(int(motor.registers[Register.MST_ID]), motor.take(frame)) for motor in self.motors]
        return [CanFrame(one, data) for one, data in told if data]

    def _loads(self) -> list[float]:
        """What the weight turns every motor with."""
        held = self._weight.torques_nm(self.joints_rad)
        return [-spec.direction * torque for spec, torque in zip(self.arm.motors, held)]
