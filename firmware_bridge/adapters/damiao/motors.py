"""Which motors an arm has, what is read from each of them before it moves, and what they take of their bus."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, TypeVar

from firmware_bridge.adapters.base import DriveError
from firmware_bridge.adapters.damiao import frames
from firmware_bridge.adapters.damiao.frames import Feedback, MotorState, Ranges, Register
from firmware_bridge.adapters.gravity import Link, Vector
from firmware_bridge.bus_load import CanShare, classic_bits
from firmware_bridge.reading import Between, Name, Sized
from firmware_bridge.transports.can_stream import CanBus, CanFrame

T = TypeVar("T")
CYCLE_PERIODS = 4
"""The core's periods in one exchange with all motors: 250 Hz, the rate of the YAM's own driver."""
FRAME_SIZE = 8
ANSWER_S = 0.05
TRIES = 5
POLL_S = 0.0005
TIMEOUT_S = 0.1
"""After this time without a command a motor that is on lets go by itself: ours, longer than what the drive bridges, and
the core's own limit for a host."""
MOST_MOTORS = 16


@dataclass(frozen=True)
class MotorSpec:
    """One motor and the link that it carries. `kp` N m/rad and `kd` N m s/rad of its MIT mode; `direction` 1 or -1."""

    joint: Name
    model: Name
    id: Annotated[int, Between(1, 0x7FE)]
    feedback_id: Annotated[int, Between(1, 0x7FE)]
    direction: Annotated[int, Between(-1, 1)]
    kp: Annotated[float, Between(0.1, frames.MOST_KP)]
    kd: Annotated[float, Between(0.0, frames.MOST_KD)]
    range_rad: tuple[float, float]
    """Of the joint, from stop to stop; less than a turn."""
    gravity_factor: Annotated[float, Between(0.0, 2.0)]
    """What the torque of the gravity model is multiplied with."""
    origin_m: Vector
    rpy_rad: Vector
    axis: Vector
    mass_kg: Annotated[float, Between(0.0, 100.0)]
    com_m: Vector

    @property
    def name(self) -> str:
        return f"motor {self.id} ({self.joint})"

    @property
    def link(self) -> Link:
        return Link(self.origin_m, self.rpy_rad, self.axis, self.mass_kg, self.com_m)


@dataclass(frozen=True)
class MotorArm:
    """An arm's motors in the order of its joints, and where the numbers come from."""

    source: Annotated[str, Sized(1, 1024)]
    tool_kg: Annotated[float, Between(0.0, 20.0)]
    """At the last joint: the gripper, as delivered."""
    motors: Annotated[tuple[MotorSpec, ...], Sized(1, MOST_MOTORS)]


def exchange(motors: int, bitrate: int) -> CanShare:
    """What the exchange with all motors takes of a classic bus: a command and an answer of 8 bytes for each of them."""
    what = f"{motors} motors x 2 frames of {classic_bits(FRAME_SIZE)} bits every {CYCLE_PERIODS} ms"
    return CanShare({what: 2 * motors / (CYCLE_PERIODS * 1e-3)}, bitrate)


class MotorBus:
    """Questions to one motor at a time, on a bus that is open; for before and after a motion."""

    def __init__(self, bus: CanBus, clock_ns: Callable[[], int], sleep: Callable[[float], None]) -> None:
        self.bus, self._clock_ns, self._sleep = bus, clock_ns, sleep

    def register(self, motor: MotorSpec, register: Register) -> float:
        """What stands in a register. Raises `DriveError` where the motor does not answer, `LinkLost`."""
        found = self._about(motor, frames.read_register(motor.id, register), register)
        if found is None:
            raise DriveError(
                f"{motor.name} does not answer at id 0x{motor.id:02X} with 0x{motor.feedback_id:02X}; check its power, "
                "the cable, the termination, its ids and the bit rate"
            )
        return found

    def write(self, motor: MotorSpec, register: Register, value: float) -> None:
        """Sets a register and reads it back. Raises `DriveError`, `LinkLost`."""
        self._about(motor, frames.write_register(motor.id, register, value), register)
        if (found := self.register(motor, register)) != value:
            raise DriveError(f"{motor.name} keeps {found:g} in {register.name} and not {value:g}; set it by its tool")

    def ranges(self, motor: MotorSpec) -> Ranges:
        """The ends of the motor's own scales: other drivers assume them, and drive it at another speed and torque."""
        found = Ranges(*(self.register(motor, one) for one in (Register.PMAX, Register.VMAX, Register.TMAX)))
        if not found.is_plausible:
            raise DriveError(f"{motor.name} says that its scales are {found}, which no motor has; set PMAX, VMAX, TMAX")
        return found

    def feedback(self, motor: MotorSpec, ranges: Ranges, question: bytes = b"") -> Feedback:
        """What the motor tells of itself; `question` changes its state on the way. Raises `DriveError`, `LinkLost`."""

        def read(data: bytes) -> Feedback | None:
            is_it = frames.register_answer(data) is None and data[0] & 0xF == motor.id & 0xF
            return Feedback.unpack(data, ranges) if is_it else None

        asked = CanFrame(motor.id, question) if question else CanFrame(frames.REGISTERS, frames.refresh(motor.id))
        told = self._ask(motor, asked, read)
        if told is None:
            raise DriveError(f"{motor.name} has stopped answering; check its power and the cable")
        return told

    def _about(self, motor: MotorSpec, question: bytes, register: Register) -> float | None:
        def read(data: bytes) -> float | None:
            answer = frames.register_answer(data)
            return answer[2] if answer is not None and answer[:2] == (motor.id, register) else None

        return self._ask(motor, CanFrame(frames.REGISTERS, question), read)

    def _ask(self, motor: MotorSpec, question: CanFrame, read: Callable[[bytes], T | None]) -> T | None:
        """What `read` makes of the motor's answer to a question, which is sent again where none comes."""
        for _ in range(TRIES):
            self.bus.receive()
            self.bus.send(question)
            until_ns = self._clock_ns() + round(1e9 * ANSWER_S)
            while self._clock_ns() < until_ns:
                self._sleep(POLL_S)
                for frame in self.bus.receive():
                    if frame.id == motor.feedback_id and len(frame.data) == FRAME_SIZE:
                        found = read(frame.data)
                        if found is not None:
                            return found
        return None


@dataclass
class Motor:
    """What is known of one motor. `turns_rad` makes of its angle, which is known within a turn, that of the joint."""

    spec: MotorSpec
    ranges: Ranges
    feedback: Feedback
    turns_rad: float

    @property
    def is_on(self) -> bool:
        return self.feedback.state == MotorState.ENABLED

    @property
    def fault(self) -> str:
        """Why the motor has let go; empty where it has not."""
        state = self.feedback.state
        if state in (MotorState.DISABLED, MotorState.ENABLED):
            return ""
        why = MotorState(state).name.lower().replace("_", " ") if state in set(MotorState) else f"state {state}"
        return f"{self.spec.name} has let go: {why}"

    @property
    def position_rad(self) -> float:
        """Of the joint."""
        return self.spec.direction * self.feedback.position_rad + self.turns_rad

    def of_motor(self, q_rad: float) -> float:
        """The motor's own angle for an angle of the joint."""
        return self.spec.direction * (q_rad - self.turns_rad)
