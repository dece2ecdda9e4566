"""The bytes of FCI that a robot exchanges with libfranka 0.21: version 10 of its interface.

Commands and answers go over TCP (port 1337), states and set-points over UDP, all little-endian and packed. The layouts
follow libfranka's public headers (`research_interface/robot/service_types.h`, `rbk_types.h`); version 10 carries the
state in single precision and has two accelerometers more.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass
from enum import IntEnum

from firmware_bridge.adapters.fci_sim.strict_robot import JOINTS, Generator, RobotLimits, SetPoint, StrictRobot

PORT = 1337
VERSION = 10
HEADER = struct.Struct("<III")
"""command, its id, size of the message with this header."""
CONNECT = struct.Struct("<HH")
"""Version of the library, and its UDP port."""
MOVE = struct.Struct("<II6d")
"""Controller, motion generator, and two deviations of three numbers."""
THRESHOLDS = struct.Struct("<28d24d")
STIFFNESS = struct.Struct("<7d")
LOAD = struct.Struct("<d3d9d")
ROBOT_COMMAND = struct.Struct("<Q7d7d16d6d2d??7d?")
"""message id, q_c, dq_c, O_T_EE_c, O_dP_EE_c, elbow_c, elbow valid, motion finished, torques, torques finished."""
ERRORS = 41
FLOATS = 16 * 6 + 13 + 13 + 4 + 7 * 8 + 26 + 7 + 12 + 6 + 3 + 6 + 16 + 12 + 14 + 36
"""Of a state, in order: frames, end effector, load, elbow, joints, contacts and collisions, torques, forces, the
commanded pose with its derivatives, motors, accelerometers."""
STATE = struct.Struct(f"<Q{FLOATS}f BB{ERRORS}B{ERRORS}BB f")
FRAME = (1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
"""Of a flange that nobody computes here: this robot has joints and no kinematics."""


class Command(IntEnum):
    """What a client may ask over TCP."""

    CONNECT = 0
    MOVE = 1
    STOP_MOVE = 2
    SET_COLLISION_BEHAVIOR = 3
    SET_JOINT_IMPEDANCE = 4
    SET_CARTESIAN_IMPEDANCE = 5
    SET_GUIDING_MODE = 6
    SET_EE_TO_K = 7
    SET_NE_TO_EE = 8
    SET_LOAD = 9
    AUTOMATIC_ERROR_RECOVERY = 10
    GET_ROBOT_MODEL = 11


class MoveStatus(IntEnum):
    """Answers to MOVE: one when it begins, one when it ends."""

    SUCCESS = 0
    MOTION_STARTED = 1
    PREEMPTED = 2
    COMMAND_NOT_POSSIBLE = 5
    INVALID_ARGUMENT = 7
    REFLEX_ABORTED = 8
    EMERGENCY_ABORTED = 9


class Status(IntEnum):
    """Answers to the others."""

    SUCCESS = 0
    NOT_POSSIBLE = 1
    INVALID_ARGUMENT = 3


class RecoveryStatus(IntEnum):
    """Answers to AUTOMATIC_ERROR_RECOVERY."""

    SUCCESS = 0
    NOT_POSSIBLE = 1
    MANUAL_REQUIRED = 3
    EMERGENCY_ABORTED = 5


GENERATORS = {0: Generator.JOINT_POSITION, 1: Generator.JOINT_VELOCITY}
"""By the number that MOVE gives them; the Cartesian ones are refused."""
JOINT_IMPEDANCE, NO_CONTROLLER = 0, 3


@dataclass(frozen=True)
class Request:
    """A whole message of the client."""

    command: int
    identity: int
    payload: bytes


class Requests:
    """Cuts the bytes of a connection into messages. Raises `ValueError` for what no client sends."""

    MOST = 1 << 16

    def __init__(self) -> None:
        self._waiting = b""

    def feed(self, data: bytes) -> list[Request]:
        self._waiting += data
        found = []
        while len(self._waiting) >= HEADER.size:
            command, identity, size = HEADER.unpack_from(self._waiting)
            if not HEADER.size <= size <= self.MOST:
                raise ValueError(f"a message of {size} bytes")
            if len(self._waiting) < size:
                break
            found.append(Request(command, identity, self._waiting[HEADER.size : size]))
            self._waiting = self._waiting[size:]
        return found


def answer(command: int, identity: int, status: int, more: bytes = b"") -> bytes:
    """A message of the robot's."""
    return HEADER.pack(command, identity, HEADER.size + 1 + len(more)) + struct.pack("<B", status) + more


def connected(identity: int, accepted: bool) -> bytes:
    """The answer to CONNECT: whether the client's version will do, and which one the robot speaks."""
    body = struct.pack("<BHx", 0 if accepted else 1, VERSION)
    return HEADER.pack(Command.CONNECT, identity, HEADER.size + len(body)) + body


def set_point(data: bytes, generator: Generator) -> tuple[int, SetPoint]:
    """The id of the state that a packet answers, and its set-point. Raises `struct.error` for another length."""
    fields = ROBOT_COMMAND.unpack(data)
    at = 1 if generator is not Generator.JOINT_VELOCITY else 1 + JOINTS
    return fields[0], SetPoint(fields[at : at + JOINTS], finished=bool(fields[40] or fields[48]))


