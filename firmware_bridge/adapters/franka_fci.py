"""A Franka over its own interface, FCI, through libfranka's Python binding (`pip install pylibfranka`).

The robot sends its state once a millisecond over UDP and expects a set-point in answer. It extrapolates what it does
not get in time, and stops by itself when more than 20 in a row are missing (Franka's FCI documentation).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from firmware_bridge.adapters.base import DriveError, Measurement
from firmware_bridge.adapters.franka_options import FrankaOptions
from firmware_bridge.adapters.velocity import RateLimits, VelocityFollower
from firmware_bridge.printing import harmless, print_line
from firmware_bridge.registry import missing

BRIDGED_PERIODS = 20
PERIOD_S = 0.001
RECONNECT_S = 1.0


class FrankaDrive:
    """The robot at `address`. Raises `DriveError` when it cannot be reached, or pylibfranka is not there.

    A fault of the robot's own, a reflex or a command it refused, is told to the core until the core has taken the drive
    away, and again when the core wants it on; the robot stays in it until `clear`. libfranka's exceptions share no base
    but `Exception`: apart from a broken line, whatever it raises is such a fault.

    `limits` are the arm's, which joint velocities keep with their correction.
    """

    def __init__(self, address: str, options: FrankaOptions, limits: RateLimits, notify: Callable[[str], None]) -> None:
        try:
            import pylibfranka
        except ImportError as error:
            raise DriveError(missing("a Franka", error)) from None
        self._franka: Any = pylibfranka
        self._address = address
        self._options = options
        realtime = pylibfranka.RealtimeConfig
        self._realtime = realtime.kEnforce if options.enforce_realtime else realtime.kIgnore
        self._follower = VelocityFollower(limits) if options.mode == "velocity" else None
        self._desired: Sequence[float] = ()
        self._periods = 1
        self._notify = harmless(notify)
        self._control: Any = None
        self._robot: Any = None
        self._fault = ""
        self._untold = False
        self._retry_s = 0.0
        self._robot_s: float | None = None
        self._success: list[float] = [1.0, 1.0]
        try:
            robot = self._connect()
            self._position: tuple[float, ...] = tuple(robot.read_once().q_d)
        except Exception as error:
            raise DriveError(f"no Franka answers at {address}: {_line(error)}") from None

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
        self._robot, self._robot_s = robot, None
        return robot

    @property
    def position_rad(self) -> tuple[float, ...]:
        """As last measured."""
        return self._position

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
        now_s = float(state.time.to_sec())
        periods = 1 if self._robot_s is None else max(0, round((now_s - self._robot_s) / PERIOD_S))
        self._robot_s = now_s
        moving = self._control is not None
        # At rest the robot regulates to q_d, and a motion has to begin there; in motion q is what was measured.
        self._position = tuple(state.q if moving else state.q_d)
        self._desired, self._periods = state.q_d, periods
        if moving:
            self._success = [
                min(self._success[0], state.control_command_success_rate),
                state.control_command_success_rate,
            ]
        if state.current_errors:
            self._break(str(state.current_errors))
        return Measurement(self._position, not self._untold, moving, periods)

    def command(self, set_point_rad: Sequence[float], velocity_rad_s: Sequence[float], enable: bool) -> None:
        if not enable:
            self._untold = False  # the core has heard of it: it took the drive away
        if self._robot is None:
            return
        try:
            if self._control is None:
                if enable and self._fault:
                    self._untold = True
                elif enable:
                    self._control = self._start()
                return
            target = self._target(set_point_rad, velocity_rad_s)
            target.motion_finished = not enable
            self._control.writeOnce(target)
            if not enable:
                self._control = None
        except self._franka.NetworkException as error:
            self._lose(f"the line to the robot is gone: {_line(error)}")
        except Exception as error:
            self._control = None
            self._break(_line(error))

    def _start(self) -> Any:
        mode = self._franka.ControllerMode.JointImpedance
        if self._follower is None:
            return self._robot.start_joint_position_control(mode)
        self._follower.restart()
        return self._robot.start_joint_velocity_control(mode)

    def _target(self, set_point_rad: Sequence[float], velocity_rad_s: Sequence[float]) -> Any:
        if self._follower is None:
            return self._franka.JointPositions(list(set_point_rad))
        sent = self._follower.follow(set_point_rad, velocity_rad_s, self._desired, self._periods)
        return self._franka.JointVelocities(sent)

    def clear(self) -> None:
        if self._robot is not None:
            try:
                self._robot.automatic_error_recovery()
            except Exception as error:
                self._break(f"the robot does not recover: {_line(error)}")
                return
        self._fault, self._untold = "", False

    def statistics(self) -> dict[str, float]:
        return {"success_rate_least": self._success[0], "success_rate_last": self._success[1]}

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
