"""The ROS 2 door: names and bytes against rosbags' definitions, and an arm moved by a plain zenoh peer."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import zenoh
from rosbags.typesys import Stores, get_typestore

import edge
from edge.arms import load_arm
from edge.doors.ros2 import Ros2Node, Ros2Options
from edge.doors.ros2_wire import DIAGNOSTICS, JOINT_STATE, TRAJECTORY, Node, Numbered, Types
from edge.doors.trajectory import TrajectoryFollower
from edge.run.display import Display

STORE = get_typestore(Stores.ROS2_JAZZY)
STATES = (
    "0/joint_states/sensor_msgs::msg::dds_::JointState_/"
    "RIHS01_a13ee3a330e346c9d87b5aa18d24e11690752bd33a0350f11c5882bc9179260e"
)
"""What `ros2 topic echo /joint_states` subscribes to on Jazzy: the hash is in ROS's own sensor_msgs."""


def test_keys_and_tokens_are_those_of_rmw_zenoh() -> None:
    types, node = Types(), Node("a1b2", "arm", 3, "/left")
    assert types.key(0, "/joint_states", JOINT_STATE) == STATES
    assert node.token() == "@ros2_lv/3/a1b2/0/0/NN/%/%left/arm"
    token = node.token(2, "MP", types.endpoint("/left/joint_states", JOINT_STATE))
    assert token.split("/") == [
        *("@ros2_lv", "3", "a1b2", "0", "2", "MP", "%", "%left", "arm", "%left%joint_states"),
        *("sensor_msgs::msg::dds_::JointState_", STATES.split("/")[-1], "::,10:,:,:,,"),
    ]
    assert Node("a", "arm").token() == "@ros2_lv/0/a/0/0/NN/%/%/arm"
    assert Types("humble").key(0, "x", JOINT_STATE).endswith("/TypeHashNotSupported")


def test_attachments_are_zenohs_own_serialisation() -> None:
    from zenoh.ext import Int64, z_deserialize

    numbers = Numbered("token")
    first, second = numbers.next(123456789), numbers.next(123456790)
    number, time_ns, gid = z_deserialize(tuple[Int64, Int64, bytes], zenoh.ZBytes(second))
    assert (number, time_ns, len(gid)) == (2, 123456790, 16)
    assert first[16:] == second[16:] and len(second) == 33


@dataclass
class Peer:
    """A second zenoh peer that knows ROS 2's names and rosbags' bytes, and nothing of this project."""

    session: Any
    states: queue.Queue[Any] = field(default_factory=queue.Queue)
    said: queue.Queue[str] = field(default_factory=queue.Queue)
    seen: list[Any] = field(default_factory=list)

    def listen(self) -> None:
        def take(sample: Any) -> None:
            self.states.put(STORE.deserialize_cdr(bytes(sample.payload), JOINT_STATE))

        def note(sample: Any) -> None:
            self.said.put(STORE.deserialize_cdr(bytes(sample.payload), DIAGNOSTICS).status[0].message)

        hashed = STORE.hash_rihs01(DIAGNOSTICS)
        self.seen = [
            self.session.declare_subscriber(STATES, take),
            self.session.declare_subscriber(
                f"0/diagnostics/diagnostic_msgs::msg::dds_::DiagnosticArray_/{hashed}", note
            ),
        ]

    def send(self, joints: list[str], points: list[tuple[float, list[float]]]) -> None:
        make, none = STORE.types, np.zeros(0)
        time_type, duration = make["builtin_interfaces/msg/Time"], make["builtin_interfaces/msg/Duration"]
        message = make[TRAJECTORY](
            make["std_msgs/msg/Header"](time_type(0, 0), ""),
            joints,
            [
                make["trajectory_msgs/msg/JointTrajectoryPoint"](
                    np.array(row, dtype=float), none, none, none, duration(int(at), int(at % 1 * 1e9))
                )
                for at, row in points
            ],
        )
        self.put("joint_trajectory", TRAJECTORY, bytes(STORE.serialize_cdr(message, TRAJECTORY)))

    def put(self, topic: str, name: str, data: bytes) -> None:
        package, _, message = name.split("/")
        self.session.put(f"0/{topic}/{package}::msg::dds_::{message}_/{STORE.hash_rihs01(name)}", data)

    def wait_said(self, text: str, within_s: float = 10.0) -> str:
        end_s = time.monotonic() + within_s
        while time.monotonic() < end_s:
            if text in (said := self.said.get(timeout=within_s)):
                return said
        raise AssertionError(f"no diagnostics with '{text}'")

    def wait_at(self, wanted: np.ndarray, within_s: float = 30.0) -> None:
        end_s = time.monotonic() + within_s
        while time.monotonic() < end_s:
            state = self.states.get(timeout=within_s)
            found = dict(zip(state.name, state.position))
            if all(abs(found[name] - value) < 0.02 for name, value in zip(load_arm("so101").joints, wanted)):
                return
        raise AssertionError(f"at {found}, not at {wanted}")


@contextmanager
def peer(port: int) -> Iterator[Peer]:
    config = zenoh.Config()
    config.insert_json5("mode", '"peer"')
    config.insert_json5("scouting/multicast/enabled", "false")
    config.insert_json5("listen/endpoints", f'["tcp/127.0.0.1:{port}"]')
    with zenoh.open(config) as session:
        yield Peer(session)


@pytest.mark.real_time
@pytest.mark.side_by_side
def test_a_trajectory_of_a_plain_zenoh_peer_moves_the_arm_and_an_illegal_one_is_refused(free_port: int) -> None:
    arm, joints = load_arm("so101"), list(load_arm("so101").joints)
    follower, outcome = TrajectoryFollower(0.04, 25), []
    with peer(free_port) as other, edge.connect("so101", "sim:", scene_seed=None) as connected:
        start = connected.q_rad()
        node = Ros2Node(arm, follower, Ros2Options(router=f"tcp/127.0.0.1:{free_port}"))
        try:

            def act() -> None:
                try:
                    other.listen()
                    other.wait_at(start)
                    tokens = {str(reply.ok.key_expr) for reply in other.session.liveliness().get("@ros2_lv/0/**")}
                    assert any("/MP/" in one and "%joint_states" in one for one in tokens)
                    while follower.commanded is None:
                        time.sleep(0.05)
                    goal = start.copy()
                    goal[0] += 0.3
                    other.send(joints[::-1], [(2.0, list(goal[::-1]))])
                    other.wait_at(goal)
                    other.send(joints, [(0.1, list(start))])
                    assert "would have to move at" in other.wait_said("refused")
                    other.send(joints[:-1], [(2.0, list(start[:-1]))])
                    assert "this arm has" in other.wait_said("refused: joints")
                    other.send(joints, [(2.0, [float("nan")] * len(joints))])
                    other.wait_said("not finite")
                    other.put("joint_trajectory", TRAJECTORY, b"\x00\x01\x00\x00garbage")
                    other.wait_said("not a trajectory_msgs")
                    other.wait_at(goal)
                    outcome.append("seen")
                finally:
                    empty = STORE.types["std_msgs/msg/Empty"](0)
                    other.put("stop", "std_msgs/msg/Empty", bytes(STORE.serialize_cdr(empty, "std_msgs/msg/Empty")))

            thread = threading.Thread(target=act)
            thread.start()
            ended = connected.run(
                follower, step_s=0.04, horizon=25, duration_s=60, execute_steps=3, display=Display(page=node)
            )
            thread.join(30)
        finally:
            node.close()
    assert outcome == ["seen"] and ended.ended == "user" and ended.error is None
    assert node.accepted == 1 and node.refused == 4
