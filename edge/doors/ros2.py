"""An arm as a ROS 2 node over zenoh, without ROS: what rmw_zenoh_cpp's own nodes see and send.

Out: `joint_states` (sensor_msgs/JointState) and `diagnostics` (diagnostic_msgs/DiagnosticArray: state of the arm, and
why a trajectory was refused). In: `joint_trajectory` (trajectory_msgs/JointTrajectory) and `stop` (std_msgs/Empty).
The loop leaves its newest report here and goes on; a thread of the node's own sends it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.arms import ArmProfile
from edge.doors.ros2_wire import (
    DIAGNOSTICS,
    EMPTY_MESSAGE,
    JOINT_STATE,
    PUBLISHER,
    SUBSCRIBER,
    TRAJECTORY,
    Node,
    Numbered,
    Types,
    WireError,
)
from edge.doors.trajectory import FloatArray, Trajectory, TrajectoryError, TrajectoryFollower, checked
from edge.errors import InputError
from edge.inference.film import NewestFrames
from edge.plan.trajectory import from_micro
from edge.realtime.scheduler import FixedStep
from edge.run.commands import Command, CommandQueue
from edge.run.controller import Controller
from firmware_bridge.client import DeviceClient
from firmware_bridge.codes import DeviceState
from firmware_bridge.messages import StateReport
from firmware_bridge.reading import one_line

STATES_HZ = 50.0
DIAGNOSTICS_HZ = 1.0
OK, WARN, ERROR = b"\x00", b"\x01", b"\x02"
NANOS = 1_000_000_000
MOST_LATE_S = 0.5
"""A stamp that lies further in the past is a trajectory that has lost its time."""
PLANNED_AHEAD_S = 10.0


@dataclass(frozen=True)
class Ros2Options:
    """router   zenoh endpoint to connect to, as rmw_zenohd offers it; empty for none
    listen    endpoints to listen on; loopback unless told otherwise
    """

    node: str = "vla_edge"
    namespace: str = "/"
    domain: int = 0
    distro: str = "jazzy"
    router: str = "tcp/localhost:7447"
    listen: str = "tcp/127.0.0.1:0"


class Ros2Node:
    """Opens the session, declares the node, and serves until `close`. A `LivePage`: no call of the loop's waits."""

    frames: NewestFrames | None = None

    def __init__(self, arm: ArmProfile, follower: TrajectoryFollower, options: Ros2Options) -> None:
        self.refused = self.accepted = 0
        self._arm, self._follower, self._types = arm, follower, Types(options.distro)
        self._report: StateReport | None = None
        self._client: DeviceClient | None = None
        self._note, self._level, self._stops, self._ended = "starting", OK, False, threading.Event()
        self._session = _opened(options)
        try:
            self._declare(options)
        except BaseException:  # whatever it is, the session has threads of its own
            self._session.close()
            raise
        self._thread = threading.Thread(target=self._serve, name="ros2", daemon=True)
        self._thread.start()

    def _declare(self, options: Ros2Options) -> None:
        node = Node(str(self._session.info.zid()), options.node, options.domain, options.namespace)
        prefix = options.namespace.rstrip("/")
        self._tokens = [self._session.liveliness().declare_token(node.token())]
        self._senders: dict[str, tuple[Any, Numbered]] = {}
        self._receivers: list[Any] = []
        number = 0
        for topic, kind in (("joint_states", JOINT_STATE), ("diagnostics", DIAGNOSTICS)):
            number += 1
            token = node.token(number, PUBLISHER, self._types.endpoint(f"{prefix}/{topic}", kind))
            key = self._types.key(options.domain, f"{prefix}/{topic}", kind)
            self._senders[kind] = (self._session.declare_publisher(key), Numbered(token))
            self._tokens.append(self._session.liveliness().declare_token(token))
        takers: tuple[tuple[str, str, Callable[[bytes], None]], ...] = (
            ("joint_trajectory", TRAJECTORY, self._take_trajectory),
            ("stop", EMPTY_MESSAGE, self._take_stop),
        )
        for topic, kind, take in takers:
            number += 1
            token = node.token(number, SUBSCRIBER, self._types.endpoint(f"{prefix}/{topic}", kind))
            key = self._types.key(options.domain, f"{prefix}/{topic}", kind)
            self._receivers.append(self._session.declare_subscriber(key, _taker(take)))
            self._tokens.append(self._session.liveliness().declare_token(token))

    # What the loop calls

    def publish(self, controller: Controller, loop: FixedStep | None) -> None:
        self._client = controller.client  # whose newest report comes four times as often as this call

    def publish_report(self, report: StateReport, device_us: int) -> None:
        self._report = report

    def note(self, text: str) -> None:
        self._note, self._level = text, OK

    def pass_on(self, commands: CommandQueue) -> None:
        if self._stops:
            self._stops = False
            commands.put(Command.STOP)

    # What comes from others, in zenoh's threads

    def _take_trajectory(self, data: bytes) -> None:
        try:
            self._begin(self._types.unpack(data, TRAJECTORY))
        except (WireError, TrajectoryError) as error:
            self.refused += 1
            self._note, self._level = one_line(f"trajectory refused: {error}"), ERROR
            self._diagnose()

    def _begin(self, message: Any) -> None:
        trajectory = trajectory_of(self._arm, message, time.time(), self._follower.commanded)
        self._follower.put(trajectory)
        self.accepted += 1
        self._note, self._level = f"following a trajectory of {trajectory.duration_s:.2f} s", OK

    def _take_stop(self, data: bytes) -> None:
        self._follower.hold()
        self._stops = True

    # What goes to others, in a thread of its own

    def _serve(self) -> None:
        tick = 0
        while not self._ended.wait(1 / STATES_HZ):
            if self._client is not None:
                self._report = self._client.last_state
            if self._report is not None:
                self._send(JOINT_STATE, self._joint_state(self._report))
            if tick % round(STATES_HZ / DIAGNOSTICS_HZ) == 0:
                self._diagnose()
            tick += 1

    def _joint_state(self, report: StateReport) -> Any:
        none = np.zeros(0)
        return self._types.make(
            JOINT_STATE,
            header=self._header(),
            name=list(self._arm.joints),
            position=from_micro(report.measured_urad),
            velocity=none,
            effort=none,
        )

    def _diagnose(self) -> None:
        report = self._report
        state = DeviceState(report.state).name if report is not None else "unknown"
        values = [("state", state), ("accepted", str(self.accepted)), ("refused", str(self.refused))]
        status = self._types.make(
            "diagnostic_msgs/msg/DiagnosticStatus",
            level=self._level[0],
            name=f"vla_edge: {self._arm.name}",
            message=self._note,
            hardware_id=self._arm.name,
            values=[self._types.make("diagnostic_msgs/msg/KeyValue", key=key, value=value) for key, value in values],
        )
        self._send(DIAGNOSTICS, self._types.make(DIAGNOSTICS, header=self._header(), status=[status]))

    def _header(self) -> Any:
        now_ns = time.time_ns()
        stamp = self._types.make("builtin_interfaces/msg/Time", sec=now_ns // NANOS, nanosec=now_ns % NANOS)
        return self._types.make("std_msgs/msg/Header", stamp=stamp, frame_id="")

    def _send(self, kind: str, message: Any) -> None:
        publisher, numbers = self._senders[kind]
        publisher.put(self._types.pack(message), attachment=numbers.next(time.time_ns()))

    def close(self) -> None:
        """Ends the node; ROS 2 no longer lists it."""
        self._ended.set()
        self._thread.join(2.0)
        self._session.close()


def trajectory_of(arm: ArmProfile, message: Any, now_s: float, standing: FloatArray | None) -> Trajectory:
    """What a trajectory_msgs/JointTrajectory asks of an arm that stands at `standing`, at Unix time `now_s`.

    Raises `TrajectoryError`.
    """
    stamp_s = message.header.stamp.sec + message.header.stamp.nanosec / NANOS
    ahead_s = stamp_s - now_s if stamp_s else 0.0
    if not -MOST_LATE_S <= ahead_s <= PLANNED_AHEAD_S:
        raise TrajectoryError(f"its stamp is {ahead_s:+.1f} s from now; send 0 to begin at once")
    if standing is None:
        raise TrajectoryError("the arm is not armed yet")
    points = message.points
    return checked(
        arm,
        message.joint_names,
        [max(ahead_s, 0.0) + one.time_from_start.sec + one.time_from_start.nanosec / NANOS for one in points],
        [one.positions for one in points],
        [one.velocities for one in points],
        standing,
    )


def _taker(take: Callable[[bytes], None]) -> Callable[[Any], None]:
    return lambda sample: take(bytes(sample.payload))


def _opened(options: Ros2Options) -> Any:
    try:
        import zenoh
    except ImportError as error:
        raise InputError(
            f"ROS 2 needs the 'ros2' extra ({error.name} is missing): pip install 'vla-edge[ros2]'"
        ) from None
    config = zenoh.Config()
    endpoints = {"connect": [options.router] if options.router else [], "listen": [options.listen]}
    try:
        config.insert_json5("mode", '"peer"')
        config.insert_json5("scouting/multicast/enabled", "false")
        for side, where in endpoints.items():
            config.insert_json5(f"{side}/endpoints", str(where).replace("'", '"'))
        config.insert_json5("connect/timeout_ms", "-1")
        config.insert_json5("connect/exit_on_failure", "false")
        return zenoh.open(config)
    except zenoh.ZError as error:
        raise InputError(f"zenoh: {str(error)[:160]}; check --router and --listen") from None
