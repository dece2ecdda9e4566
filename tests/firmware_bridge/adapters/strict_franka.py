"""A libfranka with the strict robot behind it, on a simulated clock: a period passes with every state that is read.

What stands in for the module `pylibfranka`, and reports, as that does, in single precision.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from firmware_bridge.adapters.fci_sim.loss import PacketLoss
from firmware_bridge.adapters.fci_sim.strict_robot import Ending, Generator, RobotMode, SetPoint, StrictRobot

MODES = {
    RobotMode.OTHER: "Other",
    RobotMode.IDLE: "Idle",
    RobotMode.MOVE: "Move",
    RobotMode.GUIDING: "Guiding",
    RobotMode.REFLEX: "Reflex",
    RobotMode.USER_STOPPED: "UserStopped",
    RobotMode.AUTOMATIC_ERROR_RECOVERY: "AutomaticErrorRecovery",
}
ENDINGS = {
    Ending.REFLEX: "motion aborted by reflex!",
    Ending.USER_STOP: "User Stop pressed!",
    Ending.STOPPED: "preempted!",
}
PATIENCE = 5000
UDP_TIMEOUT_MS = 1000
"""libfranka `network.h`."""


class NetworkException(RuntimeError):
    pass


class ControlException(RuntimeError):
    pass


class StrictLibrary:
    """The module. `start_periods` is how long a motion takes to begin; `line_is_cut` ends everything. Packets are lost
    in motion; anything else in the place of `loss` acts at any time."""

    NetworkException, ControlException = NetworkException, ControlException
    RealtimeConfig = SimpleNamespace(kEnforce=1, kIgnore=0)
    ControllerMode = SimpleNamespace(JointImpedance=1)

    def __init__(self, robot: StrictRobot, loss: PacketLoss | None = None, start_periods: int = 20) -> None:
        self.robot, self.loss, self.start_periods = robot, loss or PacketLoss(0.0, 1, 0), start_periods
        self.now_ms = 0
        self.line_is_cut = False
        self.why: list[str] = []
        self._pending: SetPoint | None = None

    def JointPositions(self, values: Sequence[float]) -> SimpleNamespace:  # noqa: N802 - libfranka's name
        return SimpleNamespace(values=tuple(values), motion_finished=False)

    JointVelocities = JointPositions

    def Robot(self, address: str, realtime: Any) -> StrictLibrary:  # noqa: N802 - as above
        self._check()
        return self

    # A robot, and a motion of it -------------------------------------------------------------------------------------

    def set_collision_behavior(self, *thresholds: Any) -> None:
        self.robot.collision_nm = tuple(thresholds[1])

    def set_joint_impedance(self, values: Any) -> None:
        self.robot.stiffness_nm_rad = tuple(values)

    def set_load(self, mass: float, center: Any, inertia: Any) -> None:
        self.robot.declared_kg = mass

    def read_once(self) -> SimpleNamespace:
        return self._state()

    def start_joint_position_control(self, mode: Any) -> StrictLibrary:
        return self._start(Generator.JOINT_POSITION)

    def start_joint_velocity_control(self, mode: Any) -> StrictLibrary:
        return self._start(Generator.JOINT_VELOCITY)

    def readOnce(self) -> tuple[SimpleNamespace, None]:  # noqa: N802 - as above
        state = self._state()
        self._check_motion()
        return state, None

    def writeOnce(self, target: SimpleNamespace) -> None:  # noqa: N802 - as above
        self._check()
        self._pending = SetPoint(target.values, target.motion_finished)
        if not target.motion_finished:
            return
        last = self._pending
        for _ in range(PATIENCE):
            if not self.robot.generator:
                break
            self._pending = last
            self._period()
        self._check_motion(finished=True)

    def automatic_error_recovery(self) -> None:
        self._check()
        if not self.robot.recover():
            raise ControlException("libfranka: Automatic Error Recovery command aborted: User Stop pressed!")
        while self.robot.mode is RobotMode.AUTOMATIC_ERROR_RECOVERY:
            self._period()

    def stop(self) -> None:
        self.robot.stop()

    # Inside --------------------------------------------------------------------------------------------------------

    def _start(self, generator: Generator) -> StrictLibrary:
        self._check()
        if not self.robot.begin(generator, self.start_periods):
            raise ControlException("libfranka: Move command rejected: command not possible in the current mode!")
        for _ in range(PATIENCE):
            if self.robot.generator:
                break
            self._period()
        return self

    def _check(self) -> None:
        if self.line_is_cut:
            raise NetworkException("libfranka: UDP receive: Timeout")

    def _check_motion(self, finished: bool = False) -> None:
        ended = self.robot.ended
        if ended is not None and not (finished and ended[0] is Ending.FINISHED):
            self.why.append(ended[1])
            raise ControlException(f"libfranka: Move command aborted: {ENDINGS.get(ended[0], 'over')} {ended[1]}")

    def _period(self) -> bool:
        """One of the robot's; whether its state reaches us."""
        lossy = self.robot.generator or not isinstance(self.loss, PacketLoss)
        state_lost, set_point_lost = self.loss.next() if lossy else (False, False)
        command, self._pending = self._pending, None
        self.robot.period(None if set_point_lost else command)
        self.now_ms += 1
        return not state_lost

    def _state(self) -> SimpleNamespace:
        self._check()
        silent = 0
        while not self._period():
            silent += 1
            if silent >= UDP_TIMEOUT_MS:
                raise NetworkException("libfranka: UDP receive: Timeout")
        robot, now_ms = self.robot, self.now_ms
        return SimpleNamespace(
            q=array("f", robot.q),
            q_d=array("f", robot.q_d),
            dq_d=array("f", robot.dq_d),
            ddq_d=array("f", robot.ddq_d),
            time=SimpleNamespace(to_sec=lambda: now_ms / 1000),
            robot_mode=SimpleNamespace(name=MODES[robot.mode]),
            current_errors=", ".join(error.name.lower() for error in robot.errors),
            control_command_success_rate=robot.success_rate,
            m_ee=0.0,
            m_load=robot.declared_kg,
        )
