"""The progress bar of a run, drawn by a process of its own.

A thread would share the interpreter's lock with the control loop, and a thread that the system has put aside while it
holds that lock stops the loop, whatever its priority.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time

import numpy as np
from tqdm import tqdm

from edge.inference.mailbox import Mailbox, SharedMemory

TYPE = np.dtype([("seconds", "<f8")])
LAYOUT = "{l_bar}{bar}| {n:.1f}/{total:.1f} s"
PERIOD_S = 0.25


class Progress:
    """How far a run has come; drawn where somebody looks, and nowhere else."""

    def __init__(self, duration_s: float) -> None:
        self._record = np.zeros(1, dtype=TYPE)
        self._process: subprocess.Popen[bytes] | None = None
        if not sys.stderr.isatty():
            return
        memory = SharedMemory(Mailbox.size_of(TYPE))
        self._mailbox = Mailbox(TYPE, memory, 0)
        words = ["--memory", str(memory.descriptor), "--duration", str(duration_s)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edge.cli.progress", *words], pass_fds=[memory.descriptor]
        )

    def show(self, seconds: float) -> None:
        """For the loop."""
        if self._process is not None:
            self._record["seconds"] = seconds
            self._mailbox.write(self._record)

    def close(self) -> None:
        """Takes the bar away."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(prog="edge.cli.progress", description=__doc__)
    parser.add_argument("--memory", type=int, required=True)
    parser.add_argument("--duration", type=float, required=True)
    args = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    mailbox, seen, parent = Mailbox(TYPE, SharedMemory(Mailbox.size_of(TYPE), args.memory), 0), 0, os.getppid()
    while mailbox.number == 0 and os.getppid() == parent:
        time.sleep(PERIOD_S)
    with tqdm(total=args.duration, bar_format=LAYOUT, desc="edge-run", leave=False) as bar:
        while os.getppid() == parent:
            found = mailbox.read(seen)
            if found is not None:
                seen, record = found
                bar.n = min(float(record["seconds"][0]), args.duration)
                bar.refresh()
            time.sleep(PERIOD_S)
    return 0


if __name__ == "__main__":
    sys.exit(main())
