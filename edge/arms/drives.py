"""Arms that speak a protocol of their own, by URL: what opens each, and how its loop runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from edge.arms.profile import ArmProfile
from edge.errors import InputError
from edge.registry import Registry
from firmware_bridge.adapters import ArmDrive
from firmware_bridge.adapters.bus_drive import BRIDGED_PERIODS
from firmware_bridge.bus_load import CanShare
from firmware_bridge.codes import TICK_US
from firmware_bridge.errors import BridgeError
from firmware_bridge.transports.can_stream import DEFAULT_BITRATE, CanBus
from firmware_bridge.transports.python_can import PythonCanBus
from firmware_bridge.url import option

Notify: TypeAlias = Callable[[str], None]


@dataclass(frozen=True)
class DriveUrl:
    """Base of the drivers: a scheme of `--bridge` and of `edge-adapter --drive`, `target` being the arm's address.

    bridged_periods  how many of the core's periods may be missing until the core is informed
    cycle_periods    how many of them the arm's own cycle takes
    idle_us          see `Adapter`
    """

    FORM: ClassVar[str]
    bridged_periods: ClassVar[int]
    cycle_periods: ClassVar[int] = 1
    idle_us: ClassVar[int] = TICK_US - 1
    target: str

    @property
    def is_simulator(self) -> bool:
        """Whether the URL can only mean a simulated arm."""
        return False

    @property
    def latch_name(self) -> str:
        """Under which a fault of this arm is kept beyond the process that has seen it; empty: it is not."""
        return ""

    def check(self, arm: ArmProfile) -> None:
        """Raises `InputError` for options that do not suit this arm; opens nothing."""

    def fitted(self, arm: ArmProfile) -> ArmProfile:
        """The profile, with the operating limits narrowed to what this one arm is known to reach. Raises
        `VlaEdgeError` or `BridgeError`."""
        return arm

    def open(self, arm: ArmProfile, notify: Notify) -> ArmDrive:
        """The drive; `notify` takes lines for a person. Raises `VlaEdgeError` or `BridgeError`."""
        raise NotImplementedError


@dataclass(frozen=True)
class BusUrl(DriveUrl):
    """Base of the drivers of arms on a bus, whose cycle is timed by this computer's own clock."""

    bridged_periods: ClassVar[int] = BRIDGED_PERIODS
    idle_us: ClassVar[int] = BRIDGED_PERIODS * TICK_US


@dataclass(frozen=True)
class CanArmUrl(BusUrl):
    """Base of the drivers of arms on a classic CAN bus, by python-can's names of interface and channel, with a colon
    between them in `target`."""

    bitrate: int = option(DEFAULT_BITRATE, least=1)

    def __post_init__(self) -> None:
        if not all(self.target.partition(":")):
            raise ValueError("a bus has an interface and a channel")

    @property
    def is_simulator(self) -> bool:
        """Buses of python-can that no adapter stands behind."""
        return self.target.partition(":")[0] in ("virtual", "udp_multicast")

    @property
    def latch_name(self) -> str:
        return f"can-{self.target}"

    def load(self, arm: ArmProfile) -> CanShare:
        """What the arm's own frames take of the bus. Raises `InputError`."""
        raise NotImplementedError

    def check(self, arm: ArmProfile) -> None:
        try:
            self.load(arm).check()
        except BridgeError as error:
            raise InputError(f"'{self.target}': {error}") from None

    def open_bus(self) -> CanBus:
        """Raises `PortError`."""
        interface, _, channel = self.target.partition(":")
        return PythonCanBus(interface, channel, self.bitrate, None)


DRIVES: Registry[DriveUrl] = Registry(
    "vla_edge.drives",
    "drive",
    {
        "fci": "edge.arms.franka:FrankaUrl",
        "feetech": "edge.arms.feetech:FeetechUrl",
        "damiao": "edge.arms.damiao:DamiaoUrl",
        "piper": "edge.arms.piper:PiperUrl",
    },
    InputError,
)


def fitted_arm(url: str, arm: ArmProfile) -> ArmProfile:
    """The profile as the arm behind a bridge URL can be operated. Raises `VlaEdgeError` or `BridgeError`."""
    drive = drive_url(url)
    return arm if drive is None else drive.fitted(arm)


def drive_url(url: str) -> DriveUrl | None:
    """The driver of a bridge URL; None for a line to a device that speaks PROTOCOL.md. Raises `InputError`."""
    return DRIVES.read(url) if url.partition(":")[0] in DRIVES.names() else None
