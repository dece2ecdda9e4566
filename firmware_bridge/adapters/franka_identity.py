"""Which robot answers at an address: asked of FCI before anything else, since libfranka's binding does not tell.

A connection of our own: CONNECT, whose answer has the version of the robot's interface, then GET_ROBOT_MODEL, whose
answer is a URDF with the robot's name and the limits of its joints (libfranka-common `service_types.h`). Only what is
whole and sound counts; a robot that does not tell is driven by its profile's limits, and that is said.
"""

from __future__ import annotations

import math
import socket
import struct
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass

from firmware_bridge.adapters.rate_guard import ArmLimits

PORT, VERSION = 1337, 10
"""Of FCI, and of the interface that libfranka 0.21 speaks."""
CONNECT, GET_ROBOT_MODEL = 0, 11
HEADER = struct.Struct("<III")
ANSWER_S = 3.0
MOST_BYTES = 1 << 20
JOINTS = 7
SLACK_RAD, SLACK_RAD_S = 0.002, 0.06
"""What a table of the maker's and a robot's own formula may differ by, as they do for the FR3."""
PLACES = 33


class UnknownRobot(Exception):
    """The robot does not tell, or not in a way that can be read."""


@dataclass(frozen=True)
class Joint:
    """A joint of the robot's own model: its range, its velocity, and how that falls towards the ends of the range."""

    low_rad: float
    high_rad: float
    velocity_rad_s: float
    deceleration_rad_s2: float
    offset_rad_s: float

    def fastest(self, room_rad: float) -> float:
        """Where `room_rad` are left to the end that the joint moves towards."""
        if not self.deceleration_rad_s2:
            return self.velocity_rad_s
        near_end = math.sqrt(max(0.0, 2.0 * self.deceleration_rad_s2 * room_rad)) - self.offset_rad_s
        return min(self.velocity_rad_s, max(0.0, near_end))


@dataclass(frozen=True)
class Identity:
    """`name` and `joints` are empty where the robot has no model to give."""

    version: int
    name: str = ""
    joints: tuple[Joint, ...] = ()

    def __str__(self) -> str:
        return f"{self.name or 'a robot without a name'}, version {self.version} of the interface"

    def excess(self, limits: ArmLimits) -> str:
        """What a profile allows and this robot does not, in words; empty where there is nothing."""
        for number, joint in enumerate(self.joints):
            low, high = limits.position_min_rad[number], limits.position_max_rad[number]
            if low < joint.low_rad - SLACK_RAD or high > joint.high_rad + SLACK_RAD:
                return (
                    f"joint {number + 1} of this robot goes from {joint.low_rad:.3f} to {joint.high_rad:.3f} rad, and "
                    f"the profile allows {low:.3f} to {high:.3f}"
                )
            for place in range(PLACES):
                q = low + (high - low) * place / (PLACES - 1)
                asked, allowed = _fastest(limits, number, q), joint.fastest(joint.high_rad - q)
                if asked > allowed + SLACK_RAD_S:
                    return (
                        f"joint {number + 1} of this robot may move at {allowed:.2f} rad/s at {q:.2f} rad, and the "
                        f"profile allows {asked:.2f}"
                    )
        return ""


def _fastest(limits: ArmLimits, joint: int, q: float) -> float:
    """Upwards, by the profile."""
    most = limits.velocity_rad_s[joint]
    if not limits.edges:
        return most
    offset, slope, _, high = (row[joint] for row in limits.edges)
    return min(most, max(0.0, math.sqrt(max(0.0, slope * (high - q))) - offset))


def ask(address: str) -> Identity:
    """Asks the robot at `address`, which must be reachable. Raises `UnknownRobot`."""
    try:
        with (
            socket.create_connection((address, PORT), ANSWER_S) as line,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as states,
        ):
            line.settimeout(ANSWER_S)
            states.bind(("", 0))
            body = _exchange(line, CONNECT, 0, struct.pack("<HH", VERSION, states.getsockname()[1]))
            accepted, version = struct.unpack_from("<BH", body)
            if accepted != 0:
                return Identity(version)
            model = _exchange(line, GET_ROBOT_MODEL, 1)
            if model[0] != 0:
                return Identity(version)
            return Identity(version, *read_model(model[1:]))
    except ConnectionRefusedError:
        raise UnknownRobot("") from None  # libfranka says it better
    except (OSError, struct.error, IndexError) as error:
        raise UnknownRobot(str(error) or type(error).__name__) from None


def read_model(text: bytes) -> tuple[str, tuple[Joint, ...]]:
    """Name and joints of a URDF. Raises `UnknownRobot`."""
    try:
        if b"<!" in text.replace(b"<!--", b""):
            raise UnknownRobot("its model declares entities")
        root = ElementTree.fromstring(text.rstrip(b"\0"))
        found = [joint for joint in root.iter("joint") if joint.get("type") == "revolute"][:JOINTS]
        joints = tuple(_joint(joint) for joint in found)
    except (ElementTree.ParseError, ValueError) as error:
        raise UnknownRobot(f"its model cannot be read: {error}") from None
    if len(joints) != JOINTS:
        raise UnknownRobot(f"its model has {len(joints)} joints")
    return "".join(letter for letter in str(root.get("name"))[:40] if letter.isprintable()), joints


def _joint(joint: ElementTree.Element) -> Joint:
    limit, near_end = joint.find("limit"), joint.find("position_based_velocity_limits")
    if limit is None:
        raise ValueError("a joint without limits")
    falls = near_end.attrib if near_end is not None else {}
    numbers = [float(limit.attrib.get(key, "nan")) for key in ("lower", "upper", "velocity")]
    numbers += [float(falls.get(key, "0")) for key in ("deceleration_limit", "velocity_offset")]
    if not all(map(math.isfinite, numbers)) or numbers[0] >= numbers[1]:
        raise ValueError("limits that are no numbers")
    return Joint(*numbers)


def _exchange(line: socket.socket, command: int, identity: int, payload: bytes = b"") -> bytes:
    """What answers a command, without its header."""
    line.sendall(HEADER.pack(command, identity, HEADER.size + len(payload)) + payload)
    _, _, size = HEADER.unpack(_receive(line, HEADER.size))
    if not HEADER.size < size <= MOST_BYTES:
        raise UnknownRobot(f"an answer of {size} bytes")
    return _receive(line, size - HEADER.size)


def _receive(line: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = line.recv(count - len(data))
        if not part:
            raise UnknownRobot("it ended the connection")
        data += part
    return data
