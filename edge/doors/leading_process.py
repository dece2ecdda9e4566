"""The process that reads a leader arm and hands its newest pose over. Prints JSON, a line each."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time

import numpy as np

from edge.arms import load_arm
from edge.arms.feetech import open_leader
from edge.doors.following import FollowingRecords, Positions
from edge.errors import VlaEdgeError
from edge.realtime.scheduler import FixedStep
from firmware_bridge.adapters.feetech.leader import Leader, Leaders
from firmware_bridge.errors import BridgeError
from firmware_bridge.printing import print_line

PERIOD_NS = 10_000_000


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="edge.doors.leading_process", description=__doc__)
    parser.add_argument("--memory", type=int, required=True, help="descriptor of the shared memory")
    parser.add_argument("--arm", required=True)
    parser.add_argument("--leader", required=True, metavar="URL")
    args = parser.parse_args(argv)
    ending: list[int] = []
    told = "--leader: "
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: ending.append(number))
    try:
        arm = load_arm(args.arm)
        leader = open_leader(args.leader, arm)
        told = ""
        try:
            _read(leader, FollowingRecords(arm.dof, args.memory), ending)
        finally:
            leader.close()
    except (VlaEdgeError, BridgeError) as error:
        print_line(json.dumps({"error": f"{told}{error}"}), sys.stdout)
        return 1
    return 0


def _read(leader: Leader | Leaders, records: FollowingRecords, ending: list[int]) -> None:
    """Until it is told to end. Raises `LinkLost`."""
    loop, ready = FixedStep(PERIOD_NS, time.monotonic_ns, time.sleep), False
    while not ending:
        pose = leader.read()
        records.set_points.write(Positions(pose.at_ns, np.array(pose.position_rad)))
        if not ready:
            print_line(json.dumps({"ready": True}), sys.stdout)
            ready = True
        loop.wait()


if __name__ == "__main__":
    sys.exit(main())
