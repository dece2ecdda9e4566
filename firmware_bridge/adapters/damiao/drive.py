"""An arm of Damiao motors as the core sees it: one exchange with all motors is a few of the core's periods.

Each cycle takes what the motors answered to the last one, lets the core run, and tells every motor where to be, how
fast, and what gravity asks of it. A motor answers each frame with its position, so a frame that is lost costs one cycle
of one joint; that is counted and bridged. A motor that is told nothing for `TIMEOUT_S` lets go by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar

from firmware_bridge.adapters.base import DriveError
from firmware_bridge.adapters.can_drive import CanDrive
from firmware_bridge.adapters.damiao import frames
from firmware_bridge.adapters.damiao.frames import Feedback, MitCommand, MotorState, Register
from firmware_bridge.adapters.damiao.motors import CYCLE_PERIODS, TIMEOUT_S, Motor, MotorArm, MotorBus
from firmware_bridge.adapters.gravity import GravityModel
from firmware_bridge.bus_load import CanShare
from firmware_bridge.transports.can_stream import CanBus, CanFrame

JITTER_RAD = 0.02
HOTTEST_C = 75
"""Ours: 5 below the least at which a motor's own protection can be set (register OT_Value, from 80)."""
SWITCHED_S = 0.5
"""Ours: a motor answers within a cycle; ten lost frames in a row are less than a tenth of this."""
LETS_GO_CYCLES = 10
TURN_RAD = 2 * math.pi


