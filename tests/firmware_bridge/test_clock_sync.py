"""The mapping between the two clocks, against clocks that drift, wrap, step and answer late."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from firmware_bridge.clock_sync import WRAP_US, ClockSync


class FakeDevice:
    """A device clock with drift and offset behind a line with a round trip drawn by `trip_us`."""

    def __init__(self, ppm: float, offset_us: float, trip_us: Callable[[], tuple[float, float]]) -> None:
        self.ppm, self.offset_us, self.trip_us = ppm, offset_us, trip_us

    def true_us(self, host_us: float) -> float:
        return self.offset_us + host_us * (1 + self.ppm * 1e-6)

    def exchange(self, sync: ClockSync, host_us: float) -> None:
        there_us, back_us = self.trip_us()
        arrival = round(self.true_us(host_us + there_us)) % WRAP_US
        sync.add(round(host_us * 1000), round((host_us + there_us + back_us) * 1000), arrival, arrival)


def handshake(device: FakeDevice, sync: ClockSync) -> None:
    """Probes every 50 ms until the clocks are said to agree within 1 ms, as before arming."""
    for probe in range(40):
        device.exchange(sync, -3e6 + 50e3 * probe)
        if probe >= 8 and sync.uncertainty_us < 1000:
            return


def worst_error_us(device: FakeDevice, sync: ClockSync, from_s: float, seconds: int, learning: int = 10) -> float:
    """Exchanges once a second; the worst prediction at any time in between, once drift has been learnt."""
    worst = 0.0
    for second in range(seconds):
        device.exchange(sync, (from_s + second) * 1e6)
        if second > learning:
            for part in (0.1, 0.5, 0.99):
                host_us = (from_s + second + part) * 1e6
                worst = max(worst, abs(sync.device_us(round(host_us * 1000)) - device.true_us(host_us)))
    return worst


@pytest.mark.parametrize("ppm", [-200, 0, 200])
def test_drift_is_learnt_through_jitter_and_outliers(ppm: float) -> None:
    rng = np.random.default_rng(1)

    def trip() -> tuple[float, float]:
        late = 5000.0 if rng.random() < 0.1 else 0.0
        return 30 + rng.exponential(10), 30 + rng.exponential(10) + late

    sync = ClockSync()
    assert worst_error_us(FakeDevice(ppm, 123_456.0, trip), sync, 0.0, 120) < 100
    assert sync.drift * 1e6 == pytest.approx(ppm, abs=10)
    assert sync.restarts == 0


def test_the_32_bit_wrap_is_not_noticed() -> None:
    sync = ClockSync()
    device = FakeDevice(50, WRAP_US - 30e6, lambda: (40.0, 40.0))
    assert worst_error_us(device, sync, 0.0, 120) < 20
    assert sync.restarts == 0


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("ppm", [-200, 100])
def test_batches_of_16_ms_stay_within_a_millisecond(seed: int, ppm: float) -> None:
    """An FTDI adapter at its default latency timer: answers come up to 16 ms late, requests do not."""
    rng = np.random.default_rng(seed)
    sync = ClockSync()
    device = FakeDevice(ppm, 10e6, lambda: (50.0, rng.uniform(100, 16_000)))
    handshake(device, sync)
    assert worst_error_us(device, sync, 0.0, 120, learning=0) < 1000
    assert sync.uncertainty_us < 1000


def test_a_device_that_starts_again_is_followed() -> None:
    sync = ClockSync()
    device = FakeDevice(0, 5e9, lambda: (30.0, 30.0))
    worst_error_us(device, sync, 0.0, 30)
    device.offset_us = 7e6
    worst_error_us(device, sync, 30.0, 5)
    assert sync.restarts == 1
    host_us = 36e6
    assert sync.device_us(round(host_us * 1000)) % WRAP_US == pytest.approx(device.true_us(host_us), abs=50)


def test_a_second_jump_right_after_the_first_is_a_jump_as_well() -> None:
    """With two exchanges a line goes through any jump: only its slope gives it away."""
    sync = ClockSync()
    device = FakeDevice(20.0, 0.0, lambda: (30.0, 30.0))
    for second, jump_us in enumerate((0.0, 0.0, -124_000.0, -377_000.0, 0.0, 0.0)):
        device.offset_us += jump_us
        device.exchange(sync, 1e6 * second)
    assert sync.restarts == 2
    assert abs(sync.drift) < 200e-6
    assert sync.device_us(5_500_000_000) == pytest.approx(device.true_us(5_500_000.0), abs=100)


def test_one_late_answer_does_not_restart_it() -> None:
    sync = ClockSync()
    device = FakeDevice(0, 0.0, lambda: (30.0, 30.0))
    worst_error_us(device, sync, 0.0, 20)
    device.trip_us = lambda: (30.0, 400_000.0)
    device.exchange(sync, 21e6)
    assert sync.restarts == 0
    assert sync.device_us(22_000_000_000) == pytest.approx(22e6, abs=20)


def test_before_the_first_exchange_nothing_is_certain() -> None:
    assert ClockSync().uncertainty_us == float("inf")
