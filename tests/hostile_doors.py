"""Throws messages at the doors through which others send: the server, the client of one, ROS 2, LeRobot's actions, the
live page, the adapter beside the arm.

The law: a message is refused by the door's own error, in one line, or it is taken and asks for nothing beyond the arm's
limits; one that has to bear a key is taken with it alone. None takes long, and memory stays what it was. Each goes to
what the door does with a message, in this process. `python -m tests.hostile_doors --messages 1000000`: `make doors`.
"""

from __future__ import annotations

import argparse
import io
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from openpi_client import msgpack_numpy
from rosbags.typesys import Stores, get_typestore

from edge.arms import load_arm
from edge.bundle import load_bundle
from edge.bundle.manifest import EngineSpec, TensorSpec
from edge.doors.lerobot_names import LeRobotAxes
from edge.doors.ros2 import trajectory_of
from edge.doors.ros2_wire import TRAJECTORY, Types, WireError
from edge.doors.served import ServedBundle
from edge.doors.trajectory import TrajectoryError
from edge.doors.view import server as page
from edge.doors.view.snapshot import ViewRecords
from edge.errors import InputError
from edge.plan.checks import check_finite
from edge.policy.openpi import ProtocolError, unpack
from edge.policy.remote import RemoteCamera, RemoteEngine, RemoteServer, RemoteSpec, ServerAddress
from edge.run.pursuit import Pursuit
from firmware_bridge.transports.datagrams import DeviceEnd, HostEnd
from tests.foreign_bundle import FRONT_PX, WRIST_PX, write_foreign

ARM = load_arm("so101")
MOST_S = 1.0
"""Of the processor, for one message."""
MOST_GROWTH_MB = 32.0
MOST_ANSWER = 1 << 18
"""Of the page, to one message."""
EXTREMES = tuple(number.to_bytes(4, "little") for number in (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF))
NUMBERS = (0.0, -0.0, 1.0, -90.0, 1e3, -1e9, 1e308, 5e-324, np.nan, np.inf, -np.inf)
THINGS: tuple[Any, ...] = (
    None,
    True,
    "1",
    "up",
    b"\0",
    [],
    [1.0],
    {},
    (),
    10**400,
    1j,
    np.float64(2),
    np.zeros(3),
    object,
)


@dataclass(frozen=True)
class Door:
    """`make` draws a message, `take` does what the door does; it returns whether the message was taken.

    `refusals` are the door's own errors.
    """

    make: Callable[[np.random.Generator], Any]
    take: Callable[[Any], bool]
    refusals: tuple[type[Exception], ...]


@dataclass
class Tally:
    messages: int = 0
    taken: int = 0
    slowest_s: float = 0.0
    growth_mb: float = 0.0
    broken: str = ""


def mutated(*valid: bytes) -> Callable[[np.random.Generator], bytes]:
    """Messages that are close to a valid one, and noise."""
    return lambda draw: changed(valid[int(draw.integers(len(valid)))], draw)


def changed(valid: bytes, draw: np.random.Generator) -> bytes:
    kind, at = draw.integers(7), int(draw.integers(len(valid)))
    end = min(at + int(draw.integers(1, 40)), len(valid))
    if kind == 0:
        return draw.bytes(int(draw.integers(120)))
    if kind == 1:
        return valid[:at]
    if kind == 2:
        return valid[:at] + valid[end:]
    if kind == 3:
        return valid[:end] + valid[at:]
    if kind == 4:
        return valid[:at] + draw.bytes(end - at) + valid[end:]
    if kind == 5:
        at -= at % 4
        return valid[:at] + EXTREMES[int(draw.integers(len(EXTREMES)))] + valid[at + 4 :]
    flipped = bytearray(valid)
    flipped[at] ^= 1 << int(draw.integers(8))
    return bytes(flipped)


def server_door(folder: Path) -> Door:
    """Observations of clients, to a small bundle behind `edge-serve`."""
    served = ServedBundle(load_bundle(write_foreign(folder / "bundle")), ARM, "", "onnxruntime", 1)
    frames = {"observation/front": (2, *FRONT_PX, 3), "observation/wrist": (2, *WRIST_PX, 3)}
    observation: dict[str, Any] = {name: np.zeros(shape, np.uint8) for name, shape in frames.items()}
    observation["observation/state"] = np.zeros((2, ARM.dof))
    served.answer(observation)
    small = {
        "observation/state": np.zeros((2, ARM.dof)),
        "prompt": "put it there",
        "nested": {"list": [1, 2.0, "x", None]},
    }

    def take(data: bytes) -> bool:
        return bool(len(served.answer(unpack(data) | {name: observation[name] for name in frames})["actions"]))

    return Door(mutated(msgpack_numpy.packb(small)), take, (ProtocolError, InputError))


