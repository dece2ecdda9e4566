"""An arm of Damiao motors as the core sees it: one exchange with all motors is a few of the core's periods.

Each cycle takes what the motors answered to the last one, lets the core run, and tells every motor where to be, how
fast, and what gravity asks of it. A motor answers each frame with its position, so a frame that is lost costs one cycle
of one joint; that is counted and bridged. A motor that is told nothing for `TIMEOUT_S` lets go by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from firmware_bridge.adapters.base import DriveError, Measurement
from firmware_bridge.adapters.damiao import frames
from firmware_bridge.adapters.damiao.frames import Feedback, MitCommand, MotorState, Register
from firmware_bridge.adapters.damiao.gravity import GravityModel
from firmware_bridge.adapters.damiao.motors import CYCLE_PERIODS, TIMEOUT_S, BusShare, Motor, MotorArm, MotorBus
from firmware_bridge.errors import BridgeError, LinkLost
from firmware_bridge.printing import harmless
from firmware_bridge.transports.can_stream import CanBus, CanFrame

BRIDGED_PERIODS = 50
"""Ours: at an operating speed of 2 rad/s an arm is then 0.1 rad behind, within what the core lets a joint lag."""
OLDEST_S = 0.05
"""Ours: half of the motors' own timeout."""
JITTER_RAD = 0.02
HOTTEST_C = 75
"""Ours: 5 below the least at which a motor's own protection can be set (register OT_Value, from 80)."""
SWITCHED_S = 0.5
"""Ours: a motor answers within a cycle; ten lost frames in a row are less than a tenth of this."""
RECONNECT_S = 1.0
SERVE_S = 0.0005
LETS_GO_CYCLES = 10
MS_NS = 1_000_000
TURN_RAD = 2 * math.pi


