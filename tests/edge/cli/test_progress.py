"""The progress line of a run, on a terminal and in a pipe."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge.cli.progress import TYPE, line_of
from firmware_bridge.codes import DeviceState

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = """
import time
from types import SimpleNamespace
from edge.cli.progress import Progress
progress = Progress(20.0, line_s=0.1)
progress.show(7.25, 15, SimpleNamespace(buffered_ms=960, state=4), 1.0)
time.sleep(5)
progress.close()
"""


def record(*values: float) -> np.void:
    return np.array([values], dtype=TYPE)[0]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (
            (7.25, 15, 960, DeviceState.STREAMING, 1.0),
            "12.8 of 20.0 s left; chunks 15, buffer 960 ms, STREAMING",
        ),
        (
            (25.0, 40, 0, DeviceState.HOLD, 1.6),
            "0.0 of 20.0 s left; chunks 40, buffer 0 ms, HOLD, 62% speed",
        ),
        ((3.0, -1, 0, DeviceState.SILENT, 1.0), "17.0 of 20.0 s left"),
    ],
)
def test_what_a_person_reads(values: tuple[float, ...], text: str) -> None:
    assert line_of(record(*values), 20.0) == text


def test_in_a_pipe_it_is_whole_lines() -> None:
    lines = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=True).stderr
    assert lines == "edge-run: 12.8 of 20.0 s left; chunks 15, buffer 960 ms, STREAMING\n"


def test_on_a_terminal_it_is_one_line_that_goes_away() -> None:
    master, slave = pty.openpty()
    environment = {**os.environ, "COLUMNS": "120"}
    subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, stderr=slave, env=environment, check=True)
    os.set_blocking(master, False)
    drawn = os.read(master, 65536).decode()
    os.close(master)
    os.close(slave)
    assert "36%|" in drawn and "chunks 15, buffer 960 ms" in drawn
    assert "\n" not in drawn and drawn.split("\r")[-1].strip() == ""
