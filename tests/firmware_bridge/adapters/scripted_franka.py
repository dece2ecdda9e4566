"""A scripted libfranka: faults that no simulator of the robot makes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from edge.arms.franka import arm_limits
from tests.support import FRANKA

LIMITS = arm_limits(FRANKA)
HERE = (0.0, 0.1, 0.0, -1.5, 0.0, 1.5, 0.7)
THERE = (0.001, 0.1, 0.0, -1.5, 0.0, 1.5, 0.7)


class NetworkException(RuntimeError):
    pass


class ControlException(RuntimeError):
    pass


class ScriptedRobot:
    """A robot whose next call raises what `raises` holds. It stands still, or `follows` what is written."""

    def __init__(self, calls: list[str], follows: bool = False) -> None:
        self.calls, self.follows = calls, follows
        self.measured, self.desired = (HERE, HERE) if follows else (THERE, HERE)
        self.now_s, self.errors, self.mode = 0.0, "", ""
        self.speed, self.change = (0.0,) * 7, (0.0,) * 7
        self.moves = False
        self.raises: Exception | None = None
        self.written: list[Any] = []

    def _do(self, name: str) -> None:
        self.calls.append(name)
        if self.raises is not None:
            error, self.raises = self.raises, None
            self.moves = False
            raise error

    def _state(self) -> SimpleNamespace:
        self.now_s += 0.001
        now_s = self.now_s
        return SimpleNamespace(
            q=self.measured,
            q_d=self.desired,
            dq_d=self.speed,
            ddq_d=self.change,
            robot_mode=SimpleNamespace(name=self.mode or ("Move" if self.moves else "Idle")),
            m_ee=0.73,
            m_load=0.0,
            time=SimpleNamespace(to_sec=lambda: now_s),
            current_errors=self.errors,
            control_command_success_rate=0.98,
        )

    def set_collision_behavior(self, *thresholds: Any) -> None:
        self._do("thresholds")
        self.thresholds = thresholds

    def set_joint_impedance(self, values: Any) -> None:
        self._do("impedance")
        self.impedance = values

    def read_once(self) -> SimpleNamespace:
        self._do("read")
        return self._state()

    def start_joint_position_control(self, mode: Any) -> ScriptedRobot:
        self._do("start")
        self.moves = True
        return self

    def start_joint_velocity_control(self, mode: Any) -> ScriptedRobot:
        self._do("start velocity")
        self.moves = True
        return self

    def readOnce(self) -> tuple[SimpleNamespace, None]:  # noqa: N802 - libfranka's name
        self._do("readOnce")
        return self._state(), None

    def writeOnce(self, target: Any) -> None:  # noqa: N802 - as above
        self._do("writeOnce")
        self.written.append(target)
        self.moves = not target.motion_finished
        if hasattr(target, "dq"):  # it takes what it is sent, and stays where it is
            self.change = tuple(1000.0 * (now - before) for now, before in zip(target.dq, self.speed))
            self.speed = tuple(target.dq)
        elif self.follows:
            self._take(tuple(target.q))

    def _take(self, q: tuple[float, ...]) -> None:
        speed = tuple(1000.0 * (now - before) for now, before in zip(q, self.desired))
        self.change = tuple(1000.0 * (now - before) for now, before in zip(speed, self.speed))
        self.speed, self.measured, self.desired = speed, q, q

    def automatic_error_recovery(self) -> None:
        self._do("recover")

    def stop(self) -> None:
        self._do("stop")


def library(robot: ScriptedRobot) -> SimpleNamespace:
    """What stands in for the module `pylibfranka`."""
    return SimpleNamespace(
        Robot=lambda address, realtime: robot,
        RealtimeConfig=SimpleNamespace(kEnforce=1, kIgnore=0),
        ControllerMode=SimpleNamespace(JointImpedance=1),
        JointPositions=lambda q: SimpleNamespace(q=q, motion_finished=False),
        JointVelocities=lambda dq: SimpleNamespace(dq=dq, motion_finished=False),
        NetworkException=NetworkException,
    )