class DamiaoDrive:
    """The arm on the bus that `open_bus` opens, again after it was lost. Raises `DriveError` at connect.

    A fault of a motor is told to the core until it has taken the drive away, and again when it wants it on; it stays
    until `clear`. Silence is told as long as it lasts.
    """

    def __init__(
        self,
        open_bus: Callable[[], CanBus],
        arm: MotorArm,
        gravity: GravityModel,
        load: BusShare,
        notify: Callable[[str], None],
        clock_ns: Callable[[], int],
        sleep: Callable[[float], None],
    ) -> None:
        load.check()
        self._open_bus, self._arm, self._gravity, self._load = open_bus, arm, gravity, load
        self._notify, self._clock_ns, self._sleep = harmless(notify), clock_ns, sleep
        self._factors = [spec.gravity_factor for spec in arm.motors]
        self._bus: CanBus | None = None
        self._motors: dict[int, Motor] = {}
        self._fault, self._untold = "", False
        self._wanted, self._wanted_ns = False, clock_ns()
        self._clearing_ns: int | None = None
        self._silent = False
        self._asked = dict.fromkeys((spec.feedback_id for spec in arm.motors), 0)
        self._answered = dict(self._asked)
        self._implausible = self._refused = self._cycles = self._hottest_c = 0
        self._retry_ns = 0
        self._serve: Callable[[], None] = lambda: None
        self._due_ns = 0
        self._reported_ns: int | None = None
        self._connect(may_hold=False)

    # What the core's loop calls --------------------------------------------------------------------------------------

    @property
    def position_rad(self) -> tuple[float, ...]:
        """As last measured."""
        return tuple(motor.position_rad for motor in self._motors.values())

    def while_waiting(self, serve: Callable[[], None]) -> None:
        self._serve = serve

    def measure(self) -> Measurement:
        stamp_ns = self._wait_for_cycle()
        periods = 1 if self._reported_ns is None else (stamp_ns - self._reported_ns) // MS_NS
        self._reported_ns = stamp_ns
        try:
            if self._bus is None:
                self._try_again()
            else:
                self._take_answers(self._bus)
        except LinkLost as lost:
            self._lose(lost)
        now_ns = self._clock_ns()
        ok = self._all_are_heard(now_ns) and not self._untold
        return Measurement(self.position_rad, ok, self._is_on, periods, (now_ns - stamp_ns) // 1000)

    def command(self, set_point_rad: Sequence[float], velocity_rad_s: Sequence[float], enable: bool) -> None:
        if not enable:
            self._untold = False  # the core has heard of it: it took the drive away
        elif self._fault and not self._wanted:
            self._untold, enable = True, False
        if enable and not all(map(math.isfinite, (*set_point_rad, *velocity_rad_s))):
            self._break("a set-point is not finite; the drive goes off")
            enable = False
        now_ns = self._clock_ns()
        if enable != self._wanted:
            self._wanted, self._wanted_ns = enable, now_ns
        self._check_switched(now_ns)
        if self._bus is None:
            return
        try:
            self._tell(self._bus, set_point_rad, velocity_rad_s, enable)
        except LinkLost as lost:
            self._lose(lost)

    def clear(self) -> None:
        self._fault, self._untold = "", False
        self._clearing_ns = self._clock_ns()

    def statistics(self) -> dict[str, float]:
        shares = [self._answered[one] / max(1, asked) for one, asked in self._asked.items()]
        return {
            "success_rate_least": min(shares),
            "cycles": self._cycles,
            "answers_missing": sum(self._asked.values()) - sum(self._answered.values()),
            "frames_refused": self._refused,
            "positions_implausible": self._implausible,
            "temperature_most_c": self._hottest_c,
            "bus_load": round(self._load.share, 3),
        }

    def close(self) -> None:
        """Switches the motors off: an arm without brakes sinks."""
        bus, self._bus = self._bus, None
        if bus is None:
            return
        try:
            asking = MotorBus(bus, self._clock_ns, self._sleep)
            for motor in self._motors.values():
                for _ in range(LETS_GO_CYCLES):
                    if asking.feedback(motor.spec, motor.ranges, frames.DISABLE).state != MotorState.ENABLED:
                        break
                else:
                    self._notify(f"{motor.spec.name} does not let go; switch the arm's power off")
        except (LinkLost, DriveError) as lost:
            self._notify(f"{lost}; the motors let go by themselves after {1000 * TIMEOUT_S:.0f} ms")
        bus.close()

    # Inside ----------------------------------------------------------------------------------------------------------

    def _connect(self, may_hold: bool) -> None:
        bus = self._open_bus()
        try:
            asking = MotorBus(bus, self._clock_ns, self._sleep)
            for spec in self._arm.motors:
                ranges = asking.ranges(spec)
                told = asking.feedback(spec, ranges)
                if told.state == MotorState.COMMUNICATION_LOST:  # how every run ends that was killed
                    told = asking.feedback(spec, ranges, frames.CLEAR_ERROR)
                turns = TURN_RAD * round((sum(spec.range_rad) / 2 - spec.direction * told.position_rad) / TURN_RAD)
                motor = Motor(spec, ranges, told, turns, self._clock_ns())
                self._check(motor, may_hold)
                if told.state != MotorState.ENABLED:
                    if asking.register(spec, Register.CTRL_MODE) != frames.MIT_MODE:
                        asking.write(spec, Register.CTRL_MODE, frames.MIT_MODE)
                    asking.write(spec, Register.TIMEOUT, round(TIMEOUT_S / frames.TIMEOUT_UNIT_S))
                self._motors[spec.feedback_id] = motor
        except BridgeError:
            bus.close()
            raise
        self._bus, self._wanted_ns = bus, self._clock_ns()

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

    def _wait_for_cycle(self) -> int:
        """Waits until a cycle is due; returns when it was due. One that is more than a cycle late is left out."""
        period_ns = CYCLE_PERIODS * MS_NS
        if self._reported_ns is None:  # the loop begins; until now nobody has listened
            self._due_ns = self._clock_ns()
            for motor in self._motors.values():
                motor.heard_ns = self._due_ns
        self._due_ns += max(0, self._clock_ns() - self._due_ns) // period_ns * period_ns
        while (left_ns := self._due_ns - self._clock_ns()) > 0:
            self._serve()
            self._sleep(min(left_ns / 1e9, SERVE_S))
        due_ns = self._due_ns
        self._due_ns += period_ns
        self._cycles += 1
        return due_ns

    def _tell(self, bus: CanBus, set_point_rad: Sequence[float], velocity_rad_s: Sequence[float], enable: bool) -> None:
        torques = self._gravity.torques_nm(set_point_rad) if enable else self._factors
        for motor, q, dq, torque, factor in zip(
            self._motors.values(), set_point_rad, velocity_rad_s, torques, self._factors
        ):
            self._asked[motor.spec.feedback_id] += 1
            frame = self._frame(motor, q, dq, torque * factor) if enable else self._idle_frame(motor)
            self._refused += not bus.send(frame)

    def _take_answers(self, bus: CanBus) -> None:
        now_ns = self._clock_ns()
        heard: set[int] = set()
        for frame in bus.receive():
            motor = self._motors.get(frame.id)
            if motor is not None and len(frame.data) == 8 and frame.data[0] & 0xF == motor.spec.id & 0xF:
                self._take(motor, Feedback.unpack(frame.data, motor.ranges), now_ns)
                heard.add(frame.id)
        for one in heard:
            self._answered[one] += 1
        if self._clearing_ns is not None and now_ns - self._clearing_ns > SWITCHED_S * 1e9:
            self._clearing_ns = None
        for motor in self._motors.values():
            if motor.fault and self._clearing_ns is None:
                self._break(motor.fault)

    def _take(self, motor: Motor, told: Feedback, now_ns: int) -> None:
        reach = motor.ranges.velocity_rad_s * (now_ns - motor.heard_ns) / 1e9 + JITTER_RAD
        if abs(told.position_rad - motor.feedback.position_rad) > reach:
            self._implausible += 1
            return
        motor.feedback, motor.heard_ns = told, now_ns
        hottest = max(told.driver_c, told.motor_c)
        self._hottest_c = max(self._hottest_c, hottest)
        if hottest >= HOTTEST_C:
            self._break(f"{motor.spec.name} is at {hottest} degrees (limit {HOTTEST_C}); let it cool down")

    @property
    def _is_on(self) -> bool:
        """All of them once they are to be on, and until the last of them is off."""
        return (all if self._wanted else any)(motor.is_on for motor in self._motors.values())

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
        if motor.fault and self._clearing_ns is not None:
            return CanFrame(motor.spec.id, frames.CLEAR_ERROR)
        return CanFrame(frames.REGISTERS, frames.refresh(motor.spec.id))

    def _check_switched(self, now_ns: int) -> None:
        if now_ns - self._wanted_ns <= SWITCHED_S * 1e9 or self._silent:
            return
        unlike = next((motor for motor in self._motors.values() if motor.is_on != self._wanted), None)
        if unlike is not None:
            self._break(f"{unlike.spec.name} does not {'come on' if self._wanted else 'let go'}; check its supply")

    def _all_are_heard(self, now_ns: int) -> bool:
        """Whether what is known of every position is young enough. No fault that stays: it ends when they are heard."""
        quietest = min(self._motors.values(), key=lambda motor: motor.heard_ns)
        oldest_ns = now_ns - quietest.heard_ns
        silent = self._bus is None or oldest_ns > OLDEST_S * 1e9
        if silent and not self._silent:
            self._notify(f"{quietest.spec.name} has been silent for {oldest_ns / 1e6:.0f} ms; check the cables")
        self._silent = silent
        return not silent

    def _break(self, why: str) -> None:
        if not self._fault:
            self._notify(why)
            self._fault, self._untold = why, True

    def _lose(self, lost: LinkLost) -> None:
        if self._bus is not None:
            self._bus.close()
        self._bus = None
        self._retry_ns = self._clock_ns() + round(RECONNECT_S * 1e9)
        self._silent = True
        self._notify(f"{lost}; the motors let go by themselves after {1000 * TIMEOUT_S:.0f} ms")

    def _try_again(self) -> None:
        if self._clock_ns() < self._retry_ns:
            return
        self._retry_ns = self._clock_ns() + round(RECONNECT_S * 1e9)
        try:
            self._connect(may_hold=True)
            self._notify("the motors answer again")
        except BridgeError:
            self._bus = None
