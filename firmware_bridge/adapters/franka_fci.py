"""A Franka over its own interface, FCI, through libfranka's Python binding (`pip install pylibfranka`).

The robot sends its state once a millisecond over UDP and expects a set-point in answer. It extrapolates what it does
not get in time, and stops by itself when twenty in a row are missing (Franka's FCI documentation).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from firmware_bridge.adapters.base import DriveError, Measurement
from firmware_bridge.adapters.franka_options import FrankaOptions
from firmware_bridge.adapters.franka_stream import PositionStream, VelocityStream
from firmware_bridge.adapters.rate_guard import PERIOD_S, ArmLimits
from firmware_bridge.printing import harmless, print_line
from firmware_bridge.registry import missing

BRIDGED_PERIODS = 20
RECONNECT_S = 1.0
FINISH_PERIODS = 2000
"""Longest that a motion is brought to rest before the robot is told that it is over."""
BLOCKED = {
    "UserStopped": "the user stop is pressed; release it",
    "Guiding": "the robot is being guided by hand; let go of it",
    "Other": "the robot is not ready; unlock its joints and activate FCI in Desk",
}
"""Modes in which nobody but a person at the robot can help, by libfranka's names."""
MOVES, READY, REFLEX = "Move", "Idle", "Reflex"
SUCCESS_WINDOW = 100
"""Of commands, over which the robot counts."""
SETTLE_PERIODS = 50
"""After a recovery, states may still be on their way that are older than its answer."""


