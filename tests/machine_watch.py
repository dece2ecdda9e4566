"""Notices when the machine itself stands still, as virtual machines do: a run in real time then proves nothing.

`python machine_watch.py CPU` watches one processor at the highest priority it may have, and prints the longest gap in
milliseconds when its standard input closes.
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
"""Above that of the loops: `edge.realtime`."""


class MachineWatch:
    """Watches every processor between `with` and its end; `longest_ms` is the longest that one of them stood still."""

    def __enter__(self) -> MachineWatch:
        self.longest_ms = 0.0
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
            self.longest_ms = max(self.longest_ms, float(out))


def longest_gap_s() -> float:
    longest_s = 0.0
    while True:
        before_s = time.monotonic()
        if select.select([sys.stdin], [], [], STEP_S)[0]:
            return longest_s
        longest_s = max(longest_s, time.monotonic() - before_s - STEP_S)


if __name__ == "__main__":
    os.sched_setaffinity(0, {int(sys.argv[1])})
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    print(1000 * longest_gap_s())
