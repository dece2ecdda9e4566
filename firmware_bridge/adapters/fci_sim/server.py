"""`fci-sim`: a simulated Franka at a loopback address, that libfranka takes for a robot and that says no.

The first line of stdout is JSON with the address, the last one, after SIGTERM, what became of it. Words on stdin change
what happens: `stop`, `release` (the user stop), `push JOINT NM`, `silent MS`, `lose PACKETS`.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TextIO

from firmware_bridge import __version__
from firmware_bridge.adapters.fci_sim import wire
from firmware_bridge.adapters.fci_sim.loss import PacketLoss
from firmware_bridge.adapters.fci_sim.strict_robot import (
    HOME_RAD,
    JOINTS,
    PERIOD_S,
    ROBOTS,
    Ending,
    Generator,
    RobotMode,
    SetPoint,
    StrictRobot,
)
from firmware_bridge.adapters.fci_sim.wire import Command, MoveStatus, RecoveryStatus, Status
from firmware_bridge.adapters.simulated_command import add_trace, leave_on_signals, open_trace, share

ANSWER_S = 0.05
"""With `--lockstep`: how long the robot waits for the answer to a state."""
ENDINGS = {
    Ending.FINISHED: MoveStatus.SUCCESS,
    Ending.REFLEX: MoveStatus.REFLEX_ABORTED,
    Ending.USER_STOP: MoveStatus.EMERGENCY_ABORTED,
    Ending.STOPPED: MoveStatus.PREEMPTED,
}


class FciServer:
    """One robot on its line. `period` is one millisecond of the robot, however long it takes.

    A set-point counts when it answers the newest state and is here before the next one. `start_periods` is how long a
    motion takes to begin. One client at a time, as a robot has.
    """

    def __init__(self, robot: StrictRobot, host: str, loss: PacketLoss, start_periods: int, lockstep: bool) -> None:
        self.robot, self._loss, self._start_periods, self._lockstep = robot, loss, start_periods, lockstep
        self.silent_periods = self.lose_periods = 0
        self.message_id = 0
        self._told = False
        self._listener = socket.create_server((host, wire.PORT), backlog=4)
        self._listener.setblocking(False)
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind((host, 0))
        self._udp.setblocking(False)
        self._client: socket.socket | None = None
        self._requests = wire.Requests()
        self._to: tuple[str, int] | None = None
        self._move: int | None = None
        self._recovery: int | None = None
        self._handlers: dict[int, Callable[[wire.Request], bytes]] = {
            Command.CONNECT: self._connect,
            Command.MOVE: self._begin,
            Command.STOP_MOVE: self._stop,
            Command.SET_COLLISION_BEHAVIOR: self._thresholds,
            Command.SET_JOINT_IMPEDANCE: self._stiffness,
            Command.SET_LOAD: self._load,
            Command.AUTOMATIC_ERROR_RECOVERY: self._recover,
            Command.GET_ROBOT_MODEL: self._model,
        }

    @property
    def waits(self) -> bool:
        """Whether a period lasts until its answer is there."""
        return self._lockstep and self.robot.generator is not Generator.IDLE and self.silent_periods == 0

    def period(self) -> None:
        """Hears the client, moves the robot on, and sends its state."""
        self._hear_commands()
        state_lost, set_point_lost = self._loss.next() if self.robot.generator else (False, False)
        if self.lose_periods:
            self.lose_periods -= 1
            set_point_lost = True
        command = self._set_point()
        silent = self.silent_periods > 0
        self.silent_periods -= silent
        self.robot.period(None if set_point_lost or silent else command)
        self._tell_endings()
        self.message_id += 1
        self._told = self._to is not None and not state_lost and not silent
        if self._told and self._to is not None:
            with suppress(OSError):  # nobody listens any more
                self._udp.sendto(wire.state(self.robot, self.message_id), self._to)

    def close(self) -> None:
        self._drop()
        self._listener.close()
        self._udp.close()

    # The line ----------------------------------------------------------------------------------------------------

    def _set_point(self) -> SetPoint | None:
        """What answers the newest state; later ones of the same count."""
        found = None
        if self.waits and self._told:
            select.select([self._udp, *([self._client] if self._client else [])], [], [], ANSWER_S)
        with suppress(BlockingIOError):
            while True:
                data = self._udp.recv(1024)
                with suppress(struct.error):
                    answered, set_point = wire.set_point(data, self.robot.generator)
                    found = set_point if answered == self.message_id else found
        return found

    def _hear_commands(self) -> None:
        if self._client is None:
            with suppress(BlockingIOError):
                self._client, _ = self._listener.accept()
                self._client.setblocking(False)
                self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._requests = wire.Requests()
            if self._client is None:
                return
        try:
            data = self._client.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        try:
            requests = self._requests.feed(data)
        except ValueError:
            requests, data = [], b""
        for request in requests:
            handler = self._handlers.get(request.command)
            try:
                reply = (
                    handler(request) if handler else wire.answer(request.command, request.identity, Status.NOT_POSSIBLE)
                )
            except struct.error:
                reply = wire.answer(request.command, request.identity, Status.INVALID_ARGUMENT)
            self._reply(reply)
        if not data:
            self._drop()

    def _drop(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client = self._to = self._move = self._recovery = None

    def _reply(self, data: bytes) -> None:
        if self._client is not None and data:
            try:
                self._client.sendall(data)
            except OSError:
                self._drop()

    def _tell_endings(self) -> None:
        """Of a motion, and of a recovery: the client waits for both."""
        robot = self.robot
        if self._move is not None and robot.ended is not None:
            self._reply(wire.answer(Command.MOVE, self._move, ENDINGS[robot.ended[0]]))
            self._move = None
        if self._recovery is not None and robot.mode is not RobotMode.AUTOMATIC_ERROR_RECOVERY:
            done = robot.mode is RobotMode.IDLE
            status = RecoveryStatus.SUCCESS if done else RecoveryStatus.EMERGENCY_ABORTED
            self._reply(wire.answer(Command.AUTOMATIC_ERROR_RECOVERY, self._recovery, status))
            self._recovery = None

    # Commands ----------------------------------------------------------------------------------------------------

    def _connect(self, request: wire.Request) -> bytes:
        version, port = wire.CONNECT.unpack_from(request.payload)
        if version == wire.VERSION and self._client is not None:
            self._to = (self._client.getpeername()[0], port)
        return wire.connected(request.identity, version == wire.VERSION)

    def _begin(self, request: wire.Request) -> bytes:
        _, generator, *_ = wire.MOVE.unpack_from(request.payload)
        if generator not in wire.GENERATORS:
            return wire.answer(Command.MOVE, request.identity, MoveStatus.INVALID_ARGUMENT)
        if not self.robot.begin(wire.GENERATORS[generator], self._start_periods):
            return wire.answer(Command.MOVE, request.identity, MoveStatus.COMMAND_NOT_POSSIBLE)
        self._move = request.identity
        return wire.answer(Command.MOVE, request.identity, MoveStatus.MOTION_STARTED)

    def _stop(self, request: wire.Request) -> bytes:
        self.robot.stop()
        return wire.answer(Command.STOP_MOVE, request.identity, Status.SUCCESS)

    def _thresholds(self, request: wire.Request) -> bytes:
        self.robot.collision_nm = wire.THRESHOLDS.unpack_from(request.payload)[3 * JOINTS : 4 * JOINTS]
        return wire.answer(request.command, request.identity, Status.SUCCESS)

    def _stiffness(self, request: wire.Request) -> bytes:
        self.robot.stiffness_nm_rad = wire.STIFFNESS.unpack_from(request.payload)
        return wire.answer(request.command, request.identity, Status.SUCCESS)

    def _load(self, request: wire.Request) -> bytes:
        self.robot.declared_kg = wire.LOAD.unpack_from(request.payload)[0]
        return wire.answer(request.command, request.identity, Status.SUCCESS)

    def _recover(self, request: wire.Request) -> bytes:
        if not self.robot.recover():
            stopped = self.robot.mode is RobotMode.USER_STOPPED
            status = RecoveryStatus.EMERGENCY_ABORTED if stopped else RecoveryStatus.MANUAL_REQUIRED
            return wire.answer(request.command, request.identity, status)
        if self.robot.mode is RobotMode.AUTOMATIC_ERROR_RECOVERY:
            self._recovery = request.identity
            return b""
        return wire.answer(request.command, request.identity, RecoveryStatus.SUCCESS)

    def _model(self, request: wire.Request) -> bytes:
        return wire.answer(request.command, request.identity, Status.SUCCESS, wire.model(self.robot.limits).encode())


def apply(server: FciServer, words: Sequence[str]) -> None:
    """What a word does; one that is not understood is said on stderr, and nothing changes."""
    try:
        name, *rest = words
        if name == "stop":
            server.robot.press_user_stop()
        elif name == "release":
            server.robot.release_user_stop()
        elif name == "push":
            server.robot.push(int(rest[0]) - 1, float(rest[1]))
        elif name == "silent":
            server.silent_periods = int(rest[0])
        elif name == "lose":
            server.lose_periods = int(rest[0])
        else:
            raise ValueError(name)
    except (ValueError, IndexError):
        print(f"fci-sim: '{' '.join(words)}' is not understood; see --help", file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="fci-sim",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Simulates a Franka at a loopback address, behind its own protocol, for an unmodified libfranka.\n"
        "It judges every set-point by the robot's limits, extrapolates what is lost, and stops by a\n"
        "reflex as a robot does. The first line of stdout is JSON with the address, the last statistics.",
        epilog="Commands on stdin: stop, release (the user stop), push JOINT NM, silent MS, lose PACKETS.\n"
        "It runs until Ctrl-C or SIGTERM. Exit code 2: bad input.\n\n"
        "Examples:\n  fci-sim\n  fci-sim --address 127.0.0.2 --loss 0.01 --burst 10 --seed 1 --trace robot.csv\n",
    )
    root.add_argument("--version", action="version", version=f"%(prog)s {__version__}", help="print the version")
    add = root.add_argument
    add("--address", default="127.0.0.1", metavar="IP", help="of this machine's loopback (default %(default)s)")
    add("--robot", choices=sorted(ROBOTS), default="fr3", help="whose limits it has (default %(default)s)")
    add("--start", type=_pose, default=HOME_RAD, metavar="RAD,..", help="where the joints are (default: home)")
    add("--begin-ms", type=int, default=20, metavar="N", help="how long a motion takes to begin (default %(default)d)")
    add("--loss", type=share, default=0.0, metavar="SHARE", help="of all packets in motion, of either direction")
    add("--burst", type=int, default=1, metavar="N", help="most of them lost in a row (default %(default)d)")
    add("--payload", type=float, default=0.0, metavar="KG", help="what hangs at its flange")
    add("--seed", type=int, default=0, help="of what gets lost, and of the noise (default %(default)d)")
    add("--lockstep", action="store_true", help="in motion, wait for the answer to each state: for a busy machine")
    add_trace(root, "every millisecond: time_ms,mode,lost,q_d1..,q1..")
    return root


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    trace = open_trace("fci-sim", args)
    leave_on_signals()
    with suppress(OSError):  # a robot does not wait for other programs; where this is refused, it may
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    robot = StrictRobot(ROBOTS[args.robot], args.start, args.payload, args.seed)
    try:
        server = FciServer(
            robot, args.address, PacketLoss(args.loss, args.burst, args.seed), args.begin_ms, args.lockstep
        )
    except OSError as error:
        print(f"fci-sim: --address {args.address}: {error.strerror}; is there another robot?", file=sys.stderr)
        return 2
    about = {"address": args.address, "robot": args.robot, "simulated": True, "pid": os.getpid()}
    print(json.dumps(about), flush=True)
    try:
        _run(server, trace)
    except SystemExit:
        print(json.dumps(summary(robot)), flush=True)
        return 0
    finally:
        if trace is not None:
            trace.close()
        server.close()
    return 0


def summary(robot: StrictRobot) -> dict[str, object]:
    """What became of the robot."""
    ended = f"{robot.ended[0].name.lower()}: {robot.ended[1]}" if robot.ended else ""
    return {
        "motions": robot.motions,
        "reflexes": robot.reflexes,
        "mode": robot.mode.name.lower(),
        "ended": ended,
        "lost": robot.lost,
        "longest_loss": robot.longest_loss,
        "worst_share": {name: round(share, 4) for name, share in robot.worst.items()},
    }


def _run(server: FciServer, trace: TextIO | None) -> None:
    robot, words, sources = server.robot, "", [sys.stdin.fileno()]
    due_s = time.monotonic()
    if trace is not None:
        rows = [f"{name}{joint + 1}" for name in ("q_d", "q") for joint in range(JOINTS)]
        trace.write(",".join(["time_ms", "mode", "lost", *rows]) + "\n")
    while True:
        server.period()
        if trace is not None:
            values = ",".join(f"{value:.17g}" for value in (*robot.q_d, *robot.q))
            trace.write(f"{server.message_id},{robot.mode.name},{robot.lost_in_row},{values}\n")
        due_s += PERIOD_S
        left_s = due_s - time.monotonic()
        if left_s < 0:
            due_s -= left_s  # held up by this machine: the robot was paused, and does not run after its time
        ready = select.select(sources, [], [], 0)[0]
        if ready:
            heard = os.read(sources[0], 4096).decode(errors="replace")
            if not heard:
                sources = []
            *lines, words = (words + heard).split("\n")
            for text in lines:
                apply(server, text.split())
        left_s = due_s - time.monotonic()
        if left_s > 0:
            time.sleep(left_s)


def _pose(text: str) -> tuple[float, ...]:
    values = tuple(float(part) for part in text.split(","))
    if len(values) != JOINTS:
        raise argparse.ArgumentTypeError(f"'{text}' is not {JOINTS} angles in rad")
    return values


if __name__ == "__main__":
    sys.exit(main())
