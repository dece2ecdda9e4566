"""`servo-sim`: the simulated servos of an SO-101 on a pseudo-terminal, in real time.

The first line of stdout is JSON with the port. Words on stdin change what happens: `silent N`, `speaks N`, `stall N`,
`free N`, `heat N CELSIUS`, `voltage VOLTS`, `supply VOLTS OHMS`, `hand N COUNT` (a hand on an arm without torque),
`load N SHARE` (of the stall torque), `stops N LOW HIGH`, `noise N COUNTS`, `reset N`.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import TextIO

from firmware_bridge import __version__
from firmware_bridge.adapters.feetech import registers as reg
from firmware_bridge.adapters.feetech.simulated_bus import LineFaults, SimulatedBus, Supply
from firmware_bridge.adapters.feetech.simulated_servo import SimulatedServo
from firmware_bridge.adapters.simulated_command import add_trace, leave_on_signals, open_trace, share
from firmware_bridge.adapters.terminal import Terminal

FRAME_NS = 1_000_000
"""A full-speed USB adapter hands over what has arrived once a frame; so does this, and the trace has a row for each."""
MIDDLE = reg.COUNTS // 2
SERVOS = 6


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="servo-sim",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Simulates the six STS3215 servos of an SO-101 on a pseudo-terminal: their registers, a finite\n"
        "speed and acceleration, and a line of 1 Mbaud. The first line of stdout is JSON with the port.",
        epilog="Commands on stdin: silent N, speaks N, stall N, free N, heat N CELSIUS, voltage VOLTS,\n"
        "supply VOLTS OHMS, hand N COUNT, load N SHARE, stops N LOW HIGH, noise N COUNTS, reset N.\n"
        "It runs until Ctrl-C or SIGTERM. Exit code 2: bad input.\n\n"
        "Examples:\n  servo-sim --trace shafts.csv\n  servo-sim --corrupt 0.01 --seed 1\n",
    )
    root.add_argument("--version", action="version", version=f"%(prog)s {__version__}", help="print the version")
    add = root.add_argument
    add("--start", type=_counts, default=(MIDDLE,) * SERVOS, metavar="N,..", help="where the shafts are, in counts")
    add("--offset", type=_counts, default=(0,) * SERVOS, metavar="N,..", help="homing offsets that the servos hold")
    add("--corrupt", type=share, default=0.0, metavar="SHARE", help="of all packets, of either direction")
    add("--drop", type=share, default=0.0, metavar="SHARE", help="of all packets, of either direction")
    add("--late", type=share, default=0.0, metavar="SHARE", help="of the answers, which come 12 to 45 ms later")
    add("--echo", action="store_true", help="an adapter that sends the host its own bytes as well")
    add("--seed", type=int, default=0, help="of what gets lost (default %(default)d)")
    add_trace(root, "where the shafts are, every ms: monotonic_ns,c1..c6")
    return root


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    trace = open_trace("servo-sim", args)
    leave_on_signals()
    with suppress(OSError):  # servos do not wait for other programs; where this is refused, these may
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    now_ns = time.monotonic_ns()
    servos = {number: SimulatedServo(number, count) for number, count in enumerate(args.start, start=1)}
    for servo, offset in zip(servos.values(), args.offset):
        servo[reg.HOMING_OFFSET] = offset
    bus = SimulatedBus(servos, LineFaults(args.corrupt, args.drop, args.echo, args.seed, args.late), now_ns)
    line = Terminal()
    print(json.dumps({"port": line.port, "servos": sorted(servos), "simulated": True, "pid": os.getpid()}), flush=True)
    try:
        _run(bus, line, trace)
    except SystemExit:
        return 0
    finally:
        if trace is not None:
            trace.close()
        line.close()
    return 0


def _run(bus: SimulatedBus, line: Terminal, trace: TextIO | None) -> None:
    waiting: deque[tuple[int, bytes]] = deque()
    words, stdin = "", sys.stdin.fileno()
    sources = [line.file, stdin]
    frame = time.monotonic_ns() // FRAME_NS
    if trace is not None:
        trace.write("monotonic_ns," + ",".join(f"c{servo}" for servo in bus.servos) + "\n")
    while True:
        left_ns = (frame + 1) * FRAME_NS - time.monotonic_ns()
        ready = select.select(sources, [], [], left_ns / 1e9)[0] if left_ns > 0 else []
        now_ns = time.monotonic_ns()
        waiting.extend(bus.receive(line.read(), now_ns) if line.file in ready else [])
        if stdin in ready:
            heard = os.read(stdin, 4096).decode(errors="replace")
            if not heard:
                sources.remove(stdin)
            *lines, words = (words + heard).split("\n")
            for text in lines:
                apply(bus, text.split())
        if now_ns // FRAME_NS > frame:
            frame = now_ns // FRAME_NS
            answers = [waiting.popleft()[1] for _ in range(sum(due_ns <= now_ns for due_ns, _ in waiting))]
            line.write(b"".join(answers))
            bus.advance(now_ns)
            if trace is not None:
                trace.write(f"{now_ns}," + ",".join(f"{one.position:.3f}" for one in bus.servos.values()) + "\n")


def apply(bus: SimulatedBus, words: Sequence[str]) -> None:
    """What a word does; one that is not understood is said on stderr, and nothing changes."""
    try:
        name, *rest = words
        if name == "supply":
            bus.supply = Supply(float(rest[0]), float(rest[1]))
            return
        if name == "voltage":
            bus.supply = None
            for servo in bus.servos.values():
                servo[reg.PRESENT_VOLTAGE] = round(float(rest[0]) / reg.VOLTAGE_UNIT_V)
            return
        servo = bus.servos[int(rest[0])]
        if name in ("silent", "speaks"):
            servo.silent = name == "silent"
        elif name in ("stall", "free"):
            servo.stalled = name == "stall"
        elif name == "heat":
            servo[reg.PRESENT_TEMPERATURE] = int(rest[1])
        elif name == "hand":
            servo.hand(float(rest[1]))
        elif name == "load":
            servo.load = float(rest[1])
        elif name == "stops":
            servo.stops = float(rest[1]), float(rest[2])
        elif name == "noise":
            servo.noise = int(rest[1])
        elif name == "reset":
            bus.servos[int(rest[0])] = servo.started_anew()
        else:
            raise ValueError(name)
    except (ValueError, IndexError, KeyError):
        print(f"servo-sim: '{' '.join(words)}' is not understood; see --help", file=sys.stderr)


def _counts(text: str) -> tuple[int, ...]:
    values = tuple(int(part) for part in text.split(","))
    if len(values) != SERVOS or not all(-reg.COUNTS < value < reg.COUNTS for value in values):
        raise argparse.ArgumentTypeError(f"'{text}' is not {SERVOS} counts below {reg.COUNTS}")
    return values


if __name__ == "__main__":
    sys.exit(main())