class _Socket:
    """In place of the network: what the server is said to have sent."""

    def __init__(self) -> None:
        self.data: bytes | str = b""

    def send(self, data: bytes) -> None: ...

    def recv(self, timeout: float) -> bytes | str:
        return self.data


def client_door() -> Door:
    """Answers of a server, to `edge-run --policy`."""
    spec = RemoteSpec(20.0, 8, {"front": RemoteCamera("image", 8, 8)}, unit="deg", execute=4)
    engine = RemoteEngine(
        RemoteServer(ServerAddress("openpi://nowhere"), spec),
        EngineSpec("", (TensorSpec("state", "float32", (1, 6)),), (TensorSpec("actions", "float32", (8, 6)),)),
        "task",
    )
    socket = _Socket()

    def take(data: bytes) -> bool:
        socket.data, engine.connection._socket = data, socket
        engine.run()
        return check_finite(engine.outputs["actions"]) is None

    answer = {"actions": np.zeros((8, 6)), "server_timing": {"infer_ms": 1.0}}
    return Door(mutated(msgpack_numpy.packb(answer)), take, (RuntimeError,))


def ros2_door() -> Door:
    """Trajectories of a ROS 2 peer; what is taken must be within the arm's limits."""
    store, types = get_typestore(Stores.ROS2_JAZZY), Types()
    time_type, point = (
        store.types["builtin_interfaces/msg/Time"],
        store.types["trajectory_msgs/msg/JointTrajectoryPoint"],
    )
    duration, none = store.types["builtin_interfaces/msg/Duration"], np.zeros(0)
    home, limits = np.array(ARM.home_rad), ARM.operating
    points = [point(home + 0.1 * number, none, none, none, duration(sec=number, nanosec=0)) for number in range(1, 4)]
    header = store.types["std_msgs/msg/Header"](time_type(0, 0), "")
    valid = store.types[TRAJECTORY](header, list(ARM.joints), points)

    def take(data: bytes) -> bool:
        taken = trajectory_of(ARM, types.unpack(data, TRAJECTORY), 0.0, home)
        rows = taken.at(np.linspace(0, taken.duration_s, 20))
        assert np.isfinite(rows).all() and (rows >= limits.position_min_rad).all()
        assert (rows <= limits.position_max_rad).all()
        return True

    return Door(mutated(bytes(store.serialize_cdr(valid, TRAJECTORY))), take, (WireError, TrajectoryError))


def lerobot_door() -> Door:
    """Actions of LeRobot's tools; what is taken becomes a set-point within the limits."""
    axes, pursuit = LeRobotAxes(ARM), Pursuit.of(ARM, 0.02)

    def make(draw: np.random.Generator) -> dict[Any, Any]:
        action: dict[Any, Any] = {name: NUMBERS[int(draw.integers(7))] for name in axes.names}
        name = axes.names[int(draw.integers(len(axes.names)))]
        kind = draw.integers(5)
        if kind == 0:
            action[name] = NUMBERS[int(draw.integers(len(NUMBERS)))]
        elif kind == 1:
            action[name] = THINGS[int(draw.integers(len(THINGS)))]
        elif kind == 2:
            del action[name]
        elif kind == 3:
            action[str(draw.integers(99))] = 0.0
        return action

    def take(action: dict[Any, Any]) -> bool:
        goal = pursuit.within(axes.read(action))
        assert np.isfinite(goal).all() and (goal >= pursuit.low).all() and (goal <= pursuit.high).all()
        return True

    return Door(make, take, (ValueError,))


class _Connection:
    """In place of a socket: what a browser is said to have sent, and what it is answered."""

    def __init__(self, data: bytes) -> None:
        self._data, self.answer = data, bytearray()

    def makefile(self, mode: str, size: int) -> io.BytesIO:
        return io.BytesIO(self._data)

    def sendall(self, data: bytes) -> None:
        self.answer += data

    def settimeout(self, timeout_s: float) -> None: ...

    def shutdown(self, how: int) -> None: ...

    def close(self) -> None: ...


