"""Leaving FAULT or ESTOP: on a person's word alone, with the reason shown, and watched until the arm is free."""

from __future__ import annotations

import time
from collections.abc import Callable

from edge.run.motion import FIXES
from firmware_bridge.client import DeviceClient, stop_text
from firmware_bridge.codes import LATCHED, Refusal
from firmware_bridge.errors import LinkLost, Refused
from firmware_bridge.messages import StateReport

RECOVERY_S = 15.0
"""An arm that recovers by itself may be silent for seconds."""
FREE_US = 300_000
"""So long by its own clock it stays out of the fault."""
REFUSALS = {
    Refusal.CAUSE_REMAINS: "its cause is still there: look at the arm, and at what its adapter says",
    Refusal.DRIVE_ON: "the arm's drive is still on",
    Refusal.SAME_SESSION: "the run that stopped the arm may not clear it; start another",
}


def is_latched(report: StateReport) -> bool:
    """Whether the device has stopped for good."""
    return report.state in LATCHED


def reason_of(report: StateReport) -> str:
    """Why, for a person."""
    fix = FIXES.get(report.reason)
    return f"the device is in {stop_text(report.state, report.reason)}" + (f": {fix}" if fix else "")


def clear(
    client: DeviceClient,
    show: Callable[[StateReport], None] = lambda report: None,
    clock_s: Callable[[], float] = time.monotonic,
) -> str | None:
    """Clears the fault of the device; None when the arm is free, else what keeps it. Raises `BridgeError`."""
    try:
        client.clear()
    except Refused as refused:
        return f"{refused}; {REFUSALS.get(Refusal(refused.refusal), 'look at the arm')}"
    deadline_s, since_us = clock_s() + RECOVERY_S, None
    while clock_s() < deadline_s:
        try:
            report = client.wait_for_state()
        except LinkLost:
            continue
        show(report)
        if is_latched(report):
            return f"{reason_of(report)}; it was cleared, and the arm is not free"
        now_us = client.link.clock.unwrap(report.device_us)
        since_us = now_us if since_us is None else since_us
        if now_us - since_us > FREE_US:
            return None
    return f"the device has not been heard of for {RECOVERY_S:.0f} s"
