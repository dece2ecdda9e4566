"""A device whose clock is slow, as that of a robot that is simulated on shared processors and loses periods.

Ordinary crystals differ by less than a thousandth. What happens here is that device time falls behind the host's
estimate of it by tenths of a second.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from firmware_bridge.codes import DeviceState
from tests.edge.run.test_controller import Run, ended, wave

PERIOD_MS = 4
SLACK_S = 0.003


def starved(seed: int) -> Callable[[int], int]:
    """Inference beside something that wants its processors: 200 to 520 ms, up to 750, and 970 once."""
    draw = random.Random(seed)

    def latency_us(request: int) -> int:
        usual_us = draw.randint(200_000, 520_000) if draw.random() < 0.95 else 750_000
        return 970_000 if request == 20 else usual_us

    return latency_us


def stalls_once(request: int) -> int:
    return 1_000_000 if request == 8 else 40_000


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    with ended(partial(Run, tmp_path / "trace.csv", wave)) as start:
        yield start


def go(run: Run, host_ms: int) -> float:
    """As `Session` does, with the clocks kept; returns how far device time fell behind its estimate at most, us."""
    behind_us = [0.0]
    for _ in range(host_ms // PERIOD_MS):
        run.go(PERIOD_MS)
        run.rig.client.keep_clock(run.rig.host_ns, SLACK_S)
        behind_us.append(run.rig.client.link.clock.device_us(run.rig.host_ns) - run.rig.device.now_us)
    return max(behind_us)


@pytest.mark.parametrize("rate", [0.75, 0.5, 0.25])
@pytest.mark.parametrize("latency_us", [lambda _: 56_000, starved(1)], ids=["56 ms", "starved"])
def test_it_is_given_no_more_chunks_than_it_holds(
    start: Callable[..., Run], rate: float, latency_us: Callable[[int], int]
) -> None:
    run = start(latency_us)
    run.rig.slow_down(rate)
    behind_us = go(run, 24_000)
    counters = run.controller.counters
    assert (counters.refused, counters.interventions) == ([], 0)
    assert run.rig.device.state == DeviceState.STREAMING and counters.least_buffer_ms > 200
    assert behind_us < 80_000, "reports that come late have the clocks compared at once"


@pytest.mark.parametrize("behind_ms, latency_us", [(200, starved(2)), (200, starved(3)), (500, stalls_once)])
def test_what_it_holds_is_counted_by_its_reports(
    start: Callable[..., Run], behind_ms: int, latency_us: Callable[[int], int]
) -> None:
    """Whatever the estimate of its clock says: here nobody compares the clocks any more."""
    run = start(latency_us)
    run.go(2_000)
    run.rig.slow_down(0.5)
    run.go(2 * behind_ms)
    run.rig.slow_down(1.0)
    run.go(16_000)
    assert run.rig.client.link.clock.device_us(run.rig.host_ns) - run.rig.device.now_us == 1000 * behind_ms
    counters = run.controller.counters
    assert (counters.refused, counters.interventions) == ([], 0)
    assert run.rig.device.state == DeviceState.STREAMING and counters.least_buffer_ms > 200
