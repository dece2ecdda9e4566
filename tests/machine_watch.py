"""Notices when the machine itself stands still, as virtual machines do: a run in real time then proves nothing.

`python machine_watch.py CPU` watches one processor at the highest priority it may have, and prints the longest gap and
the sum of all gaps in milliseconds when its standard input closes.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from contextlib import suppress

STEP_S = 0.002
PRIORITY = 95
"""Above that of the loops: `edge.realtime.rights`."""
GAP_S = 0.001
STILL_MS = 15.0
"""A machine that stands still for this long makes a robot lose the 20 periods after which it stops by itself."""
STILL_SHARE = 0.03
"""And one that stands still for this part of the time leaves no line enough of it to agree on the time."""


class MachineWatch:
    """Watches every processor between `with` and its end.

    `longest_ms` is the longest that one of them stood still, `share` the part of the time that the worst one did.
    """

    def __enter__(self) -> MachineWatch:
        self.longest_ms, self.share = 0.0, 0.0
        self._began_s = time.monotonic()
        self._watchers = [
            subprocess.Popen(
                [sys.executable, __file__, str(cpu)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for cpu in sorted(os.sched_getaffinity(0))
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for watcher in self._watchers:
            out, _ = watcher.communicate(timeout=10)
            longest_ms, sum_ms = map(float, out.split())
            self.longest_ms = max(self.longest_ms, longest_ms)
            self.share = max(self.share, sum_ms / 1000 / (time.monotonic() - self._began_s))

    @property
    def pids(self) -> list[int]:
        return [watcher.pid for watcher in self._watchers]

    @property
    def stood_still(self) -> bool:
        return self.longest_ms >= STILL_MS or self.share >= STILL_SHARE


def gaps_s() -> tuple[float, float]:
    """The longest gap and the sum of those that are longer than what waking up takes."""
    longest_s = sum_s = 0.0
    while True:
        before_s = time.monotonic()
        ended = select.select([sys.stdin], [], [], STEP_S)[0]
        gap_s = time.monotonic() - before_s - STEP_S
        longest_s = max(longest_s, gap_s)
        sum_s += gap_s if gap_s > GAP_S else 0.0
        if ended:
            return longest_s, sum_s


if __name__ == "__main__":
    os.sched_setaffinity(0, {int(sys.argv[1])})
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    print(*(1000 * gap_s for gap_s in gaps_s()))
