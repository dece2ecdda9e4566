"""The adapter of an arm that speaks its own protocol, as a process; and the URL of a Franka, `fci:172.16.0.2`."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from edge.errors import InputError

FORM = "fci:ADDRESS?realtime=enforce|ignore"
START_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class DriveUrl:
    """Where the arm is, and whether libfranka is to insist on a real-time kernel."""

    address: str
    enforce_realtime: bool

    @staticmethod
    def parse(url: str) -> DriveUrl:
        """Raises `InputError`. An address of this machine is a simulator's, and needs no real-time kernel."""
        parts = urlsplit(url)
        options = parse_qs(parts.query, keep_blank_values=True)
        wanted = options.pop("realtime", ["ignore" if parts.path.startswith("127.") else "enforce"])[-1]
        if parts.scheme != "fci" or not parts.path or options or wanted not in ("enforce", "ignore"):
            raise InputError(f"'{url}': write {FORM}")
        return DriveUrl(parts.path, wanted == "enforce")


class AdapterProcess:
    """`edge-adapter` for this arm, for as long as the run lasts. Raises `InputError` when it does not start."""

    def __init__(self, arm: str, url: str, trace: Path | None) -> None:
        words = [sys.executable, "-m", "edge.cli.adapter", "--arm", arm, "--drive", url]
        self.process = subprocess.Popen(
            [*words, *(["--trace", str(trace)] if trace else [])],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C in the terminal is the run's to handle
        )
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], START_TIMEOUT_S)
        line = self.process.stdout.readline() if ready else ""
        if not line:
            self.close()
            raise InputError(f"the adapter for {url} did not start (its message stands above)")
        self.port = str(json.loads(line)["port"])
        self.statistics: dict[str, Any] = {}

    @property
    def pid(self) -> int:
        return self.process.pid

    def close(self) -> None:
        """Ends it; `statistics` and the trace are complete afterwards."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            out, _ = self.process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, _ = self.process.communicate()
        if out.strip():
            self.statistics = json.loads(out.strip().splitlines()[-1])
