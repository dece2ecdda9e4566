"""The host's state machine: what the arm is meant to do, against what the device says it does.

```
RUNNING --run out--> ENDING ---+
   |                           v
   +------pause----> STOPPING -> HELD --resume--> RESUMING -> RUNNING
```

Every other stop of the device ends the run. Nothing leaves HELD by itself: `resume` is an operator's word.
"""

from __future__ import annotations

from enum import Enum

from edge.errors import SafetyStop
from firmware_bridge.client import stop_text
from firmware_bridge.codes import DeviceState, StopReason

CURES = {
    StopReason.HEARTBEAT_LOST: "the host was silent for over 100 ms; free its CPU or lower --rate",
    StopReason.BUFFER_EMPTY: "no new chunk came in time; inference is too slow or has stopped",
    StopReason.TRACKING_LOST: "the plan could not be followed within the limits",
    StopReason.TICK_LATE: "the device missed its own 1 kHz tick",
    StopReason.FEEDBACK_LOST: "the drive reports no position",
    StopReason.FOLLOWING_ERROR: "the arm does not follow; look for a collision or a payload",
    StopReason.HOST_ESTOP: "emergency stop",
    StopReason.RATE_WINDOW: "the device's ticks came too fast; its clock or timer is broken",
}


class Motion(Enum):
    """What the arm is meant to do."""

    RUNNING = "running"
    ENDING = "running out"
    """Executes what is committed and comes to rest; nothing more is asked for."""
    STOPPING = "stopping"
    HELD = "held"
    RESUMING = "resuming"


MOVES = (DeviceState.ARMED, DeviceState.STREAMING)
COMES_TO_REST = (*MOVES, DeviceState.DECEL, DeviceState.HOLD)
ALLOWED = {
    Motion.RUNNING: MOVES,
    Motion.ENDING: COMES_TO_REST,
    Motion.STOPPING: COMES_TO_REST,
    Motion.HELD: (DeviceState.HOLD,),
    Motion.RESUMING: (DeviceState.HOLD, DeviceState.ARMED),
}
PLANNED_STOPS = (StopReason.NONE, StopReason.BUFFER_EMPTY, StopReason.HOST_STOP)


def after_report(
    motion: Motion, state: int, reason: int, may_starve: bool = False, paused_by: str | None = None
) -> Motion:
    """The motion after the device reported `state`, which it last stopped for `reason`. Raises `SafetyStop`.

    With `may_starve`, a plan that ran out is not the end of the run: the arm comes to rest and is HELD. `paused_by`
    says why the policy gives no chunk at present, if it says so itself.
    """
    starved = state in (DeviceState.DECEL, DeviceState.HOLD) and reason == StopReason.BUFFER_EMPTY
    if may_starve and motion is Motion.RUNNING and starved:
        motion = Motion.ENDING
    at_rest_by_itself = state in (DeviceState.DECEL, DeviceState.HOLD) and reason not in PLANNED_STOPS
    if state not in ALLOWED[motion] or at_rest_by_itself:
        cure = CURES.get(StopReason(reason)) if reason in set(StopReason) else None
        if starved and paused_by is not None:
            cure = f"the policy was paused: {paused_by}"
        raise SafetyStop(f"the device stopped the arm: {stop_text(state, reason)}" + (f"; {cure}" if cure else ""))
    if motion in (Motion.ENDING, Motion.STOPPING) and state == DeviceState.HOLD:
        return Motion.HELD
    if motion is Motion.RESUMING and state == DeviceState.ARMED:
        return Motion.RUNNING
    return motion
