"""`edge-run --to-home`: a slow move to the home pose, on a word; the same checks, client and firmware as a policy."""

from __future__ import annotations

import argparse
import secrets
import select
import sys
import time
from contextlib import ExitStack

from edge.arms import ArmProfile, load_arm
from edge.arms.bridge import open_bridge
from edge.cli.progress import Progress
from edge.errors import InputError, SafetyStop
from edge.plan.trajectory import from_micro
from edge.realtime.rights import cpus_here, realtime
from edge.realtime.scheduler import FixedStep
from edge.run.arm import LEAD_MARGIN_US, wire_limits
from edge.run.homing import Homing, describe, plan_home
from edge.run.session import STOP_SIGNALS, handled
from edge.run.standstill import bring_to_rest
from firmware_bridge.client import DeviceClient, stop_text
from firmware_bridge.codes import DeviceState
from firmware_bridge.constants import POSE_TOLERANCE_RAD
from firmware_bridge.errors import LinkLost
from firmware_bridge.link import Link
from firmware_bridge.messages import StateReport

STEP_NS = 5_000_000
LATCHED = (DeviceState.FAULT, DeviceState.ESTOP)


def to_home(args: argparse.Namespace) -> int:
    """Moves the arm home after a yes. Returns 0 when it is there, 1 after a safety stop.

    Raises `InputError` or `BridgeError` while nothing has moved.
    """
    arm = load_arm(args.arm)
    if not (args.yes or sys.stdin.isatty()):
        raise InputError("--to-home moves the arm, and there is no terminal to ask; look at the arm, then add --yes")
    with ExitStack() as stack:
        bridge = open_bridge(args.bridge, arm, args.trace)
        stack.callback(bridge.close)
        client = DeviceClient(Link(bridge.transport, time.monotonic_ns, secrets.randbelow(0xFFFF) + 1), time.sleep)
        caps = client.connect(arm.name, arm.hash32, arm.dof)
        client.set_limits(wire_limits(arm.operating))
        move = plan_home(arm, _pose(_standing(client)))
        if move is None:
            print(f"edge-run: '{arm.name}' is at home")
            return 0
        print(f"edge-run: {describe(move)}", flush=True)
        if not args.yes and not _confirmed(client):
            print("edge-run: the arm has not moved")
            return 0
        client.synchronise_clock()
        state = _standing(client)
        plan_home(arm, _pose(state))  # it may have been moved meanwhile
        return _move(client, arm, state, caps.min_lead_us + LEAD_MARGIN_US)


def _standing(client: DeviceClient) -> StateReport:
    client.poll(time.monotonic_ns())  # what has waited in the line is old
    state = client.wait_for_state()
    if state.state in LATCHED:
        raise SafetyStop(f"the device is in {stop_text(state.state, state.reason)}; find the cause and clear it first")
    return state


def _pose(state: StateReport) -> list[float]:
    return list(from_micro(state.measured_urad))


def _confirmed(client: DeviceClient) -> bool:
    """Asks on the terminal, and keeps the line empty meanwhile."""
    print("edge-run: is the way clear, and the emergency stop at hand? Move the arm [y/N] ", end="", flush=True)
    while not select.select([sys.stdin], [], [], 0.02)[0]:
        client.poll(time.monotonic_ns())
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _move(client: DeviceClient, arm: ArmProfile, state: StateReport, lead_us: int) -> int:
    stopped: list[int] = []
    homing, error = None, ""
    with handled(STOP_SIGNALS, lambda number, _: stopped.append(number)), realtime(cpus_here()):
        client.arm(state.measured_urad, loop_tick=1)
        loop = FixedStep(STEP_NS, time.monotonic_ns, time.sleep)
        try:
            # The way begins where the device holds the arm, which is not quite where it was measured.
            move = plan_home(arm, from_micro(client.wait_for_state().commanded_urad))
            if move is not None:
                homing = Homing(client, move, lead_us)
                _run(client, homing, loop, stopped)
        except (SafetyStop, LinkLost) as failure:
            error = str(failure)
        _, problem = bring_to_rest(client)
    error = "; ".join(part for part in (error, problem) if part)
    if error:
        print(f"edge-run: safety stop: {error}", file=sys.stderr)
        return 1
    if stopped:
        print(f"edge-run: stopped on the way, after {homing.share if homing else 0.0:.0%} of it; drive off")
        return 0
    away = max(abs(q - home) for q, home in zip(_pose(client.wait_for_state()), arm.home_rad))
    print(f"edge-run: the arm is {1000 * away:.0f} mrad from home, drive off")
    return 0 if away <= POSE_TOLERANCE_RAD else 1


def _run(client: DeviceClient, homing: Homing, loop: FixedStep, stopped: list[int]) -> None:
    progress = Progress(homing.move.duration_s)
    try:
        while not stopped and not homing.step(loop.wait(), loop.ticks + 1):
            client.keep_clock(time.monotonic_ns(), loop.slack_s())
            progress.show(homing.share * homing.move.duration_s)
    finally:
        progress.close()
