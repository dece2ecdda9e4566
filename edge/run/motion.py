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
    StopReason.FEEDBACK_LOST: "the drive reports no position",
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
    """What moves the state machine on: three commands, and the reports of the device by their meaning."""

    PAUSE = "pause"
    RUN_OUT = "run out"
    RESUME = "resume"
    ARMED = "armed"
    STREAMING = "streaming"
    SLOWING = "slowing down for a planned stop"
    AT_REST = "at rest after a planned stop"
    STARVING = "slowing down for an empty buffer"
    STARVED = "at rest after an empty buffer"


_SLOWS = (Event.ARMED, Event.STREAMING, Event.SLOWING, Event.STARVING)
_RESTS = (Event.AT_REST, Event.STARVED)
TABLE: dict[Motion, dict[Event, Motion]] = {
    Motion.RUNNING: {
        Event.ARMED: Motion.RUNNING,
        Event.STREAMING: Motion.RUNNING,
        Event.PAUSE: Motion.STOPPING,
        Event.RUN_OUT: Motion.ENDING,
    },
    Motion.ENDING: {
        **dict.fromkeys(_SLOWS, Motion.ENDING),
        **dict.fromkeys(_RESTS, Motion.HELD),
        Event.PAUSE: Motion.STOPPING,
    },
    Motion.STOPPING: {**dict.fromkeys(_SLOWS, Motion.STOPPING), **dict.fromkeys(_RESTS, Motion.HELD)},
    Motion.HELD: {**dict.fromkeys(_RESTS, Motion.HELD), Event.RESUME: Motion.RESUMING},
    Motion.RESUMING: {**dict.fromkeys(_RESTS, Motion.RESUMING), Event.ARMED: Motion.RUNNING},
}
MAY_STARVE = {Event.STARVING: Motion.ENDING, Event.STARVED: Motion.HELD}
"""Added to RUNNING where a plan that runs out is not the end of the run."""
_MOVES: dict[int, Event] = {DeviceState.ARMED: Event.ARMED, DeviceState.STREAMING: Event.STREAMING}
_STOPS: dict[int, dict[int, Event]] = {
    DeviceState.DECEL: {
        **dict.fromkeys((StopReason.NONE, StopReason.HOST_STOP), Event.SLOWING),
        StopReason.BUFFER_EMPTY: Event.STARVING,
    },
    DeviceState.HOLD: {
        **dict.fromkeys((StopReason.NONE, StopReason.HOST_STOP), Event.AT_REST),
        StopReason.BUFFER_EMPTY: Event.STARVED,
    },
}
"""By reason: a device that moves bears that of an earlier stop, which no longer matters."""


@dataclass(frozen=True)
class DeviceReport:
    """The device is in `state`, and last stopped for `reason`; `paused_by` is why the policy gives no chunk now."""

    state: int
    reason: int
    paused_by: str | None = None

    @property
    def event(self) -> Event | None:
        """What it means; None for what no run expects."""
        return _MOVES.get(self.state) or _STOPS.get(self.state, {}).get(self.reason)

    def __str__(self) -> str:
        fix = FIXES.get(self.reason)
        if self.event in MAY_STARVE and self.paused_by is not None:
            fix = f"the policy was paused: {self.paused_by}"
        return f"the device stopped the arm: {stop_text(self.state, self.reason)}" + (f"; {fix}" if fix else "")


class MotionMachine:
    """The motion of one run. With `may_starve` a plan that runs out leaves the arm HELD."""

    def __init__(self, may_starve: bool = False) -> None:
        self._table = {**TABLE, Motion.RUNNING: TABLE[Motion.RUNNING] | (MAY_STARVE if may_starve else {})}
        self._motion = Motion.RUNNING

    @property
    def motion(self) -> Motion:
        return self._motion

    def update(self, event: Event | DeviceReport) -> bool:
        """Takes one event; whether the motion has changed. Raises `SafetyStop` for a report that is not expected."""
        row, before = self._table[self._motion], self._motion
        if isinstance(event, DeviceReport):
            if event.event not in row:
                raise SafetyStop(str(event))
            self._motion = row[event.event]
        else:
            self._motion = row.get(event, before)
        return self._motion is not before
