"""The adapter of an arm that speaks its own protocol, started as a process."""

from __future__ import annotations

import json
import select
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from edge.errors import InputError
from firmware_bridge.children import ended_on_error, start_module

START_TIMEOUT_S = 30.0


class AdapterProcess:
    """`edge-adapter` for this arm, for as long as the run lasts. Raises `InputError` when it does not start.

    `world` is the file in which a simulated camera looks for the pose.
    """

    def __init__(self, arm: str, url: str, trace: Path | None, world: Path | None = None) -> None:
        arguments = ["--arm", arm, "--drive", url, "--overwrite"]  # what the run itself has checked
        for option, path in (("--trace", trace), ("--world", world)):
            arguments += [option, str(path)] if path is not None else []
        self.process = start_module("edge.cli.adapter", arguments, signal.SIGTERM, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        with ended_on_error(self.process):
            ready, _, _ = select.select([self.process.stdout], [], [], START_TIMEOUT_S)
            line = self.process.stdout.readline() if ready else ""
            if not line:
                why = "its message stands above" if ready else f"no word from it in {START_TIMEOUT_S:.0f} s"
                raise InputError(f"the adapter for {url} did not start ({why}); is the arm on, and at this address?")
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
            with suppress(ValueError):  # killed while it wrote them
                self.statistics = json.loads(out.strip().splitlines()[-1])
