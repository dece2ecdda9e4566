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
from edge.cli.parser import PATIENCE_S, complain
from edge.cli.progress import Progress
from edge.errors import InputError
from edge.log.recorder import Recorder
from edge.plan.trajectory import from_micro
from edge.realtime.rights import cpus_here, realtime
from edge.realtime.scheduler import FixedStep
from edge.run.arm import ConnectedArm, client_in_real_time
from edge.run.ending import End, drive
from edge.run.homing import HOME_SHAPE, SPACING_S, HomePlanner, describe, home_controller, plan_home
from edge.run.signals import Operator
from firmware_bridge.client import DeviceClient
from firmware_bridge.constants import POSE_TOLERANCE_RAD
from firmware_bridge.say import say

STEP_NS = 5_000_000


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
        bridge = open_bridge(args.bridge, arm, args.trace)
        stack.callback(bridge.close)
        client = client_in_real_time(bridge.transport)
        connected = ConnectedArm.connect(arm, client)
        move = plan_home(arm, from_micro(connected.standing().measured_urad))
        if move is None:
            print(f"edge-run: '{arm.name}' is at home")
            return 0
        print(f"edge-run: {describe(move)}", flush=True)
        if not args.yes and not _confirmed(client):
            print("edge-run: the arm has not moved")
            return 0
        client.synchronise_clock()
        plan_home(arm, from_micro(connected.standing().measured_urad))  # it may have been moved meanwhile
        return _move(connected, operator)


def _confirmed(client: DeviceClient) -> bool:
    """Whether somebody confirms it on the terminal; drains STATE meanwhile."""
    print("edge-run: is the space clear, and the emergency stop at hand? Move the arm [y/N] ", end="", flush=True)
    while not select.select([sys.stdin], [], [], 0.02)[0]:
        client.poll(time.monotonic_ns())
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _move(connected: ConnectedArm, operator: Operator) -> int:
    move = _Move(connected, operator)
    with realtime(cpus_here()):
        end = drive(connected, operator, move.run)
    if end.error:
        complain("edge-run", f"safety stop: {end.error}")
        return 1
    if end.ended == "user":
        say(f"edge-run: stopped on the way, after {move.share:.0%} of it; drive off", sys.stdout, PATIENCE_S)
        return 0
    away = np.abs(from_micro(connected.client.wait_for_state().measured_urad) - connected.profile.home_rad).max()
    say(f"edge-run: the arm is {1000 * away:.0f} mrad from home, drive off", sys.stdout, PATIENCE_S)
    return 0 if away <= POSE_TOLERANCE_RAD else 1


class _Move:
    """Control until the arm has arrived or the operator stops it; `share` is how much of the move is done."""

    def __init__(self, connected: ConnectedArm, operator: Operator) -> None:
        self._connected, self._operator, self.share = connected, operator, 0.0

    def run(self) -> End:
        connected, arm, client = self._connected, self._connected.profile, self._connected.client
        # The move begins where the device holds the arm, which is not quite where it was measured.
        move = plan_home(arm, from_micro(client.wait_for_state().commanded_urad))
        if move is None:
            return End("arrived")
        planner = HomePlanner(move, HOME_SHAPE.horizon, SPACING_S)
        controller = home_controller(connected, planner, Recorder(1, arm.dof))
        loop = FixedStep(STEP_NS, time.monotonic_ns, time.sleep)
        with closing(Progress(move.duration_s)) as progress:
            while not self._operator.stops and not planner.arrived(controller.splicer.executed_steps()):
                controller.step(loop.wait(), loop.ticks + 1)
                client.keep_clock(time.monotonic_ns(), loop.slack_s())
                self.share = planner.share(controller.splicer.executed_steps())
                progress.show(self.share * move.duration_s)
        return End("user" if self._operator.stops else "arrived")
