"""`edge-run --clear`: shows why an arm has stopped for good, asks, and lets it recover. Nothing moves."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack

from edge.arms import load_arm
from edge.arms.bridge import open_bridge
from edge.cli.parser import complain
from edge.cli.to_home import confirmed
from edge.errors import InputError
from edge.run.arm import client_in_real_time
from edge.run.clearing import clear, is_latched, reason_of
from firmware_bridge.printing import print_line

QUESTION = "has the cause been put right, and is nobody within reach of the arm? Clear the fault"


def clear_fault(args: argparse.Namespace) -> int:
    """0 when the arm is free, or nobody wanted it to be; 1 when it is not. Raises `VlaEdgeError` or `BridgeError`."""
    arm = load_arm(args.arm)
    if not (args.yes or sys.stdin.isatty()):
        raise InputError("--clear asks, and there is no terminal to ask on; look at the arm, then add --yes")
    with ExitStack() as stack:
        bridge = open_bridge(args.bridge, arm)
        stack.callback(bridge.close)
        client = client_in_real_time(bridge.transport)
        client.connect(arm.name, arm.hash32, arm.dof)
        report = client.wait_for_state()
        if not is_latched(report):
            _say("there is nothing to clear")
            return 0
        _say(reason_of(report))
        if not args.yes and not confirmed(client, QUESTION):
            _say("the fault stays")
            return 0
        problem = clear(client)
        if problem is not None:
            complain("edge-run", problem)
            return 1
        _say("cleared; the drive is off, and nothing has moved")
        return 0


def _say(text: str) -> None:
    print_line(f"edge-run: {text}", sys.stdout)
