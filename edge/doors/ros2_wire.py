"""How rmw_zenoh_cpp puts ROS 2 on zenoh: keys, liveliness tokens, attachments, and messages in CDR. No I/O.

Keys and tokens are those of rmw_zenoh's design document (https://github.com/ros2/rmw_zenoh) and
`liveliness_utils.cpp`; the attachment is that of version 0.2.4 and later. Types, their RIHS01 hashes and CDR come from
`rosbags`, which has them from ROS's own definitions.
"""

from __future__ import annotations

import hashlib
import itertools
import struct
from dataclasses import dataclass
from functools import cache
from typing import Any

from edge.errors import InputError

ADMIN_SPACE = "@ros2_lv"
NODE, PUBLISHER, SUBSCRIBER = "NN", "MP", "MS"
EMPTY = "%"
"""An empty namespace or enclave; it also stands for a slash inside of a component."""
QOS_KEEP_LAST_10 = "::,10:,:,:,,"
"""Reliable, volatile, the last ten: what `create_publisher(type, topic, 10)` asks for."""
ATTACHMENT = struct.Struct("<qqB16s")
GID_BYTES = 16
DISTROS = ("humble", "jazzy", "kilted")
MOST_BYTES = 1 << 20
"""Of one message: a trajectory of 1,000 points and 16 joints, with all its fields, is 0.5 MB."""

JOINT_STATE = "sensor_msgs/msg/JointState"
TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"
DIAGNOSTICS = "diagnostic_msgs/msg/DiagnosticArray"
EMPTY_MESSAGE = "std_msgs/msg/Empty"


class WireError(ValueError):
    """Bytes that are not the message they should be."""


class Types:
    """The message types of a distribution. Raises `InputError` where the `ros2` extra is not installed."""

    def __init__(self, distro: str = "jazzy") -> None:
        if distro not in DISTROS:
            raise InputError(f"ROS 2 distribution '{distro}'; known are {', '.join(DISTROS)}")
        self._store = _store(distro)
        self.distro = distro

    def make(self, name: str, /, **values: Any) -> Any:
        """A message; `name` as "sensor_msgs/msg/JointState"."""
        return self._store.types[name](**values)

    def pack(self, message: Any) -> bytes:
        """CDR, little endian."""
        return bytes(self._store.serialize_cdr(message, message.__msgtype__))

    def unpack(self, data: bytes, name: str) -> Any:
        """Raises `WireError`."""
        if len(data) > MOST_BYTES:
            raise WireError(f"a message of {len(data)} bytes; the most is {MOST_BYTES}")
        try:
            return self._store.deserialize_cdr(data, name)
        except Exception as error:  # rosbags raises whatever its generated code runs into
            raise WireError(f"not a {name} ({type(error).__name__})") from error

    def key(self, domain: int, topic: str, name: str) -> str:
        """The zenoh key of a topic."""
        return f"{domain}/{topic.strip('/')}/{_dds(name)}/{self._hash(name)}"

    def endpoint(self, topic: str, name: str) -> str:
        """What a publisher's or subscriber's token says after the node's name."""
        return f"/{_mangled(topic)}/{_dds(name)}/{self._hash(name)}/{QOS_KEEP_LAST_10}"

    def _hash(self, name: str) -> str:
        # Humble has no type hashes: its rmw_zenoh writes this word instead.
        return "TypeHashNotSupported" if self.distro == "humble" else str(self._store.hash_rihs01(name))


@dataclass(frozen=True)
class Node:
    """A ROS 2 node on a zenoh session; `zid` is the session's id in hexadecimal digits."""

    zid: str
    name: str
    domain: int = 0
    namespace: str = "/"

    def token(self, entity: int = 0, kind: str = NODE, endpoint: str = "") -> str:
        """The liveliness token of the node, or of its `entity`-th publisher or subscriber."""
        where = f"{ADMIN_SPACE}/{self.domain}/{self.zid}/0/{entity}/{kind}"
        return f"{where}/{EMPTY}/{_mangled(self.namespace)}/{self.name}{endpoint}"


def gid(token: str) -> bytes:
    """The 16 bytes that name a publisher: any that no other has."""
    return hashlib.sha256(token.encode()).digest()[:GID_BYTES]


def attachment(number: int, time_ns: int, publisher: bytes) -> bytes:
    """What goes beside a message: its number from 1, Unix time in ns, and who sends it."""
    return ATTACHMENT.pack(number, time_ns, GID_BYTES, publisher)


class Numbered:
    """Attachments of one publisher, one after the other."""

    def __init__(self, token: str) -> None:
        self._gid, self._numbers = gid(token), itertools.count(1)

    def next(self, time_ns: int) -> bytes:
        return attachment(next(self._numbers), time_ns, self._gid)


def _dds(name: str) -> str:
    """`sensor_msgs/msg/JointState` as DDS names it: `sensor_msgs::msg::dds_::JointState_`."""
    package, kind, message = name.split("/")
    return f"{package}::{kind}::dds_::{message}_"


def _mangled(name: str) -> str:
    return name.replace("/", "%") if name.strip("/") else EMPTY


@cache
def _store(distro: str) -> Any:
    try:
        from rosbags.typesys import Stores, get_typestore
    except ImportError as error:
        raise InputError(
            f"ROS 2 needs the 'ros2' extra ({error.name} is missing): pip install 'vla-edge[ros2]'"
        ) from None
    return get_typestore(Stores(f"ros2_{distro}"))
