"""Maps the host's monotonic clock to the device's, from four-timestamp exchanges.

The device counts microseconds modulo 2**32; the host unwraps them. An exchange says only that the device read its clock
between two moments of the host's: it bounds `device - host` from both sides. Along the drift, the tightest bounds of
the recent exchanges leave a corridor; its middle is the offset and half its width bounds the error. A late answer makes
its bounds loose and so counts for nothing; bounds that leave no corridor mean that the device's clock jumped.

The drift is the median slope of each bound (Theil and Sen), weighted by how straight that bound is: delays are often
on one way only, and then the other way's bound is a clean line.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import combinations
from statistics import median

WRAP_US = 1 << 32
WINDOW = 48
DRIFT_PRIOR = 100e-6
"""Standard deviation of the drift between two crystals before anything has been measured."""
MOST_DRIFT = 500e-6
"""No two crystals differ by more; a slope that does comes from a jump of one clock."""
RESOLUTION_US = 3.0
"""A bound is never taken to be straighter than this."""
JUMP_US = 100.0
"""Bounds that contradict each other by more than this are a jump; less is noise of the timestamps."""


@dataclass(frozen=True)
class Exchange:
    """Bounds of `device - host` in microseconds, at the host time in the middle of the exchange."""

    host_us: float
    lower_us: float
    upper_us: float


class ClockSync:
    """Estimates `device = host + offset + drift * host`. Pure state: every time comes in as an argument."""

    def __init__(self) -> None:
        self._window: deque[Exchange] = deque(maxlen=WINDOW)
        self._last_device_us: int | None = None
        self._origin_us = 0.0
        self._offset_us = 0.0
        self.drift = 0.0
        self.restarts = 0
        self.uncertainty_us = float("inf")
        """Half the width of the corridor: the error at the times of the exchanges is at most this."""

    def add(self, sent_ns: int, received_ns: int, device_received_us: int, device_sent_us: int) -> None:
        """Takes one exchange: host times of sending and receiving, device times (mod 2**32) in between."""
        device_us = device_received_us if self._last_device_us is None else self.unwrap(device_received_us)
        self._last_device_us = device_us
        busy_us = (device_sent_us - device_received_us) % WRAP_US
        exchange = Exchange(
            host_us=(sent_ns + received_ns) / 2000,
            lower_us=device_us + busy_us - received_ns / 1000,
            upper_us=device_us - sent_ns / 1000,
        )
        self._window.append(exchange)
        if self._fit() < -JUMP_US:
            self._window.clear()
            self._window.append(exchange)
            self.restarts += 1
            self.drift = 0.0
            self._fit()

    def device_us(self, host_ns: int) -> float:
        """Unwrapped device time at a host time."""
        host_us = host_ns / 1000
        return host_us + self._offset_us + self.drift * (host_us - self._origin_us)

    def age_us(self, host_ns: int) -> float:
        """How long ago the last exchange was: the estimate drifts from there on."""
        return max(0.0, host_ns / 1000 - self._origin_us)

    def unwrap(self, device_us: int) -> int:
        """The unwrapped device time, near the last exchange, that the wire carries as `device_us` (modulo 2**32)."""
        last_us = self._last_device_us or 0
        return last_us + (device_us - last_us + WRAP_US // 2) % WRAP_US - WRAP_US // 2

    def _fit(self) -> float:
        """Finds drift and offset; returns half the width of the corridor, negative when there is none."""
        self._origin_us = self._window[-1].host_us
        host = [exchange.host_us - self._origin_us for exchange in self._window]
        bounds = ([e.lower_us for e in self._window], [e.upper_us for e in self._window])
        self.drift = _combined_slope(host, bounds)
        floor, ceiling = (pick(_residuals(host, side, self.drift)) for pick, side in zip((max, min), bounds))
        self._offset_us = (floor + ceiling) / 2
        self.uncertainty_us = abs(ceiling - floor) / 2
        return (ceiling - floor) / 2


def _residuals(host: list[float], side: list[float], slope: float) -> list[float]:
    return [bound - slope * at for at, bound in zip(host, side)]


def _combined_slope(host: list[float], bounds: tuple[list[float], list[float]]) -> float:
    """Slopes of both bounds and the prior's zero, each weighted by the inverse of its variance."""
    centre = sum(host) / len(host)
    spread = sum((at - centre) ** 2 for at in host)
    weights, total = DRIFT_PRIOR**-2, 0.0
    for side in bounds:
        pairs = combinations(zip(host, side), 2)
        slopes = [(b - a) / (later - sooner) for (sooner, a), (later, b) in pairs if later != sooner]
        if not slopes:
            continue
        slope = median(slopes)
        rest = _residuals(host, side, slope)
        middle = median(rest)
        straightness_us = max(RESOLUTION_US, 1.5 * median(abs(value - middle) for value in rest))
        weight = spread / straightness_us**2
        weights, total = weights + weight, total + weight * slope
    return min(max(total / weights, -MOST_DRIFT), MOST_DRIFT)
