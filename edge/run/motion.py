"""The state machine of a run: what the arm is meant to do, moved on by commands and by the device's reports.

```
RUNNING --run out--> ENDING ---+
   |                           v
   +------pause----> STOPPING -> HELD --resume--> RESUMING -> RUNNING
```

`TABLE` is all of it. A command that it does not list changes nothing; a report that it does not list ends the run.
Nothing leaves HELD by itself: RESUME comes from an operator alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from edge.errors import SafetyStop
from firmware_bridge.client import stop_text
from firmware_bridge.codes import DeviceState, StopReason

FIXES: dict[int, str] = {
    StopReason.HEARTBEAT_LOST: "the host was silent for over 100 ms; free its CPU or lower --rate",
    StopReason.BUFFER_EMPTY: "no new chunk came in time; inference is too slow or has stopped",
    StopReason.TRACKING_LOST: "the plan could not be followed within the limits",
    StopReason.TICK_LATE: "the device missed its own 1 kHz tick",
    StopReason.FEEDBACK_LOST: "the arm has stopped by itself, or reports no position; its adapter says which",
    StopReason.FOLLOWING_ERROR: "the arm does not follow; look for a collision or a payload",
    StopReason.HOST_ESTOP: "emergency stop",
    StopReason.RATE_WINDOW: "the device's ticks came too fast; its clock or timer is broken",
}


class Motion(Enum):
    """What the arm is meant to do."""

    RUNNING = "running"
    ENDING = "running out"
    """Executes what is committed and comes to rest; no more chunks are requested."""
    STOPPING = "stopping"
    HELD = "held"
    RESUMING = "resuming"


class Event(Enum):
    """What moves the state machine on, beside the states that the device reports."""

    PAUSE = "pause"
    RUN_OUT = "run out"
    RESUME = "resume"
    STARVE = "starve"
    """The device stops for an empty buffer."""


TABLE: dict[Motion, dict[Event | int, Motion]] = {
    Motion.RUNNING: {
        DeviceState.ARMED: Motion.RUNNING,
        DeviceState.STREAMING: Motion.RUNNING,
        Event.PAUSE: Motion.STOPPING,
        Event.RUN_OUT: Motion.ENDING,
        Event.STARVE: Motion.ENDING,
    },
    Motion.ENDING: {
        **dict.fromkeys((DeviceState.ARMED, DeviceState.STREAMING, DeviceState.DECEL), Motion.ENDING),
        DeviceState.HOLD: Motion.HELD,
        Event.PAUSE: Motion.STOPPING,
    },
    Motion.STOPPING: {
        **dict.fromkeys((DeviceState.ARMED, DeviceState.STREAMING, DeviceState.DECEL), Motion.STOPPING),
        DeviceState.HOLD: Motion.HELD,
    },
    Motion.HELD: {DeviceState.HOLD: Motion.HELD, Event.RESUME: Motion.RESUMING},
    Motion.RESUMING: {DeviceState.HOLD: Motion.RESUMING, DeviceState.ARMED: Motion.RUNNING},
}
"""By event or reported state. Where the run may not starve, STARVE is none."""
PLANNED_STOPS = (StopReason.NONE, StopReason.BUFFER_EMPTY, StopReason.HOST_STOP)


@dataclass(frozen=True)
class DeviceReport:
    """The device is in `state`, and last stopped for `reason`; `paused_by` is why the policy gives no chunk now."""

    state: int
    reason: int
    paused_by: str | None = None

    @property
    def starved(self) -> bool:
        return self.state in (DeviceState.DECEL, DeviceState.HOLD) and self.reason == StopReason.BUFFER_EMPTY

    @property
    def planned(self) -> bool:
        """Whether it moves, or has stopped for a reason that a run expects."""
        return self.state in (DeviceState.ARMED, DeviceState.STREAMING) or self.reason in PLANNED_STOPS

    def __str__(self) -> str:
        fix = FIXES.get(self.reason)
        if self.starved and self.paused_by is not None:
            fix = f"the policy was paused: {self.paused_by}"
        return f"the device stopped the arm: {stop_text(self.state, self.reason)}" + (f"; {fix}" if fix else "")


class MotionMachine:
    """The motion of one run. With `may_starve` a plan that runs out leaves the arm HELD."""

    def __init__(self, may_starve: bool = False) -> None:
        self._may_starve = may_starve
        self._motion = Motion.RUNNING

    @property
    def motion(self) -> Motion:
        return self._motion

    def update(self, event: Event | DeviceReport) -> bool:
        """Takes one event; whether the motion has changed. Raises `SafetyStop` for a report that is not expected."""
        before = self._motion
        if isinstance(event, Event):
            self._motion = TABLE[before].get(event, before)
        else:
            if event.starved and self._may_starve:
                self.update(Event.STARVE)
            if not event.planned or event.state not in TABLE[self._motion]:
                raise SafetyStop(str(event))
            self._motion = TABLE[self._motion][event.state]
        return self._motion is not before
