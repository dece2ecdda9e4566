"""`servo-sim` as a process, and what its trace says of the arm's joints."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.servo_bench import OFFSETS, SCALES, SO101, calibration, servos_at

START_S = 20.0


class ServoProcess:
    """Simulated servos on a pseudo-terminal, at home and calibrated unless `options` say otherwise."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.calibration = folder / "so101-calibration.json"
        calibration().write(self.calibration)
        self.trace_file = folder / "shafts.csv"
        start = ",".join(str(round(servo.encoder)) for servo in servos_at(SO101.home_rad).values())
        arguments = [
            "--start",
            start,
            "--offset",
            ",".join(map(str, OFFSETS)),
            "--trace",
            str(self.trace_file),
            *options,
        ]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "firmware_bridge.adapters.feetech.servo_sim", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], START_S)[0], "the simulated servos did not start"
        self.port = str(json.loads(self.process.stdout.readline())["port"])

    @property
    def url(self) -> str:
        return f"feetech:{self.port}?calibration={self.calibration}"

    def command(self, text: str) -> None:
        """One of the arguments that it takes on stdin."""
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def close(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=10)

    def shafts(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Monotonic ns (n,), and joint angles (n, 6) in rad, once the process has ended."""
        lines = self.trace_file.read_text().splitlines()[1:]
        at_ns = np.array([int(line.partition(",")[0]) for line in lines])
        counts = np.array([[float(part) for part in line.split(",")[1:]] for line in lines])
        rows = zip(SCALES, counts.T)
        return at_ns, np.stack([np.array([scale.rad(count) for count in row]) for scale, row in rows], axis=1)
