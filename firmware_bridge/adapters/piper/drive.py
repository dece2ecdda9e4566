"""An AgileX Piper as the core sees it: it reports by itself 200 times a second, and is told its targets as often.

The arm plans its own way to each target, with an acceleration of its own, and stops there. Told where a joint is to be
now, it would trail by v^2 / 2a. So a target is where a stop from the set-point would end, within the motor's range.
It holds its last target when nobody speaks to it: **it has no timeout of its own**.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from firmware_bridge.adapters.base import DriveError
from firmware_bridge.adapters.can_drive import CanDrive
from firmware_bridge.adapters.piper import frames
from firmware_bridge.adapters.piper.frames import (
    FAST_HZ,
    GRIPPER_FAULTS,
    HAS_ZERO,
    HEALTHS,
    JOINTS,
    MOTOR_FAULTS,
    POSITIONS,
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
from firmware_bridge.bus_load import CanShare, classic_bits
from firmware_bridge.transports.can_stream import CLASSIC_SIZE, CanBus, CanFrame

T = TypeVar("T")
CYCLE_PERIODS = 5
"""200 Hz, the rate of the arm's own reports and of the maker's examples."""
OUR_FRAMES = 5
OLDEST_HEALTH_S = 0.25
"""Ours: ten of a motor's reports."""
LISTENS_S, LONGEST_S = 0.1, 0.5
"""Ours: who else commands the arm does so at least ten times a second."""
ANSWER_S, TRIES, POLL_S = 0.05, 5, 0.0005
SWITCHED_S = 2.0
"""Ours: the maker's examples wait for the motors to come on without an end."""
LETS_GO_S = 1.0
FASTEST_RAD_S, JITTER_RAD = 10.0, 0.02
"""Ours: three times what the motors do, for an arm that falls."""
FASTEST_M_S, JITTER_M = 1.0, 0.005
WITHIN_RAD = 0.0009
"""Half a step of the motors' own limits, which are whole tenths of a degree; targets stay within by so much."""
ROUNDED_RAD = 0.02
"""The maker's range of joint 2 is 0 to 3.14 rad and 0 to 180 degrees."""
FIXES = {
    ArmState.EMERGENCY_STOP: "find out why it was stopped",
    ArmState.COLLISION: "free it from what it met",
    ArmState.JOINT_COMMUNICATION: "switch its power off and on",
    ArmState.CONTROLLER_TOO_HOT: "let it cool down",
    ArmState.RESISTOR_TOO_HOT: "let it cool down",
}
LET_GO = "take the arm in hand, and let go of it by let_go=1 in the URL"


@dataclass(frozen=True)
class PiperArm:
    """What a profile asks of the arm: its axes, six joints and the gripper, and what it operates within."""

    axes: Sequence[str]
    low_rad: Sequence[float]
    high_rad: Sequence[float]
    velocity_rad_s: Sequence[float]
    acceleration_rad_s2: Sequence[float]


def bus_share(bitrate: int) -> CanShare:
    """What the arm's reports and our commands take of the bus."""
    bits = classic_bits(CLASSIC_SIZE)
    reports = frames.FAST_HZ * (1 + len(frames.POSES) + len(POSITIONS) + 1 + len(frames.SPEEDS))
    reports += frames.SLOW_HZ * len(HEALTHS)
    return CanShare(
        {
            f"the arm's {reports} reports of {bits} bits a second": reports,
            f"{OUR_FRAMES * FAST_HZ} commands a second": OUR_FRAMES * FAST_HZ,
        },
        bitrate,
    )


