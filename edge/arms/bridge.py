"""The arm behind a bridge URL: its line, and the process that stands behind it where one has to be started."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edge.arms.adapter_process import AdapterProcess
from edge.arms.drives import DRIVES, drive_url
from edge.arms.profile import ArmProfile
from edge.errors import InputError
from firmware_bridge.simulator import SimulatedArm, SimulatorProcess
from firmware_bridge.transports import LINES, LineRate, SerialTransport, Transport

SIMULATED = "sim:"


class Device(Protocol):
    """A process that is the device, at the other end of the pseudo-terminal `port`."""

    @property
    def port(self) -> str: ...

    @property
    def pid(self) -> int: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Bridge:
    """An open line. `rate` is None where nothing limits it, `device` where no process was started."""

    transport: Transport
    rate: LineRate | None = None
    device: Device | None = None

    @property
    def statistics(self) -> dict[str, Any] | None:
        """What the adapter of an arm with a protocol of its own reports of its line; complete once it has ended."""
        return self.device.statistics if isinstance(self.device, AdapterProcess) else None

    def close(self) -> None:
        """Frees the line and ends the process; traces and statistics are complete afterwards."""
        self.transport.close()
        if self.device is not None:
            self.device.close()


def bridge_forms() -> str:
    """How bridge URLs are written, for `--help`."""
    return ", ".join((SIMULATED, DRIVES.forms(), LINES.forms()))


def check_bridge(url: str, arm: ArmProfile | None = None) -> None:
    """Refuses a URL that is written wrongly or does not suit the arm; opens nothing.

    Raises `InputError` or `PortError`.
    """
    drive = drive_url(url)
    if drive is not None and arm is not None:
        drive.check(arm)
    elif drive is None and url != SIMULATED:
        if url.partition(":")[0] not in LINES.names():
            raise InputError(f"no arm at '{url}'; write {bridge_forms()}")
        LINES.read(url)


def is_simulated(url: str) -> bool:
    """Whether a bridge URL can only mean a simulated arm."""
    drive = drive_url(url)
    return url == SIMULATED or (drive is not None and drive.is_simulator)


def open_bridge(url: str, arm: ArmProfile, trace: Path | None = None, world: Path | None = None) -> Bridge:
    """Opens the arm behind a URL. `sim:` is an arm without a scene.

    `trace` and `world` are written by the process behind it: every tick, and the pose for a simulated camera.
    Raises `InputError`, `BridgeError`.
    """
    check_bridge(url, arm)
    if url == SIMULATED:
        return behind(SimulatorProcess(SimulatedArm(arm.name, arm.home_rad, trace=trace, world=world)))
    if drive_url(url) is not None:
        return behind(AdapterProcess(arm.name, url, trace, world))
    line = LINES.read(url)
    return Bridge(line.open(), line.rate)


def behind(device: Device) -> Bridge:
    """The line to a process that was started for it; ends the process when the line does not open."""
    try:
        return Bridge(SerialTransport(device.port), None, device)
    except BaseException:
        device.close()
        raise
