"""The progress line of a run, written by a process of its own.

A thread would share the interpreter's lock with the control loop, and a thread that the system has put aside while it
holds that lock stops the loop, whatever its priority. Where stderr is no terminal, the line comes every ten seconds.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import threading
from contextlib import suppress
from typing import Any

import numpy as np
from tqdm import tqdm

from edge.inference.mailbox import Mailbox, SharedMemory
from firmware_bridge.children import start_module
from firmware_bridge.codes import DeviceState
from firmware_bridge.messages import StateReport
from firmware_bridge.printing import print_line

TYPE = np.dtype([("seconds", "<f8"), ("chunks", "<i8"), ("buffered_ms", "<i8"), ("state", "<i8"), ("stretch", "<f8")])
LAYOUT = "{percentage:3.0f}%|{bar:8}| {desc}"
PERIOD_S, LINE_PERIOD_S = 0.25, 10.0
SLOW = 1.05
"""A time-stretch from which on the line names the speed."""


class Progress:
    """How far a run has come; `duration_s` is its planned length, `line_s` the time between lines in a pipe."""

    def __init__(self, duration_s: float, line_s: float = LINE_PERIOD_S) -> None:
        self._record = np.zeros(1, dtype=TYPE)
        memory = SharedMemory(Mailbox.size_of(TYPE))
        self._mailbox = Mailbox(TYPE, memory, 0)
        arguments = ["--memory", str(memory.descriptor), "--duration", str(duration_s), "--line", str(line_s)]
        self._process = start_module("edge.cli.progress", arguments, pass_fds=[memory.descriptor])

    def show(self, seconds: float, chunks: int = -1, state: StateReport | None = None, stretch: float = 1.0) -> None:
        """For the loop: never waits. `chunks` that are committed (-1: none to count), `stretch` of the plan in time."""
        report = (state.buffered_ms, state.state) if state is not None else (0, DeviceState.SILENT)
        self._record[0] = (seconds, chunks, *report, stretch)
        self._mailbox.write(self._record)

    def close(self) -> None:
        """Takes the line away."""
        self._process.terminate()
        self._process.wait()


def line_of(row: np.void, duration_s: float) -> str:
    """What a person reads of one record of `TYPE`."""
    seconds = min(float(row["seconds"]), duration_s)
    text = f"{duration_s - seconds:.1f} of {duration_s:.1f} s left"
    if row["chunks"] < 0:
        return text
    state = DeviceState(int(row["state"])).name
    text += f"; chunks {row['chunks']}, buffer {row['buffered_ms']} ms, {state}"
    return text + (f", {1 / row['stretch']:.0%} speed" if row["stretch"] > SLOW else "")


def main() -> int:
    parser = argparse.ArgumentParser(prog="edge.cli.progress", description=__doc__)
    parser.add_argument("--memory", type=int, required=True)
    parser.add_argument("--duration", type=float, required=True)
    parser.add_argument("--line", type=float, required=True)
    args = parser.parse_args()
    ended = threading.Event()  # an exception in the middle of drawing would leave half a line
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    mailbox = Mailbox(TYPE, SharedMemory(Mailbox.size_of(TYPE), args.memory), 0)
    terminal, seen = sys.stderr.isatty(), 0
    while mailbox.number == 0:
        if ended.wait(PERIOD_S):
            return 0
    shape = shutil.get_terminal_size()  # 80 x 24 where a terminal does not know its size
    options: dict[str, Any] = {"bar_format": LAYOUT, "ncols": shape.columns, "nrows": shape.lines, "leave": False}
    with (
        suppress(OSError),
        tqdm(total=args.duration, disable=not terminal, **options) as bar,
    ):  # a terminal that is gone
        while not ended.wait(PERIOD_S if terminal else args.line):
            found = mailbox.read(seen)
            if found is not None:
                seen, record = found
                text = line_of(record[0], args.duration)
                bar.n = min(float(record["seconds"][0]), args.duration)
                if terminal:
                    bar.set_description_str(text)
                else:
                    print_line(f"edge-run: {text}", sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
