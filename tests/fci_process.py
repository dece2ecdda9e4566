"""`fci-sim` as a process: a Franka that says no, at a loopback address, for an unmodified libfranka."""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

START_TIMEOUT_S = 30.0


class FciProcess:
    """Started and listening. `say` writes a word on its stdin; `end` stops it and returns what it says of the robot."""

    def __init__(self, address: str, *arguments: str) -> None:
        command = [sys.executable, "-m", "firmware_bridge.adapters.fci_sim.server", "--address", address, *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], START_TIMEOUT_S)[0], "fci-sim does not start"
        assert json.loads(self.process.stdout.readline())["simulated"] is True

    def say(self, words: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{words}\n")
        self.process.stdin.flush()

    def end(self) -> dict[str, Any]:
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=10)
        told: dict[str, Any] = json.loads(out.splitlines()[-1])
        return told

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@contextmanager
def fci_sim(address: str, *arguments: str) -> Iterator[FciProcess]:
    """The simulator's process, which is gone afterwards."""
    process = FciProcess(address, *arguments)
    try:
        yield process
    finally:
        process.kill()
