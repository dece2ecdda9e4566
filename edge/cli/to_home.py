"""`edge-run --to-home`: a slow move to the home pose, on command; the same control, checks and firmware as a policy."""

from __future__ import annotations

import argparse
import select
import sys
import time
from contextlib import ExitStack, closing

import numpy as np

from edge.arms import load_arm
from edge.arms.bridge import open_bridge
from edge.arms.drives import fitted_arm
from edge.cli.parser import PATIENCE_S, complain
from edge.cli.progress import Progress
from edge.errors import InputError
from edge.plan.trajectory import from_micro
from edge.realtime.rights import cpus_here, realtime
from edge.run.arm import ConnectedArm, client_in_real_time
from edge.run.ending import drive
from edge.run.homing import SlowMove, describe, plan_home
from edge.run.signals import Operator
from edge.run.slow_run import SlowRun
from firmware_bridge.client import DeviceClient
from firmware_bridge.constants import POSE_TOLERANCE_RAD
from firmware_bridge.printing import print_line

QUESTION = "is the space clear, and the emergency stop at hand? Move the arm"


def to_home(args: argparse.Namespace, operator: Operator) -> int:
    """Moves the arm home after a confirmation. Returns 0 when it is there, 1 after a safety stop.

    Raises `InputError` or `BridgeError` while nothing has moved.
    """
    arm = load_arm(args.arm)
    if not (args.yes or sys.stdin.isatty()):
        raise InputError(
            "--to-home moves the arm, and there is no terminal to confirm it on; look at the arm, then add --yes"
        )
    with ExitStack() as stack:
        arm = fitted_arm(args.bridge, arm)
        bridge = open_bridge(args.bridge, arm, args.trace)
        stack.callback(bridge.close)
        client = client_in_real_time(bridge.transport)
        connected = ConnectedArm.connect(arm, client)
        move = plan_home(arm, from_micro(connected.standing().measured_urad))
        if move is None:
            print(f"edge-run: '{arm.name}' is at home")
            return 0
        print(f"edge-run: {describe(move)}", flush=True)
        if not args.yes and not confirmed(client, QUESTION):
            print("edge-run: the arm has not moved")
            return 0
        client.synchronise_clock()
        plan_home(arm, from_micro(connected.standing().measured_urad))  # it may have been moved meanwhile
        return _move(connected, operator)


def confirmed(client: DeviceClient, question: str) -> bool:
    """Whether somebody confirms it on the terminal; drains STATE meanwhile."""
    print(f"edge-run: {question} [y/N] ", end="", flush=True)
    while not select.select([sys.stdin], [], [], 0.02)[0]:
        client.poll(time.monotonic_ns())
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _move(connected: ConnectedArm, operator: Operator) -> int:
    with ExitStack() as stack:
        bars: list[Progress] = []

        def show(move: SlowMove, share: float) -> None:
            if not bars:
                bars.append(stack.enter_context(closing(Progress(move.duration_s))))
            bars[0].show(share * move.duration_s)

        run = SlowRun(connected, operator, connected.profile.home_rad, "home", show)
        stack.enter_context(realtime(cpus_here()))
        end = drive(connected, operator, run.run)
    if end.error:
        complain("edge-run", f"safety stop: {end.error}")
        return 1
    if end.ended == "user":
        print_line(f"edge-run: stopped on the way, after {run.share:.0%} of it; drive off", sys.stdout, PATIENCE_S)
        return 0
    away = np.abs(from_micro(connected.client.wait_for_state().measured_urad) - connected.profile.home_rad).max()
    print_line(f"edge-run: the arm is {1000 * away:.0f} mrad from home, drive off", sys.stdout, PATIENCE_S)
    return 0 if away <= POSE_TOLERANCE_RAD else 1
