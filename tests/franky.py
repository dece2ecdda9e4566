"""Starts the simulated Franka of `franky_server.py` for a test."""

from __future__ import annotations

import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support import FRANKA

SERVER = Path(__file__).parent / "franky_server.py"
START_TIMEOUT_S = 90.0


@contextmanager
def franky(address: str, *, start_rad: tuple[float, ...] = FRANKA.home_rad, lockstep: bool = False) -> Iterator:
    """The simulator's process, ready for a client at `address`."""
    command = [sys.executable, str(SERVER), address, f"--start={','.join(str(q) for q in start_rad)}"]
    process = subprocess.Popen(command + ["--lockstep"] * lockstep, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], START_TIMEOUT_S)[0] and "ready" in process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