class FrankaDrive:
    """The robot at `address`. Raises `DriveError` when it cannot be reached, or pylibfranka is not there.

    A fault of the robot's own, a reflex or a command it refused, is told to the core until the core has taken the drive
    away, and again when the core wants it on; the robot stays in it until `clear`. libfranka's exceptions share no base
    but `Exception`: apart from a broken line, whatever it raises is such a fault.

    `limits` are the arm's. What is sent keeps them from where the robot itself says that it should be, also after
    packets were lost. libfranka waits inside for a motion to begin; the periods that pass meanwhile are made good
    afterwards, one more in each.
    """

    def __init__(self, address: str, options: FrankaOptions, limits: ArmLimits, notify: Callable[[str], None]) -> None:
        try:
            import pylibfranka
        except ImportError as error:
            raise DriveError(missing("a Franka", error)) from None
        self._franka: Any = pylibfranka
        self._address = address
        self._options = options
        realtime = pylibfranka.RealtimeConfig
        self._realtime = realtime.kEnforce if options.enforce_realtime else realtime.kIgnore
        self._by_position = options.mode == "position"
        self._stream: PositionStream | VelocityStream = (
            PositionStream(limits) if self._by_position else VelocityStream(limits)
        )
        self._notify = harmless(notify)
        self._control: Any = None
        self._robot: Any = None
        self._fault = ""
        self._untold = False
        self._retry_s = 0.0
        self._robot_s: float | None = None
        self._begun = False
        self._owed = self._finishing = self._settles = self._moving = 0
        self._mode = ""
        self._success: list[float] = [1.0, 1.0]
        self._load_kg = (0.0, 0.0)
        try:
            robot = self._connect()
            state = robot.read_once()
        except Exception as error:
            raise DriveError(f"no Franka answers at {address}: {_line(error)}") from None
        self._position: tuple[float, ...] = tuple(state.q_d)
        self._look(state)
        self._load_kg = float(state.m_ee), float(state.m_load)
        self._notify(
            f"end effector {self._load_kg[0]:.2f} kg, payload {self._load_kg[1]:.2f} kg, as the robot has them"
        )

    def _connect(self) -> Any:
        robot = self._franka.Robot(self._address, self._realtime)
        options = self._options
        robot.set_collision_behavior(
            options.contact_torque_nm or options.collision_torque_nm,
            options.collision_torque_nm,
            options.contact_force_n or options.collision_force_n,
            options.collision_force_n,
        )
        robot.set_joint_impedance(options.impedance_nm_rad)
        if options.load_kg is not None:
            robot.set_load(options.load_kg, options.load_center_m, options.load_inertia_kg_m2)
        self._robot, self._robot_s = robot, None
        return robot

    @property
    def position_rad(self) -> tuple[float, ...]:
        """As last measured."""
        return self._position

    @property
    def fault(self) -> str:
        """What keeps the robot from moving, in words; empty where nothing does."""
        return self._fault

    def measure(self) -> Measurement:
        if self._robot is None:
            return self._unreachable()
        try:
            state = self._control.readOnce()[0] if self._control is not None else self._robot.read_once()
        except self._franka.NetworkException as error:
            self._lose(f"the line to the robot is gone: {_line(error)}")
            return self._unreachable()
        except Exception as error:
            self._control = None
            self._break(_line(error))
            return Measurement(self._position, False, False, 1)
        periods = self._periods(float(state.time.to_sec()))
        self._look(state)
        moving = self._control is not None and self._mode == MOVES
        # At rest the robot regulates to q_d, and a motion has to begin there; in motion q is what was measured.
        self._position = tuple(state.q if moving else state.q_d)
        if moving:
            self._stream.told(state, periods)
            self._count_success(state.control_command_success_rate, periods)
        made_good = min(self._owed, 1)
        self._owed -= made_good
        ok = not self._untold and self._mode not in BLOCKED
        return Measurement(self._position, ok, moving, periods + made_good, idle=made_good)

    def _count_success(self, rate: float, periods: int) -> None:
        """The least counts once the robot has a whole window of this motion; before, one missing packet is a lot."""
        self._moving += periods
        self._success[1] = rate
        if self._moving >= SUCCESS_WINDOW:
            self._success[0] = min(self._success[0], rate)

    def _periods(self, now_s: float) -> int:
        """Since the last state; those that passed while a motion began are owed instead."""
        periods = 1 if self._robot_s is None else max(0, round((now_s - self._robot_s) / PERIOD_S))
        self._robot_s = now_s
        if self._begun:
            self._begun, self._owed, periods = False, max(0, periods - 1), min(periods, 1)
        return periods

    def _look(self, state: Any) -> None:
        """Takes the robot's mode and its errors; what keeps it from moving is a fault."""
        self._mode = str(state.robot_mode.name)
        errors = str(state.current_errors).strip("[]") if state.current_errors else ""
        if self._settles > 0:
            self._settles = 0 if self._mode == READY and not errors else self._settles - 1
            return
        if self._mode in BLOCKED:
            self._break(BLOCKED[self._mode])
        elif errors or self._mode == REFLEX:
            self._break(f"the robot has stopped by itself: {errors.replace(chr(34), '') or 'a reflex'}")

    def command(self, set_point_rad: Sequence[float], velocity_rad_s: Sequence[float], enable: bool) -> None:
        if not enable:
            self._untold = False  # the core has heard of it: it took the drive away
        if self._robot is None:
            return
        try:
            if self._control is not None:
                self._answer(set_point_rad, velocity_rad_s, enable)
            elif enable and self._fault:
                self._untold = True
            elif enable:
                self._start()
        except self._franka.NetworkException as error:
            self._lose(f"the line to the robot is gone: {_line(error)}")
        except Exception as error:
            self._control = None
            self._break(_line(error))

    def _start(self) -> None:
        """Waits inside until the motion has begun: 5 to 100 ms."""
        mode = self._franka.ControllerMode.JointImpedance
        robot = self._robot
        begin = robot.start_joint_position_control if self._by_position else robot.start_joint_velocity_control
        self._stream.begin(self._position)
        self._control = begin(mode)
        self._begun, self._finishing, self._moving = True, 0, 0

    def _answer(self, set_point_rad: Sequence[float], velocity_rad_s: Sequence[float], enable: bool) -> None:
        """A set-point, on the way to rest as well; the last one, once the robot itself is at rest."""
        values = self._stream.next(set_point_rad, velocity_rad_s, ending=not enable)
        make = self._franka.JointPositions if self._by_position else self._franka.JointVelocities
        target = make(values)
        self._finishing = 0 if enable else self._finishing + 1
        over = self._finishing > 0 and (self._stream.is_resting or self._finishing > FINISH_PERIODS)
        target.motion_finished = over
        self._control.writeOnce(target)
        if over:
            self._control = None

    def clear(self) -> None:
        if self._robot is not None:
            try:
                self._robot.automatic_error_recovery()
            except Exception as error:
                self._break(f"the robot does not recover: {_line(error)}")
                return
        self._fault, self._untold, self._settles = "", False, SETTLE_PERIODS

    def statistics(self) -> dict[str, float]:
        return {
            "success_rate_least": self._success[0],
            "success_rate_last": self._success[1],
            "set_points_off_plan": self._stream.departures,
            "end_effector_kg": self._load_kg[0],
            "payload_kg": self._load_kg[1],
        }

    def close(self) -> None:
        if self._robot is not None and self._control is not None:
            self._control = None
            try:
                self._robot.stop()
            except Exception as error:
                self._notify(f"the robot did not take the stop: {_line(error)}")
        self._robot = None

    def _break(self, why: str) -> None:
        if why != self._fault:
            self._notify(why)
            self._fault, self._untold = why, True

    def _lose(self, why: str) -> None:
        self._control = self._robot = None
        self._retry_s = time.monotonic() + RECONNECT_S
        self._break(why)

    def _unreachable(self) -> Measurement:
        time.sleep(PERIOD_S)
        if time.monotonic() >= self._retry_s:
            self._retry_s = time.monotonic() + RECONNECT_S
            try:
                self._connect()
                self._notify("the robot answers again")
            except Exception:
                self._robot = None
        return Measurement(self._position, False, False, 1)


def _line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__


def print_to_stderr(text: str) -> None:
    """The adapter's own line of output."""
    print_line(f"edge-adapter: {text}", sys.stderr)
