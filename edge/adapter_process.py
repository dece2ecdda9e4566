"""An arm that speaks its own protocol, from a bridge URL: `fci:172.16.0.2`. Its adapter is started as a process."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from edge.arms import ArmProfile
from edge.errors import InputError
from firmware_bridge.adapters.franka_options import FORM, JOINTS, FrankaOptions
from firmware_bridge.adapters.velocity import CORRECTION_RAD_S

__all__ = ["FORM", "SCHEME", "AdapterProcess", "DriveUrl"]
SCHEME = "fci:"
START_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class DriveUrl:
    """Where a Franka is, and how it is to be driven."""

    url: str
    address: str
    options: FrankaOptions

    @property
    def is_simulator(self) -> bool:
        """An arm on this machine's loopback can only be a simulated one."""
        return _is_here(self.address)

    @staticmethod
    def parse(url: str) -> DriveUrl:
        """Raises `InputError`. An address of this machine is a simulator's, and needs no real-time kernel."""
        parts = urlsplit(url)
        if parts.scheme != "fci" or not parts.path:
            raise InputError(f"'{url}': write {FORM}")
        try:
            options = FrankaOptions.read(dict(parse_qsl(parts.query, keep_blank_values=True)), _is_here(parts.path))
        except ValueError as error:
            raise InputError(f"'{url}': {error}") from None
        return DriveUrl(url, parts.path, options)

    def check(self, arm: ArmProfile) -> None:
        """What arm and options have to do with one another. Raises `InputError`."""
        axes = JOINTS + self.options.gripper
        if arm.dof != axes:
            raise InputError(
                f"'{self.url}' is an arm of {axes} axes and '{arm.name}' has {arm.dof}; gripper=1 is for a profile "
                "whose eighth axis is the width of the hand"
            )
        if self.options.mode != "velocity":
            return
        for joint, (most, asked) in enumerate(zip(arm.limits.velocity_rad_s, arm.operating.velocity_rad_s), start=1):
            if most - asked < CORRECTION_RAD_S:
                raise InputError(
                    f"'{self.url}': mode=velocity adds up to {CORRECTION_RAD_S} rad/s, and [operating] of '{arm.name}' "
                    f"leaves less below [limits] for joint {joint}; use mode=position, or tighten [operating]"
                )


def _is_here(address: str) -> bool:
    return address.startswith("127.")


class AdapterProcess:
    """`edge-adapter` for this arm, for as long as the run lasts. Raises `InputError` when it does not start.

    `world` is the file in which a simulated camera looks for the pose.
    """

    def __init__(self, arm: str, url: str, trace: Path | None, world: Path | None = None) -> None:
        words = [sys.executable, "-m", "edge.cli.adapter", "--arm", arm, "--drive", url]
        for option, path in (("--trace", trace), ("--world", world)):
            words += [option, str(path)] if path is not None else []
        self.process = subprocess.Popen(
            words,
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
