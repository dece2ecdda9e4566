"""The one place where a motion ends, whatever ended it: time, operator, policy, an error, the line, the log.

The arm is stopped and its drive switched off after any arming that was tried, also one that was refused or whose answer
never came: the device may have obeyed all the same.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass

from edge.errors import VlaEdgeError
from edge.run.arm import ConnectedArm
from edge.run.signals import Operator
from edge.run.standstill import bring_to_rest
from firmware_bridge.errors import BridgeError, HandshakeError
from firmware_bridge.messages import StateReport

SAFETY_STOP = "safety stop"


@dataclass(frozen=True)
class End:
    """How a motion ended: "duration", "user", "policy" or "safety stop"; what went wrong, and where in our own code."""

    ended: str
    error: str | None = None
    traceback: str | None = None


def drive(
    connected: ConnectedArm,
    operator: Operator,
    control: Callable[[], End],
    show: Callable[[StateReport], None] = lambda state: None,
) -> End:
    """Switches the drive on, controls, and brings the arm to rest with the drive off.

    Raises what keeps the arm from being armed: `SafetyStop` or `BridgeError` when the device refuses, and
    `KeyboardInterrupt` when the operator was faster. Nothing has moved then.
    """
    connected.standing()
    operator.commit()
    try:
        connected.switch_on()
    except BridgeError as failure:
        _, problem = bring_to_rest(connected.client, show)
        if problem is None:
            raise
        raise HandshakeError(f"{failure}; and the drive may be on: {problem}") from None
    end = End(SAFETY_STOP, "control ended without a word")
    try:
        end = control()
    except (VlaEdgeError, BridgeError) as stop:
        end = End(SAFETY_STOP, str(stop))
    except Exception as failure:
        what = f"an error of vla-edge's own, {type(failure).__name__}: {failure}; please report it"
        end = End(SAFETY_STOP, what, traceback.format_exc())
    finally:
        _, problem = bring_to_rest(connected.client, show)
    if problem is not None:
        end = End(SAFETY_STOP, "; ".join(part for part in (end.error, problem) if part), end.traceback)
    return end