class DamiaoDrive(CanDrive):
    """The motors of an arm. Raises `DriveError` at connect."""

    CYCLE_PERIODS: ClassVar[int] = CYCLE_PERIODS
    CLEARS_S: ClassVar[float] = SWITCHED_S
    WHEN_LOST: ClassVar[str] = f"the motors let go by themselves after {1000 * TIMEOUT_S:.0f} ms"
    WHEN_LEFT: ClassVar[str] = WHEN_LOST
    WHEN_BACK: ClassVar[str] = "the motors answer again"

    def __init__(
        self,
        open_bus: Callable[[], CanBus],
        arm: MotorArm,
        gravity: GravityModel,
        load: CanShare,
        notify: Callable[[str], None],
        clock_ns: Callable[[], int],
        sleep: Callable[[float], None],
    ) -> None:
        super().__init__(open_bus, {spec.feedback_id: spec.name for spec in arm.motors}, load, notify, clock_ns, sleep)
        self._arm, self._gravity = arm, gravity
        self._factors = [spec.gravity_factor for spec in arm.motors]
        self._motors: dict[int, Motor] = {}
        self._connect(may_hold=False)

    @property
    def position_rad(self) -> tuple[float, ...]:
        return tuple(motor.position_rad for motor in self._motors.values())

    def _let_go(self, bus: CanBus) -> None:
        asking = MotorBus(bus, self._clock_ns, self._sleep)
        for motor in self._motors.values():
            for _ in range(LETS_GO_CYCLES):
                if asking.feedback(motor.spec, motor.ranges, frames.DISABLE).state != MotorState.ENABLED:
                    break
            else:
                self._notify(f"{motor.spec.name} does not let go; switch the arm's power off")

    def _prepare(self, bus: CanBus, may_hold: bool) -> None:
        asking = MotorBus(bus, self._clock_ns, self._sleep)
        for spec in self._arm.motors:
            ranges = asking.ranges(spec)
            told = asking.feedback(spec, ranges)
            if told.state == MotorState.COMMUNICATION_LOST:  # how every run ends that was killed
                told = asking.feedback(spec, ranges, frames.CLEAR_ERROR)
            turns = TURN_RAD * round((sum(spec.range_rad) / 2 - spec.direction * told.position_rad) / TURN_RAD)
            motor = Motor(spec, ranges, told, turns)
            self._check(motor, may_hold)
            if told.state != MotorState.ENABLED:
                if asking.register(spec, Register.CTRL_MODE) != frames.MIT_MODE:
                    asking.write(spec, Register.CTRL_MODE, frames.MIT_MODE)
                asking.write(spec, Register.TIMEOUT, round(TIMEOUT_S / frames.TIMEOUT_UNIT_S))
            self._motors[spec.feedback_id] = motor
            self._heard_ns[spec.feedback_id] = self._clock_ns()

    def _check(self, motor: Motor, may_hold: bool) -> None:
        """Raises `DriveError` for a motor that cannot be driven as it is."""
        low, high = motor.spec.range_rad
        if max(abs(motor.of_motor(low)), abs(motor.of_motor(high))) > motor.ranges.position_rad:
            raise DriveError(
                f"{motor.spec.name} counts to {motor.ranges.position_rad:g} rad (PMAX), which does not cover the "
                f"joint's range of {low:g} to {high:g} rad; set its zero and PMAX"
            )
        if motor.is_on and not may_hold:
            raise DriveError(f"{motor.spec.name} is on: another program drives this arm; end it first")
        if motor.fault:
            raise DriveError(f"{motor.fault}; find the cause, then switch its power off and on")

    def _take(self, bus: CanBus) -> None:
        now_ns = self._clock_ns()
        heard: set[int] = set()
        for frame in bus.receive():
            motor = self._motors.get(frame.id)
            if motor is not None and len(frame.data) == 8 and frame.data[0] & 0xF == motor.spec.id & 0xF:
                self._take_feedback(motor, Feedback.unpack(frame.data, motor.ranges), now_ns)
                heard.add(frame.id)
        for one in heard:
            self._answered[one] += 1
        for motor in self._motors.values():
            if motor.fault and not self._is_clearing:
                self._break(motor.fault)

    def _take_feedback(self, motor: Motor, told: Feedback, now_ns: int) -> None:
        moved = abs(told.position_rad - motor.feedback.position_rad)
        if not self._is_plausible(motor.spec.feedback_id, moved, motor.ranges.velocity_rad_s, JITTER_RAD, now_ns):
            return
        motor.feedback = told
        hottest = max(told.driver_c, told.motor_c)
        self._hottest_c = max(self._hottest_c, hottest)
        if hottest >= HOTTEST_C:
            self._break(f"{motor.spec.name} is at {hottest} degrees (limit {HOTTEST_C}); let it cool down")

    @property
    def _is_on(self) -> bool:
        return (all if self._wanted else any)(motor.is_on for motor in self._motors.values())

    def _tell(self, bus: CanBus, set_point_rad: Sequence[float], velocity_rad_s: Sequence[float]) -> None:
        torques = self._gravity.torques_nm(set_point_rad) if self._wanted else self._factors
        for motor, q, dq, torque, factor in zip(
            self._motors.values(), set_point_rad, velocity_rad_s, torques, self._factors
        ):
            self._asked[motor.spec.feedback_id] += 1
            self._send(bus, self._frame(motor, q, dq, torque * factor) if self._wanted else self._idle_frame(motor))

    def _frame(self, motor: Motor, q_rad: float, dq_rad_s: float, torque_nm: float) -> CanFrame:
        """Where to be, for a motor that is on; else that it come on."""
        spec = motor.spec
        if not motor.is_on:
            return CanFrame(spec.id, frames.ENABLE)
        command = MitCommand(
            motor.of_motor(q_rad), spec.direction * dq_rad_s, spec.kp, spec.kd, spec.direction * torque_nm
        )
        return CanFrame(spec.id, command.pack(motor.ranges))

    def _idle_frame(self, motor: Motor) -> CanFrame:
        """Off, for a motor that is on; else no more than the question where it is."""
        if motor.is_on:
            return CanFrame(motor.spec.id, frames.DISABLE)
        if motor.fault and self._is_clearing:
            return CanFrame(motor.spec.id, frames.CLEAR_ERROR)
        return CanFrame(frames.REGISTERS, frames.refresh(motor.spec.id))

    def _switch(self, now_ns: int) -> None:
        if now_ns - self._wanted_ns <= SWITCHED_S * 1e9 or self._silent:
            return
        unlike = next((motor for motor in self._motors.values() if motor.is_on != self._wanted), None)
        if unlike is not None:
            self._break(f"{unlike.spec.name} does not {'come on' if self._wanted else 'let go'}; check its supply")
