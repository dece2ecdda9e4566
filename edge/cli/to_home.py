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
from edge.cli.progress import Progress
from edge.errors import InputError, SafetyStop
from edge.log.recorder import Recorder
from edge.plan.trajectory import from_micro
from edge.realtime.rights import cpus_here, realtime
from edge.realtime.scheduler import FixedStep
from edge.run.arm import ConnectedArm, client_in_real_time
from edge.run.homing import HOME_SHAPE, SPACING_S, HomePlanner, SlowMove, describe, home_controller, plan_home
from edge.run.signals import STOP_SIGNALS, handled
from edge.run.standstill import bring_to_rest
from firmware_bridge.client import DeviceClient
from firmware_bridge.constants import POSE_TOLERANCE_RAD
from firmware_bridge.errors import LinkLost

STEP_NS = 5_000_000


def to_home(args: argparse.Namespace) -> int:
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
        return _move(connected)


def _confirmed(client: DeviceClient) -> bool:
    """Whether somebody confirms it on the terminal; drains STATE meanwhile."""
    print("edge-run: is the space clear, and the emergency stop at hand? Move the arm [y/N] ", end="", flush=True)
    while not select.select([sys.stdin], [], [], 0.02)[0]:
        client.poll(time.monotonic_ns())
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _move(connected: ConnectedArm) -> int:
    stopped: list[int] = []
    client, arm, error, share = connected.client, connected.profile, "", 0.0
    with handled(STOP_SIGNALS, lambda number, _: stopped.append(number)), realtime(cpus_here()):
        connected.switch_on()
        try:
            # The move begins where the device holds the arm, which is not quite where it was measured.
            move = plan_home(arm, from_micro(client.wait_for_state().commanded_urad))
            share = _go(connected, move, stopped) if move is not None else 1.0
        except (SafetyStop, LinkLost) as failure:
            error = str(failure)
        _, problem = bring_to_rest(client)
    error = "; ".join(part for part in (error, problem) if part)
    if error:
        print(f"edge-run: safety stop: {error}", file=sys.stderr)
        return 1
    if stopped:
        print(f"edge-run: stopped on the way, after {share:.0%} of it; drive off")
        return 0
    away = np.abs(from_micro(client.wait_for_state().measured_urad) - arm.home_rad).max()
    print(f"edge-run: the arm is {1000 * away:.0f} mrad from home, drive off")
    return 0 if away <= POSE_TOLERANCE_RAD else 1


def _go(connected: ConnectedArm, move: SlowMove, stopped: list[int]) -> float:
    """Controls until the arm has arrived, or a signal is in `stopped`; returns how much of the move is done."""
    planner = HomePlanner(move, HOME_SHAPE.horizon, SPACING_S)
    controller = home_controller(connected, planner, Recorder(1, connected.profile.dof))
    loop = FixedStep(STEP_NS, time.monotonic_ns, time.sleep)
    with closing(Progress(move.duration_s)) as progress:
        while not stopped and not planner.arrived(controller.splicer.executed_steps()):
            controller.step(loop.wait(), loop.ticks + 1)
            connected.client.keep_clock(time.monotonic_ns(), loop.slack_s())
            progress.show(planner.share(controller.splicer.executed_steps()) * move.duration_s)
    return planner.share(controller.splicer.executed_steps())
