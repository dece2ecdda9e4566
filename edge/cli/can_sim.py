"""`can-sim`: an arm on CAN, simulated on a bus of python-can, in real time."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from edge.arms import ArmProfile, load_arm
from edge.arms.damiao import load_motors
from edge.cli.parser import add_version, complain, described
from edge.errors import InputError, VlaEdgeError
from edge.run.outputs import OVERWRITE, check_outputs
from firmware_bridge.adapters.damiao.simulated import SHIPPED, SimulatedBus, simulated_motors
from firmware_bridge.adapters.piper.simulated import SimulatedPiper
from firmware_bridge.adapters.simulated_can import BusFaults, SimulatedArm
from firmware_bridge.adapters.simulated_command import leave_on_signals
from firmware_bridge.errors import BridgeError
from firmware_bridge.printing import print_line
from firmware_bridge.transports.can_stream import DEFAULT_BITRATE, CanBus
from firmware_bridge.transports.python_can import PythonCanBus

DEFAULT_BUS = "udp_multicast:239.74.163.77"
TICK_S = 0.0005


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="can-sim",
        **described(
            "Simulates an arm on a bus of python-can, in real time: a Piper, or one of Damiao motors, with weight, "
            "friction, and a bus of 1 Mbit/s. The first line of stdout is JSON with the bus.",
            """
            can-sim --arm yam
            can-sim --arm piper --lost 0.01 --trace joints.csv
            can-sim --arm yam --lost 0.01 --payload-kg 1.2 --trace joints.csv
            edge-run --arm yam --bundle bundle --bridge damiao:udp_multicast:239.74.163.77 --camera pattern:  # beside
            """,
            "It runs until Ctrl-C or SIGTERM. udp_multicast needs pip install 'python-can[multicast]'. "
            "Exit code 2: bad input.",
        ),
    )
    add_version(root)
    add = root.add_argument
    add("--arm", required=True, metavar="NAME", help="piper, yam, or a profile with --motors")
    add("--motors", type=Path, metavar="FILE.toml", help="the motors of an arm of your own")
    add("--bus", default=DEFAULT_BUS, metavar="INTERFACE:CHANNEL", help="by python-can's names (default %(default)s)")
    add("--folded", action="store_true", help="it begins at zero; by default in the home pose, held up while it is off")
    add("--payload-kg", type=float, help="at its last joint (default: the gripper alone; of a piper: beside it)")
    add("--lost", type=float, default=0.0, metavar="SHARE", help="of the frames, of either direction")
    add("--seed", type=int, default=0, help="of what gets lost (default %(default)d)")
    add("--trace", type=Path, metavar="FILE.csv", help="where the joints are: monotonic_ns,on,q1..qn")
    add("--overwrite", action="store_true", help=OVERWRITE)
    return root


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    leave_on_signals()
    try:
        if args.trace is not None:
            inputs = [Path(args.arm)] + ([args.motors] if args.motors else [])
            check_outputs({"--trace": (args.trace, "recording")}, inputs, args.overwrite)
        arm = load_arm(args.arm)
        interface, colon, channel = args.bus.partition(":")
        if not (colon and interface and channel) or not 0 <= args.lost < 1:
            raise InputError("--bus is INTERFACE:CHANNEL, and --lost a share from 0 to 1")
        pose = [0.0] * arm.dof if args.folded else list(arm.home_rad)
        simulated = simulated_arm(arm, args.motors, pose, BusFaults(args.lost, args.seed), args.payload_kg)
        line = PythonCanBus(interface, channel, DEFAULT_BITRATE, None)
    except (VlaEdgeError, BridgeError) as error:
        complain("can-sim", error)
        return 2
    with suppress(OSError):  # motors do not wait for other programs; where this is refused, these may
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    simulated.is_propped = not args.folded
    print_line(json.dumps({"bus": args.bus, "arm": arm.name, "simulated": True, "pid": os.getpid()}), sys.stdout)
    trace = args.trace.open("w", buffering=1 << 16) if args.trace else None
    try:
        serve(simulated, line, trace, lambda: False)
    except SystemExit:
        return 0
    finally:
        if trace is not None:
            trace.close()
        line.close()
    return 0


def simulated_arm(
    arm: ArmProfile, motors: Path | None, pose: Sequence[float], faults: BusFaults, payload_kg: float | None
) -> SimulatedArm:
    """Raises `InputError` for an arm of which no motors are known."""
    now_ns = time.monotonic_ns()
    if arm.name == "piper" and motors is None:
        return SimulatedPiper(pose, faults, now_ns, payload_kg or 0.0)
    found = load_motors(arm, motors)
    if unknown := {spec.model for spec in found.motors} - set(SHIPPED):
        raise InputError(f"model {', '.join(sorted(unknown))} is not simulated, only {', '.join(SHIPPED)}")
    carried_kg = found.tool_kg if payload_kg is None else payload_kg
    return SimulatedBus(found, simulated_motors(found, pose), faults, now_ns, carried_kg)


def serve(arm: SimulatedArm, line: CanBus, trace: TextIO | None, stopped: Callable[[], bool]) -> None:
    """The arm behind the bus, until it is to stop."""
    if trace is not None:
        trace.write("monotonic_ns,on," + ",".join(f"q{number + 1}" for number in range(len(arm.joints_rad))) + "\n")
    while not stopped():
        now_ns = time.monotonic_ns()
        for frame in line.receive():
            if frame.id not in arm.own:  # a multicast bus hands out one's own frames as well
                arm.receive(frame, now_ns)
        for frame in arm.arrived(now_ns):
            line.send(frame)
        if trace is not None:
            trace.write(f"{now_ns},{arm.is_on:d}," + ",".join(f"{q:.5f}" for q in arm.joints_rad) + "\n")
        time.sleep(TICK_S)


if __name__ == "__main__":
    sys.exit(main())