class PiperDrive(CanDrive):
    """The arm on its bus. Raises `DriveError` at connect.

    `grip_nm` is the most torque of the gripper. `let_go` takes the torque away of an arm that holds a pose, at connect;
    without it, such an arm is refused.
    """

    CYCLE_PERIODS: ClassVar[int] = CYCLE_PERIODS
    CLEARS_S: ClassVar[float] = 0.5
    WHEN_LOST: ClassVar[str] = "the arm holds its last target"
    WHEN_LEFT: ClassVar[str] = f"{WHEN_LOST}: {LET_GO}, or switch its power off"
    WHEN_BACK: ClassVar[str] = "the arm answers again"

    def __init__(
        self,
        open_bus: Callable[[], CanBus],
        arm: PiperArm,
        grip_nm: float,
        let_go: bool,
        load: CanShare,
        notify: Callable[[str], None],
        clock_ns: Callable[[], int],
        sleep: Callable[[float], None],
    ) -> None:
        self._motor_names = [f"motor {number + 1} ({arm.axes[number]})" for number in range(JOINTS)]
        names = {STATUS: "the arm's controller", WIDTH: "the gripper", **dict(zip(HEALTHS, self._motor_names))}
        names |= {one: f"{arm.axes[2 * at]}, {arm.axes[2 * at + 1]}" for at, one in enumerate(POSITIONS)}
        super().__init__(open_bus, names, load, notify, clock_ns, sleep)
        self._arm, self._grip_nm, self._lets_go = arm, grip_nm, let_go
        self._patience_s |= dict.fromkeys(HEALTHS, OLDEST_HEALTH_S)
        self._asked = dict.fromkeys((STATUS, *POSITIONS, WIDTH), 0)
        self._answered = dict(self._asked)
        self._position = [0.0] * (JOINTS + 1)
        self._status = Status(Control.STANDBY, ArmState.NORMAL)
        self._gripper = Gripper(0.0, 0.0, Health(0))
        self._motors = [MotorHealth(0.0, 0, 0, Health(0))] * JOINTS
        self._limits: list[MotorLimits] = []
        self._acceleration: list[float] = []
        self._came_on = False
        self._taken_ns: int | None = None
        self._connect(may_hold=False)

    @property
    def position_rad(self) -> tuple[float, ...]:
        return tuple(self._position)

    def statistics(self) -> dict[str, float]:
        return super().statistics() | {
            "voltage_least_v": min(motor.voltage_v for motor in self._motors),
            "grip_torque_most_nm": self._grip_nm,
        }

    # At connect ------------------------------------------------------------------------------------------------------

    def _prepare(self, bus: CanBus, may_hold: bool) -> None:
        seen = self._listen(bus)
        if seen & set(frames.LEADER_STATUS) and STATUS not in seen:
            raise DriveError(
                "the arm is set up as a leader and takes no commands; make it a follower by the maker's tool"
            )
        quiet = [name for one, name in self._names.items() if one not in seen]
        if quiet:
            raise DriveError(
                f"{quiet[0]} is not heard on the bus; check the arm's power, the cable, termination and bit rate"
            )
        if not may_hold and seen & set(frames.COMMANDS):
            raise DriveError("another program, or a leader arm, commands this arm; end it first")
        self._ask_limits(bus)
        if not self._gripper.flags & HAS_ZERO:
            raise DriveError("the gripper has no zero; close it, and set it by piper_sdk's piper_set_gripper_zero.py")
        if self._any_on and not may_hold:
            if not self._lets_go:
                raise DriveError(f"the arm holds a pose already: {LET_GO}")
            self._let_go(bus)
        self._taken_ns = None
        if why := self._trouble():
            self._break(why)

    def _listen(self, bus: CanBus) -> set[int]:
        """Who has spoken, after all of the arm's reports were there or ought to have been."""
        since_ns, seen = self._clock_ns(), set[int]()
        while (passed_s := (self._clock_ns() - since_ns) / 1e9) < LONGEST_S:
            seen |= self._take_frames(bus, checked=False)
            if passed_s > LISTENS_S and seen >= set(self._names):
                break
            self._sleep(POLL_S)
        return seen

    def _ask_limits(self, bus: CanBus) -> None:
        """What the motors are set to keep. Raises `DriveError` where it is less than the profile operates within."""
        version = self._firmware(bus)
        arm, found, quickest = self._arm, [], []
        for joint, name in enumerate(self._motor_names):
            number = joint + 1

            def limits(frame: CanFrame, number: int = number) -> MotorLimits | None:
                told = MotorLimits.unpack(frame.data) if frame.id == frames.LIMITS else None
                return told if told is not None and told.motor == number else None

            def acceleration(frame: CanFrame, number: int = number) -> float | None:
                of, value = frames.acceleration_rad_s2(frame.data)
                return value if frame.id == frames.MOST_ACCELERATION and of == number else None

            one = self._ask(bus, CanFrame(frames.ASK_LIMITS, frames.ask_limits(number)), limits)
            most = self._ask(
                bus, CanFrame(frames.ASK_LIMITS, frames.ask_limits(number, acceleration=True)), acceleration
            )
            if one is None or most is None:
                raise DriveError(f"{name} does not tell its limits; check the cable and the termination")
            speed = one.speed_rad_s(version)
            short = {
                f"goes from {one.low_rad:.3f} to {one.high_rad:.3f} rad": one.low_rad > arm.low_rad[joint] + ROUNDED_RAD
                or one.high_rad < arm.high_rad[joint] - ROUNDED_RAD,
                f"does at most {speed:g} rad/s": speed < arm.velocity_rad_s[joint],
                f"does at most {most:g} rad/s^2": most < arm.acceleration_rad_s2[joint],
            }
            if less := next((what for what, is_less in short.items() if is_less), None):
                raise DriveError(
                    f"{name} {less}, as it is set, and the profile operates beyond; set it to the maker's values, or "
                    "tighten [operating]"
                )
            found.append(one)
            quickest.append(most)
        self._limits, self._acceleration = found, quickest

    def _firmware(self, bus: CanBus) -> tuple[int, int, int]:
        text = bytearray()

        def version(frame: CanFrame) -> tuple[int, int, int] | None:
            if frame.id == frames.FIRMWARE:
                text.extend(frame.data)
            return frames.firmware_version(bytes(text))

        found = self._ask(bus, CanFrame(frames.FIRMWARE, frames.ASK_FIRMWARE), version)
        if found is None:
            raise DriveError("the arm does not tell its firmware's version, by which its limits are read; update it")
        return found

    def _ask(self, bus: CanBus, question: CanFrame, read: Callable[[CanFrame], T | None]) -> T | None:
        """What `read` makes of the answer to a question, which is sent again where none comes."""
        for _ in range(TRIES):
            bus.send(question)
            until_ns = self._clock_ns() + round(1e9 * ANSWER_S)
            while self._clock_ns() < until_ns:
                for frame in bus.receive():
                    if len(frame.data) == CLASSIC_SIZE and (found := read(frame)) is not None:
                        return found
                self._sleep(POLL_S)
        return None

    # In the loop -----------------------------------------------------------------------------------------------------

    def _take(self, bus: CanBus) -> None:
        now_ns = self._clock_ns()
        if self._taken_ns is None:  # what has waited since the connection says nothing of the line
            self._take_frames(bus, checked=False)
        else:
            expected = max(1, round((now_ns - self._taken_ns) / 1e9 * FAST_HZ))
            self._asked = {one: asked + expected for one, asked in self._asked.items()}
            self._take_frames(bus)
        self._taken_ns = now_ns
        self._came_on = self._came_on and self._wanted
        if not self._is_clearing and (why := self._trouble()):
            self._break(why)
        self._came_on = self._wanted and (self._came_on or self._is_on)

    def _take_frames(self, bus: CanBus, checked: bool = True) -> set[int]:
        """Takes what has arrived, and returns who has spoken. Unless it is `checked`, any position is believed."""
        now_ns, seen = self._clock_ns(), set[int]()
        for frame in bus.receive():
            if len(frame.data) == CLASSIC_SIZE:
                seen.add(frame.id)
                if frame.id in self._names:
                    self._take_report(frame, now_ns, checked)
        return seen

    def _take_report(self, frame: CanFrame, now_ns: int, checked: bool) -> None:
        one = frame.id
        if checked and one in self._answered:
            self._answered[one] += 1
        if one in POSITIONS or one == WIDTH:
            at, told = self._told(frame)
            moved = max(abs(q - before) for q, before in zip(told, self._position[at:]))
            fastest, jitter = (FASTEST_M_S, JITTER_M) if one == WIDTH else (FASTEST_RAD_S, JITTER_RAD)
            if checked and not self._is_plausible(one, moved, fastest, jitter, now_ns):
                return
            self._position[at : at + len(told)] = told
        elif one == STATUS:
            self._status = Status.unpack(frame.data)
        else:
            motor = MotorHealth.unpack(frame.data)
            self._motors[HEALTHS.index(one)] = motor
            self._hottest_c = max(self._hottest_c, motor.driver_c, motor.motor_c)
        self._heard_ns[one] = now_ns

    def _told(self, frame: CanFrame) -> tuple[int, tuple[float, ...]]:
        """The first axis that a frame is about, and where they are."""
        if frame.id == WIDTH:
            self._gripper = Gripper.unpack(frame.data)
            return JOINTS, (self._gripper.width_m,)
        return 2 * POSITIONS.index(frame.id), frames.unpack_pair(frame.data)

    def _trouble(self) -> str:
        """Why the arm cannot be moved now, in words; empty where it can."""
        status = self._status
        for motor, name in zip(self._motors, self._motor_names):
            if motor.flags & MOTOR_FAULTS:
                return f"{name} has let go: {frames.words(motor.flags)}"
            if self._came_on and not motor.flags & Health.ENABLED:
                return f"{name} has let go by itself; see its supply and what blocks it"
        if self._gripper.flags & GRIPPER_FAULTS:
            return f"the gripper has let go: {frames.words(self._gripper.flags, gripper=True)}"
        if status.state != ArmState.NORMAL:
            known = status.state in set(ArmState)
            why = ArmState(status.state).name.lower().replace("_", " ") if known else f"state {status.state}"
            fix = FIXES.get(ArmState(status.state), "look at the arm") if known else "look at the arm"
            return f"the arm has stopped by itself: {why}; {fix}"
        if status.control not in (Control.STANDBY, Control.CAN):
            known = status.control in set(Control)
            who = Control(status.control).name.lower() if known else f"mode {status.control}"
            return f"the arm is under other control ({who}): end it at the arm"
        if self._came_on and status.control != Control.CAN:
            return "the arm takes no more commands from CAN; look at the arm"
        return ""

    @property
    def _any_on(self) -> bool:
        return any(flags & Health.ENABLED for flags in self._flags())

    def _flags(self) -> list[Health]:
        return [motor.flags for motor in self._motors] + [self._gripper.flags]

    @property
    def _is_on(self) -> bool:
        if not self._wanted:
            return self._any_on
        return all(flags & Health.ENABLED for flags in self._flags()) and self._status.control == Control.CAN

    def _switch(self, now_ns: int) -> None:
        if now_ns - self._wanted_ns > SWITCHED_S * 1e9 and not self._silent and self._is_on != self._wanted:
            self._break(f"the arm does not {'come on' if self._wanted else 'let go'}; check its supply")

    def _tell(self, bus: CanBus, set_point_rad: Sequence[float], velocity_rad_s: Sequence[float]) -> None:
        for frame in self._targets(set_point_rad, velocity_rad_s) if self._wanted else self._idle_frames():
            self._send(bus, frame)

    def _targets(self, set_point_rad: Sequence[float], velocity_rad_s: Sequence[float]) -> list[CanFrame]:
        """The targets, and behind them, while they come on, that the motors do: so none comes on with an old target."""
        goals = []
        for q, dq, limits, most in zip(set_point_rad, velocity_rad_s, self._limits, self._acceleration):
            goal = q + dq * abs(dq) / (2 * most)
            goals.append(min(max(goal, limits.low_rad + WITHIN_RAD), limits.high_rad - WITHIN_RAD))
        sent = [CanFrame(frames.MODE, frames.joint_mode(100))]
        sent += [CanFrame(one, frames.pack_pair(*goals[2 * at : 2 * at + 2])) for at, one in enumerate(TARGETS)]
        sent.append(
            CanFrame(frames.GRIPPER, frames.gripper_command(max(0.0, set_point_rad[JOINTS]), self._grip_nm, True))
        )
        if not self._came_on:
            sent += self._switching(on=True)
        return sent

    def _switching(self, on: bool) -> list[CanFrame]:
        """For every motor that is not as it is to be."""
        behind = [number + 1 for number, motor in enumerate(self._motors) if bool(motor.flags & Health.ENABLED) != on]
        return [CanFrame(frames.ENABLE, frames.enable_motor(number, on)) for number in behind]

    def _idle_frames(self) -> list[CanFrame]:
        """Off, for what is on, and what clears an error that is to be; else nothing: the arm reports by itself."""
        sent = self._switching(on=False)
        clears = self._is_clearing
        if self._gripper.flags & Health.ENABLED or (clears and self._gripper.flags & GRIPPER_FAULTS):
            command = frames.gripper_command(max(0.0, self._gripper.width_m), self._grip_nm, False, clears)
            sent.append(CanFrame(frames.GRIPPER, command))
        if clears and (self._status.state == ArmState.EMERGENCY_STOP or self._status.control == Control.TEACHING):
            sent.append(CanFrame(frames.STOP, frames.RESUME))
        if clears and (self._status.state != ArmState.NORMAL or any(one.flags & MOTOR_FAULTS for one in self._motors)):
            sent.append(CanFrame(frames.CONFIGURE, frames.CLEAR_ERRORS))
        return sent

    def _let_go(self, bus: CanBus) -> None:
        until_ns = self._clock_ns() + round(1e9 * LETS_GO_S)
        while self._any_on and self._clock_ns() < until_ns:
            for frame in self._idle_frames():
                bus.send(frame)
            self._sleep(1e-3 * CYCLE_PERIODS)
            self._take_frames(bus, checked=False)
        if self._any_on:
            self._notify("the arm does not let go; switch its power off")
