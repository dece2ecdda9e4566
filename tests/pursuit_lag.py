"""How late an arm is behind a hand, and what the device's limiter has to do: the table of docs/howto/python.md.

`python -m tests.pursuit_lag`: each arm at three speeds of the hand, on a simulated clock through control and the core.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from edge.arms import ArmProfile
from edge.plan.trajectory import FloatArray
from tests.edge.run.test_pursuit import ARMS, Followed
from tests.support import broken_limits

SECONDS = 4.0
SHARES = (0.2, 0.5, 0.8)
"""Of the arm's operating speed, the hand's largest."""
LATE_S = np.arange(0.0, 0.4, 0.01)


def lag(arm: ArmProfile, share: float, trace_file: Path) -> str:
    """A row of the table."""
    home, speed = np.array(arm.home_rad), share * np.array(arm.operating.velocity_rad_s)

    def hand(t: float) -> FloatArray:
        swung: FloatArray = np.clip(
            home + speed / 3 * np.sin(3 * t) ** 3, arm.operating.position_min_rad, arm.operating.position_max_rad
        )
        return swung

    followed = Followed(arm, trace_file, hand)
    trace, counters = followed.run(SECONDS), followed.controller.counters
    times = (trace.tick_us - trace.tick_us[trace.state == "STREAMING"][0]) / 1e6
    during = (times > 0.5) & (times < SECONDS - 0.2)
    away = [
        (np.abs(trace.q[during] - np.array([hand(t - late) for t in times[during]])) / (speed / 3)).max()
        for late in LATE_S
    ]
    at, state = int(np.argmin(away)), followed.rig.client.last_state
    assert state is not None
    limited = 100 * state.interventions / (1e3 * SECONDS)
    found = f"{1e3 * LATE_S[at]:.0f} | {100 * away[at]:.0f} | {counters.refused.total} | {counters.late}"
    return f"| {arm.name} | {100 * share:.0f} % | {found} | {limited:.0f} | {len(broken_limits(trace, arm))} |"


def main() -> int:
    print("| arm | hand | late, ms | away, % | refused | chunks late | limiter, % of ticks | limits passed |")
    print(f"|{'---|' * 8}")
    with tempfile.TemporaryDirectory() as folder:
        for arm in ARMS:
            for share in SHARES:
                print(lag(arm, share, Path(folder) / "trace.csv"), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