def page_door() -> Door:
    """Requests to the live page; what is taken is a press of a button, with the run's token."""
    records, token = ViewRecords(ARM.dof), "4f1d9e0c"
    records.snapshots.write(records.blank)
    server = page.ViewServer(records, token, {"arm": ARM.name}, 0)
    host = f"Host: {page.HOST}:{server.server_address[1]}\r\nX-Token: {token}\r\n"
    valid = [f"POST /command HTTP/1.1\r\n{host}Content-Length: {len(one)}\r\n\r\n{one}" for one in page.BUTTONS]
    valid += [
        f"GET {path} HTTP/1.1\r\n{host}X-After: 0\r\nX-Page: a\r\n\r\n" for path in ("/snapshot", "/frame", "/about")
    ]
    valid += [f"GET /view.css HTTP/1.1\r\n{host}\r\n"]
    presses = [0, 0]

    def take(data: bytes) -> bool:
        connection: Any = _Connection(data)
        with patch.object(page, "REFUSAL_S", 0.0):  # that a refusal waits is judged elsewhere
            server.finish_request(connection, (page.HOST, 0))
        server.shutdown_request(connection)
        assert len(connection.answer) < MOST_ANSWER
        found = records.presses.read(presses[0])
        if found is None:
            return False
        legal = token.encode() in data and b"command" in data and any(one.encode() in data for one in page.BUTTONS)
        presses[0], before, presses[1] = found[0], presses[1], int(found[1].counts.sum())
        assert legal and 0 < presses[1] - before <= data.count(b"POST"), "a press that nobody made"
        return True

    return Door(mutated(*(one.encode() for one in valid)), take, ())


def adapter_door() -> Door:
    """Datagrams to the adapter beside the arm; what is taken are the frames of a host that has the key, once."""
    key, address = b"k" * 32, ("192.0.2.1", 1)
    host, device = HostEnd(key, b"h" * 16), DeviceEnd(key, lambda: b"d" * 16)
    while host.session is None:
        _, answer = device.take(host.asks(0), address, 0)
        host.take(answer)
    session, sealed = host.session, [b""]

    def make(draw: np.random.Generator) -> bytes:
        sealed[0] = session.seal(draw.bytes(60))
        return sealed[0] if draw.integers(5) == 0 else changed(sealed[0], draw)

    def take(datagram: bytes) -> bool:
        frames, _ = device.take(datagram, address, 0)
        assert not frames or datagram == sealed[0], "frames that the host has not sent"
        return bool(frames)

    return Door(make, take, ())


def doors(folder: Path) -> dict[str, Door]:
    return {
        "edge-serve, observations": server_door(folder),
        "edge-run --policy, answers": client_door(),
        "edge-ros2, trajectories": ros2_door(),
        "LeRobot, actions": lerobot_door(),
        "edge-run --view, requests": page_door(),
        "edge-adapter --listen, datagrams": adapter_door(),
    }


def tried(door: Door, messages: int, seed: int = 0) -> Tally:
    """Sends so many, and says what came of them; `broken` names the first that broke the law."""
    draw, tally, begun_mb = np.random.default_rng(seed), Tally(), 0.0
    for number in range(messages):
        message = door.make(draw)
        began_s = time.thread_time()
        try:
            tally.taken += door.take(message)
        except door.refusals as refusal:
            if not str(refusal).isprintable() or len(str(refusal)) > 1000:
                tally.broken = f"a refusal of several lines, not printable or without end: {str(refusal)[:200]!r}"
        except BaseException as error:
            tally.broken = f"{type(error).__name__}: {error}"
        tally.messages += 1
        tally.slowest_s = max(tally.slowest_s, time.thread_time() - began_s)
        if tally.broken:
            tally.broken += f", by message {number} of seed {seed}: {message!r:.300}"
            break
        if number == messages // 5:
            begun_mb = _memory_mb()
    tally.growth_mb = _memory_mb() - begun_mb if begun_mb else 0.0
    return tally


def _memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def rows(messages: int, folder: Path, seed: int, only: str) -> Iterator[tuple[str, Tally]]:
    for name, door in doors(folder).items():
        if only in name:
            yield name, tried(door, messages, seed)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.hostile_doors", description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000, help="at each door (default %(default)d)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", metavar="TEXT", help="doors with it in their names (default: all)")
    args = parser.parse_args()
    failed = False
    print(
        "| door | messages | taken | slowest, ms of the processor | memory grew by, MB | |\n|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, one in rows(args.messages, Path(folder), args.seed, args.only):
            failed = failed or bool(one.broken) or one.growth_mb > MOST_GROWTH_MB or one.slowest_s > MOST_S
            figures = f"{one.messages} | {one.taken} | {1e3 * one.slowest_s:.1f} | {one.growth_mb:.1f} | {one.broken}"
            print(f"| {name} | {figures} |", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
