"""The end of every motion: a controlled stop, then the drive off."""

from __future__ import annotations

import time
from collections.abc import Callable

from firmware_bridge.client import DeviceClient, stop_text
from firmware_bridge.codes import DeviceState
from firmware_bridge.errors import BridgeError
from firmware_bridge.messages import StateReport

STOP_TIMEOUT_S = 5.0


def bring_to_rest(
    client: DeviceClient,
    show: Callable[[StateReport], None] = lambda state: None,
    clock_s: Callable[[], float] = time.monotonic,
) -> tuple[bool, str | None]:
    """Whether the device may still be armed, and what went wrong; None when all is well."""
    try:
        client.stop()
        deadline_s = clock_s() + STOP_TIMEOUT_S
        while clock_s() < deadline_s:
            state = client.wait_for_state()
            show(state)
            if state.state in (DeviceState.HOLD, DeviceState.IDLE):
                if state.state == DeviceState.HOLD:
                    client.disarm()
                return False, None
            if state.state in (DeviceState.FAULT, DeviceState.ESTOP):
                return False, f"the device is in {stop_text(state.state, state.reason)}"
    except BridgeError as failure:
        return True, f"{failure}; the device stops by itself when its heartbeat is missing"
    return True, "the arm did not come to rest"
