"""Times, tolerances and sizes to which host and device hold each other, each with its meaning.

`make generate` writes them into the C header (`VE_` before the name; those that begin with `HOST_` bind the host alone
and are left out) and into the tables of `PROTOCOL.md`, and puts their values behind their names in its text.
"""

from __future__ import annotations

MIN_LEAD_US = 20_000
"""Least time from the COMMIT of a chunk to its knot 0."""
MAX_START_US = 10_000_000
"""Most time from the COMMIT of a chunk to its knot 0."""
MIN_SPACING_US = 2_000
"""Least time between two knots of a chunk."""
MAX_SPACING_US = 1_000_000
"""Most time between two knots of a chunk."""
CHUNK_SLOTS = 4
"""Chunks in the device's memory: one is being received, the others are committed."""
NOBODY = 255
"""In the joint or knot of a NAK: none is to blame."""
SPLICE_POSITION_RAD = 0.001
"""Most that knot 0 of a chunk may differ from the plan in force, in position."""
SPLICE_VELOCITY_RAD_S = 0.05
"""Most that knot 0 of a chunk may differ from the plan in force, in velocity."""
TRACKING_LIMIT_RAD = 0.05
"""Most that a set-point may be away from the plan."""
POSE_TOLERANCE_RAD = 0.02
"""Most that the measured pose may differ from the one in ARM; a move home has arrived within it."""
HEARTBEAT_LIMIT_US = 100_000
"""Time without a HEARTBEAT with a new `loop_tick` after which the device stops."""
BUFFER_LOW_US = 50_000
"""Less motion than this ahead while streaming: STATE warns."""
STATE_EVERY_TICKS = 10
"""Ticks from one STATE to the next."""
TICK_LATE_TICKS = 3
"""A tick that comes later than this many periods after the one before is a fault."""
WINDOW_SAMPLES = 12
"""Past set-points that the rate watchdog remembers."""
WINDOW_EVERY_US = 10_000
"""Least time between two of them."""
WINDOW_SLACK_US = 2_000
"""Jitter that it allows between the clock and the tick."""
HOST_HEARTBEAT_US = 20_000
"""Most time from one HEARTBEAT of the host to the next."""
HOST_SILENCE_LIMIT_US = 100_000
"""Time without STATE after which the host gives up."""
HOST_CLOCK_LIMIT_US = 1_000
"""Largest uncertainty of the device's clock with which the host may ARM."""
HOST_LOAD_LIMIT = 0.8
"""Largest share of its line that the host may plan for."""
