"""`edge-adapter`: the core beside an arm that speaks its own protocol, with a line for the host."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from edge.arms import available_arms, load_arm
from edge.arms.drives import DRIVES
from edge.cli.parser import add_version, complain, described
from edge.errors import InputError, VlaEdgeError
from edge.realtime.rights import CpuPlan, realtime
from edge.run.outputs import OVERWRITE, Kind, check_outputs
from edge.sim.world import WorldWriter
from firmware_bridge.adapters import Adapter, DriveError, Terminal
from firmware_bridge.adapters.franka_fci import print_to_stderr
from firmware_bridge.adapters.latch import open_latch
from firmware_bridge.errors import BridgeError
from firmware_bridge.hosted import HostedDevice
from firmware_bridge.printing import print_line
from firmware_bridge.transports.network import DEFAULT_PORT, NetworkListener, listen

FLUSH_EVERY_STEPS = 250
SHARES = {"p50": 0.5, "p99": 0.99, "max": 1.0}


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="edge-adapter",
        **described(
            "Runs the firmware's core beside an arm that speaks its own protocol, where the arm's line ends. "
            "The first line of stdout is JSON with where the host finds it, the last, after SIGTERM, statistics.",
            """
            edge-adapter --arm franka --drive fci:172.16.0.2
            edge-adapter --arm so101 --drive feetech:/dev/ttyACM0 --trace trace.csv
            edge-adapter --arm franka --drive fci:172.16.0.2 --listen --key-file arm.key
            """,
            "edge-run --bridge URL starts one by itself; with --listen the host is another computer, and connects with "
            "--bridge 'net:HOST?key_file=FILE'. The drive stays off until a host arms the device. "
            "Exit code 2: bad input, or no such arm at the URL.",
        ),
    )
    add_version(root)
    root.add_argument("--arm", required=True, metavar="NAME", help=f"compiled profile: {', '.join(available_arms())}")
    root.add_argument("--drive", required=True, metavar="URL", help=DRIVES.forms())
    root.add_argument(
        "--listen",
        nargs="?",
        const="",
        metavar="HOST:PORT",
        help=f"a line over the network in place of the pseudo-terminal (default: UDP port {DEFAULT_PORT} on every "
        "address, without a key on this computer alone)",
    )
    root.add_argument(
        "--key-file", type=Path, metavar="FILE", help="the key that both ends have, in a file of rights 0600"
    )
    root.add_argument("--trace", type=Path, metavar="FILE.csv", help="every 1 kHz output, as of bridge-sim")
    root.add_argument("--overwrite", action="store_true", help=OVERWRITE)
    root.add_argument(
        "--world", type=Path, metavar="FILE", help="publishes the measured pose, for a camera that is simulated"
    )
    return root


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: stopping.append(number))
    with ExitStack() as stack:
        try:
            if args.key_file is not None and args.listen is None:
                raise InputError("--key-file is for a line over the network; add --listen")
            _check_outputs(args)
            arm, url = load_arm(args.arm), DRIVES.read(args.drive)
            line, where = _open_line(args)
            stack.callback(line.close)
            drive = url.open(arm, print_to_stderr)
            stack.callback(drive.close)
            if len(drive.position_rad) != arm.dof:
                raise DriveError(f"'{arm.name}' has {arm.dof} joints, and the arm at {args.drive} has another number")
            device = HostedDevice(arm.name, drive.position_rad, args.trace)
            stack.callback(device.close)
        except (VlaEdgeError, BridgeError) as error:
            complain("edge-adapter", error)
            return 2
        world = WorldWriter(args.world, arm.dof) if args.world else None
        if world is not None:
            stack.callback(world.close)
            world.publish(0, drive.position_rad, drive.position_rad)
        latch = open_latch(url.latch_name, print_to_stderr) if url.latch_name else None
        if latch is not None:
            stack.callback(latch.close)
            if latch.found is not None:
                print_to_stderr(str(latch.found))
        adapter = Adapter(
            device, drive, line, time.monotonic_ns, url.bridged_periods, url.cycle_periods, url.idle_us, latch
        )
        periods, answers = Durations("period"), Durations("answer")
        with realtime(CpuPlan((), ())):
            print_line(json.dumps({**where, "arm": arm.name, "drive": args.drive, "pid": os.getpid()}), sys.stdout)
            before_ns = time.monotonic_ns()
            while not adapter.may_leave:
                if stopping:
                    adapter.leave()
                adapter.step()
                if world is not None:
                    world.publish(device.now_us, device.set_point_rad[:], adapter.measured_rad)
                now_ns = time.monotonic_ns()
                periods.add(now_ns - before_ns)
                answers.add(adapter.answer_ns)
                before_ns = now_ns
                if adapter.ticks % FLUSH_EVERY_STEPS == 0:
                    device.flush()
        counted = {"periods": adapter.ticks, "lost_periods": adapter.lost_periods}
        if isinstance(line, NetworkListener):
            counted |= line.statistics()
        statistics = json.dumps(counted | periods.summary() | answers.summary() | drive.statistics())
        print_line(statistics, sys.stdout)
    return 0


def _check_outputs(args: argparse.Namespace) -> None:
    """Before the line and the drive are opened. Raises `InputError`."""
    given = {"--trace": args.trace, "--world": args.world}
    outputs: dict[str, tuple[Path, Kind]] = {name: (path, "recording") for name, path in given.items() if path}
    inputs = [Path(part) for part in (args.arm, *re.split("[:?&=]", args.drive)) if part]
    check_outputs(outputs, inputs + ([args.key_file] if args.key_file else []), args.overwrite)


def _open_line(args: argparse.Namespace) -> tuple[Terminal | NetworkListener, dict[str, str]]:
    """The line for the host, and where it is found. Raises `PortError`."""
    if args.listen is None:
        terminal = Terminal()
        return terminal, {"port": terminal.port}
    listener, place = listen(args.listen, args.key_file)
    return listener, {"listen": str(place)}


class Durations:
    """How long something took: counts in steps of 10 us, so that a day of them takes no more room than a minute."""

    STEP_US = 10

    def __init__(self, name: str) -> None:
        self._name = name
        self._counts = np.zeros(10_000, dtype=np.int64)

    def add(self, duration_ns: int) -> None:
        self._counts[min(duration_ns // (1000 * self.STEP_US), len(self._counts) - 1)] += 1

    def summary(self) -> dict[str, int]:
        """Percentiles in us, rounded up to the step."""
        total = np.cumsum(self._counts)
        at = {name: int(np.searchsorted(total, share * total[-1])) for name, share in SHARES.items()}
        return {f"{self._name}_{name}_us": (index + 1) * self.STEP_US for name, index in at.items()}


if __name__ == "__main__":
    sys.exit(main())
