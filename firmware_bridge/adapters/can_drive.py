"""What drives of arms on CAN share: a time in which errors are cleared, frames that the bus refused, load and heat."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

from firmware_bridge.adapters.bus_drive import BusDrive
from firmware_bridge.bus_load import CanShare
from firmware_bridge.transports.can_stream import CanBus, CanFrame


class CanDrive(BusDrive[CanBus]):
    """An arm on a CAN bus, whose load is checked before it is opened. Raises `DriveError` where that is too high.

    For `CLEARS_S` after `clear`, an arm's errors are to be cleared and count as no faults.
    """

    CLEARS_S: ClassVar[float]

    def __init__(
        self,
        open_bus: Callable[[], CanBus],
        names: Mapping[int, str],
        load: CanShare,
        notify: Callable[[str], None],
        clock_ns: Callable[[], int],
        sleep: Callable[[float], None],
    ) -> None:
        load.check()
        super().__init__(open_bus, names, notify, clock_ns, sleep)
        self._load = load
        self._clears_until_ns = clock_ns()
        self._refused = self._hottest_c = 0

    @property
    def _is_clearing(self) -> bool:
        return self._clock_ns() < self._clears_until_ns

    def clear(self) -> None:
        super().clear()
        self._clears_until_ns = self._clock_ns() + round(1e9 * self.CLEARS_S)

    def statistics(self) -> dict[str, float]:
        return super().statistics() | {
            "frames_refused": self._refused,
            "temperature_most_c": self._hottest_c,
            "bus_load": round(self._load.share, 3),
        }

    def _send(self, bus: CanBus, frame: CanFrame) -> None:
        self._refused += not bus.send(frame)
