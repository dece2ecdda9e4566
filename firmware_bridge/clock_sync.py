"""Maps the host's monotonic clock to the device's, from four-timestamp exchanges.

The device counts microseconds modulo 2**32; the host unwraps them. Among the recent exchanges only those with a short
round trip are trusted; a line through them gives offset and drift.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

WRAP_US = 1 << 32
WINDOW = 48
TRUSTED_EXCESS_US = 60.0
"""A round trip may exceed the shortest one in the window by half of it and this much, and still be trusted."""
DRIFT_SPAN_US = 2_000_000.0
"""Drift is fitted once the trusted exchanges span this long; before that the clocks are taken to run alike."""
MAX_DRIFT = 500e-6
STEP_US = 2_000.0
STEPS_TO_RESTART = 3


@dataclass(frozen=True)
class Exchange:
    """One exchange: host time at the middle of the round trip, device time there, and how long the trip took."""

    host_us: float
    device_us: float
    round_trip_us: float


class ClockSync:
    """Estimates `device = offset + (1 + drift) * host`. Pure state: every time comes in as an argument."""

    def __init__(self) -> None:
        self._window: deque[Exchange] = deque(maxlen=WINDOW)
        self._origin: Exchange | None = None
        self._last_device_us = 0
        self._suspects = 0
        self._offset_us = 0.0
        self.drift = 0.0
        self.restarts = 0
        self.residual_us = float("inf")

    @property
    def exchanges(self) -> int:
        """Exchanges in the window."""
        return len(self._window)

    @property
    def uncertainty_us(self) -> float:
        """Largest residual of the trusted exchanges plus half of the shortest round trip; infinite before the first."""
        if not self._window:
            return float("inf")
        return self.residual_us + min(exchange.round_trip_us for exchange in self._window) / 2

    def add(self, sent_ns: int, received_ns: int, device_received_us: int, device_sent_us: int) -> None:
        """Takes one exchange: host times of sending and receiving, device times (mod 2**32) in between."""
        device_us = self._advance(device_received_us) + ((device_sent_us - device_received_us) % WRAP_US) / 2
        busy_us = (device_sent_us - device_received_us) % WRAP_US
        exchange = Exchange((sent_ns + received_ns) / 2000, device_us, (received_ns - sent_ns) / 1000 - busy_us)
        if self._stepped(exchange):
            self._window.clear()
            self.restarts += 1
        self._window.append(exchange)
        self._fit()

    def device_us(self, host_ns: int) -> float:
        """Unwrapped device time at a host time."""
        assert self._origin is not None
        return self._origin.device_us + self._offset_us + (host_ns / 1000 - self._origin.host_us) * (1 + self.drift)

    def unwrap(self, device_us: int) -> int:
        """The unwrapped device time, near the last exchange, that the wire carries as `device_us` (modulo 2**32)."""
        ahead = (device_us - self._last_device_us + WRAP_US // 2) % WRAP_US - WRAP_US // 2
        return self._last_device_us + ahead

    def _advance(self, device_us: int) -> int:
        self._last_device_us = self.unwrap(device_us) if self._origin else device_us
        return self._last_device_us

    def _stepped(self, exchange: Exchange) -> bool:
        """Whether the device's clock has jumped: several exchanges in a row that no round trip explains."""
        if self._origin is None:
            self._origin = exchange
            return False
        error = abs(exchange.device_us - self.device_us(round(exchange.host_us * 1000)))
        self._suspects = self._suspects + 1 if error > STEP_US + exchange.round_trip_us else 0
        if self._suspects < STEPS_TO_RESTART:
            return False
        self._suspects = 0
        return True

    def _fit(self) -> None:
        assert self._origin is not None
        shortest = min(exchange.round_trip_us for exchange in self._window)
        limit = 1.5 * shortest + TRUSTED_EXCESS_US
        trusted = [exchange for exchange in self._window if exchange.round_trip_us <= limit]
        host = [exchange.host_us - self._origin.host_us for exchange in trusted]
        gain = [exchange.device_us - self._origin.device_us - at for exchange, at in zip(trusted, host)]
        mean_host, mean_gain = sum(host) / len(host), sum(gain) / len(gain)
        if max(host) - min(host) >= DRIFT_SPAN_US:
            spread = sum((at - mean_host) ** 2 for at in host)
            slope = sum((at - mean_host) * (g - mean_gain) for at, g in zip(host, gain)) / spread
            self.drift = min(max(slope, -MAX_DRIFT), MAX_DRIFT)
        self._offset_us = mean_gain - self.drift * mean_host
        self.residual_us = max(abs(g - self._offset_us - self.drift * at) for at, g in zip(host, gain))
