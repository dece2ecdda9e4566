"""The end of every motion: a controlled stop, then the drive off."""

from __future__ import annotations

import time
from collections.abc import Callable

from firmware_bridge.client import DeviceClient, stop_text
from firmware_bridge.codes import DeviceState
from firmware_bridge.errors import HandshakeError, LinkLost, Refused
from firmware_bridge.messages import StateReport

STOP_TIMEOUT_S = 5.0


def bring_to_rest(
    client: DeviceClient,
    show: Callable[[StateReport], None] = lambda state: None,
    clock_s: Callable[[], float] = time.monotonic,
) -> tuple[bool, str | None]:
    """Whether the device may still be armed, and what went wrong; None when all is well.

    The stop is repeated until the device has answered to it, with whatever word: only then has it read everything that
    was sent before, an arming too, and its reports mean something.
    """
    deadline_s, answered, problem = clock_s() + STOP_TIMEOUT_S, False, "the arm did not come to rest"
    while clock_s() < deadline_s:
        try:
            if not answered:
                answered = _answers_stop(client)
            state = client.wait_for_state()
            show(state)
            if state.state == DeviceState.HOLD:
                client.disarm()
            if state.state in (DeviceState.HOLD, DeviceState.IDLE, DeviceState.SILENT):
                return False, None
            if state.state in (DeviceState.FAULT, DeviceState.ESTOP):
                return False, f"the device is in {stop_text(state.state, state.reason)}"
        except LinkLost as lost:
            return True, f"{lost}; the device stops by itself when its heartbeat is missing"
        except HandshakeError as silent:
            problem = f"{silent}; the device stops by itself when its heartbeat is missing"
    return True, problem


def _answers_stop(client: DeviceClient) -> bool:
    """True. Raises `HandshakeError` while there is no answer; a refusal is one: of an arm that does not move."""
    try:
        client.stop()
    except Refused:
        return True
    return True