def state(robot: StrictRobot, message_id: int) -> bytes:
    """The robot's state, as it goes out every millisecond."""
    nothing = (0.0,) * JOINTS
    torque = robot.external_nm
    collided = [1.0 if abs(one) > most else 0.0 for one, most in zip(torque, robot.collision_nm)]
    moving = robot.generator is not Generator.IDLE
    return STATE.pack(
        message_id,
        *(FRAME * 6),
        *(0.0,) * 13,  # the end effector's mass, inertia and centre of mass
        robot.declared_kg,
        *(0.0,) * 12,
        *(0.0,) * 4,  # elbow, elbow_d
        *torque,
        *nothing,  # tau_J_d
        *nothing,  # dtau_J
        *robot.q,
        *robot.q_d,
        *robot.dq,
        *robot.dq_d,
        *robot.ddq_d,
        *collided,  # contacts: joints, axes
        *(0.0,) * 6,
        *collided,  # collisions
        *(0.0,) * 6,
        *torque,
        *(0.0,) * 12,  # forces
        *(0.0,) * 6,  # O_dP_EE_d
        *(0.0,) * 3,  # O_ddP_O
        *(0.0,) * 6,  # elbow_c and its derivatives
        *FRAME,
        *(0.0,) * 12,
        *robot.q,  # theta
        *robot.dq,
        *(0.0,) * 36,  # accelerometers
        robot.generator,
        JOINT_IMPEDANCE if moving else NO_CONTROLLER,
        *_flags(robot.errors),
        *_flags(robot.last_motion_errors),
        robot.mode,
        robot.success_rate,
    )


NO_FLAGS = (0,) * ERRORS


def _flags(errors: Collection[int]) -> tuple[int, ...]:
    return tuple(int(number in errors) for number in range(ERRORS)) if errors else NO_FLAGS


OFFSETS_M = (
    ((0.0, 0.0, 0.333), (0.0, 0.0, 0.0)),
    ((0.0, 0.0, 0.0), (-1.5707963267948966, 0.0, 0.0)),
    ((0.0, -0.316, 0.0), (1.5707963267948966, 0.0, 0.0)),
    ((0.0825, 0.0, 0.0), (1.5707963267948966, 0.0, 0.0)),
    ((-0.0825, 0.384, 0.0), (-1.5707963267948966, 0.0, 0.0)),
    ((0.0, 0.0, 0.0), (1.5707963267948966, 0.0, 0.0)),
    ((0.088, 0.0, 0.0), (1.5707963267948966, 0.0, 0.0)),
)
"""From joint to joint, m and rad: Franka's documentation, Denavit-Hartenberg parameters."""
TORQUE_NM = (87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0)


def _ends(limits: RobotLimits, joint: int) -> tuple[float, float]:
    """From which the velocity limit is measured, where there is one."""
    return limits.edge[joint][2:] if limits.edge else (limits.low_rad[joint], limits.high_rad[joint])


def _edge(limits: RobotLimits, joint: int) -> str:
    """How the velocity limit falls towards the ends of a joint: v = sqrt(2 deceleration room) - offset."""
    offset, slope, _, _ = limits.edge[joint] if limits.edge else (0.0, 1e6, 0.0, 0.0)
    return f'<position_based_velocity_limits deceleration_limit="{slope / 2}" velocity_offset="{offset}"/>'


def model(limits: RobotLimits) -> str:
    """The URDF that the robot hands out: its name, its joints with their limits. Every mass is 1 kg: no Franka's."""
    name = limits.name
    inertial = (
        '<inertial><origin rpy="0 0 0" xyz="0 0 0"/><mass value="1"/>'
        '<inertia ixx="0.01" ixy="0" ixz="0" iyy="0.01" iyz="0" izz="0.01"/></inertial>'
    )
    links = [f'<link name="{name}_link{number}">{inertial}</link>' for number in range(JOINTS + 2)]
    joints = []
    for number, (xyz, rpy) in enumerate(OFFSETS_M, start=1):
        at = number - 1
        joints.append(
            f'<joint name="{name}_joint{number}" type="revolute">'
            f'<origin rpy="{" ".join(map(str, rpy))}" xyz="{" ".join(map(str, xyz))}"/>'
            f'<parent link="{name}_link{at}"/><child link="{name}_link{number}"/><axis xyz="0 0 1"/>'
            f'<limit effort="{TORQUE_NM[at]}" lower="{_ends(limits, at)[0]}" upper="{_ends(limits, at)[1]}" '
            f'velocity="{limits.velocity_rad_s[at]}"/>{_edge(limits, at)}</joint>'
        )
    joints.append(
        f'<joint name="{name}_joint8" type="fixed"><origin rpy="0 0 0" xyz="0 0 0.107"/>'
        f'<parent link="{name}_link7"/><child link="{name}_link8"/></joint>'
    )
    return f'<?xml version="1.0"?>\n<robot name="{name}">{"".join(links + joints)}</robot>\n'
