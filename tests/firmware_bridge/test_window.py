"""The real-time window of the core against a plain reference, at and around its thresholds."""

from __future__ import annotations

import ctypes
import math
from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.codes import MAX_JOINTS
from firmware_bridge.constants import WINDOW_SAMPLES
from tests.firmware_core import Limits, Row, Window, core, fresh

EVERY_US, SLACK_US = 10_000, 2_000
"""VE_WINDOW_EVERY_US and VE_WINDOW_SLACK_US."""


class Reference:
    """Remembers the last samples, at most one per 10 ms, and asks whether each could have been left that far behind."""

    def __init__(self) -> None:
        self.samples: deque[tuple[int, list[float]]] = deque(maxlen=WINDOW_SAMPLES)

    def add(self, q: list[float], now_us: int) -> None:
        if not self.samples or now_us >= self.samples[-1][0] + EVERY_US:
            self.samples.append((now_us, q))

    def holds(self, q: list[float], velocity: list[float], now_us: int) -> bool:
        def reachable(time_us: int, there: list[float]) -> bool:
            seconds = 1e-6 * (float(max(0, now_us - time_us)) + SLACK_US)
            return all(abs(a - b) <= v * seconds for a, b, v in zip(q, there, velocity))

        return all(reachable(*sample) for sample in self.samples)


class Core:
    """The same questions to the C code."""

    def __init__(self) -> None:
        self.library = core()
        self.window = fresh(Window)
        self.clear()

    def clear(self) -> None:
        self.library.ve_window_clear(ctypes.byref(self.window))

    def add(self, q: list[float], now_us: int) -> None:
        self.library.ve_window_add(ctypes.byref(self.window), Row(*q), len(q), now_us)

    def holds(self, q: list[float], velocity: list[float], now_us: int) -> bool:
        limits = Limits(velocity=Row(*velocity))
        return bool(
            self.library.ve_window_holds(ctypes.byref(self.window), Row(*q), ctypes.byref(limits), len(q), now_us)
        )


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_it_judges_as_the_reference_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    joints = int(rng.integers(1, MAX_JOINTS + 1))
    velocity = rng.uniform(0.5, 3.0, joints).tolist()
    window, reference, now_us, q = Core(), Reference(), int(rng.integers(0, 2**40)), [0.0] * joints
    for _ in range(120):
        now_us += int(rng.choice([0, 1, 1000, 4000, 9999, 10_000, 10_001, 30_000, -500]))
        if rng.random() < 0.03:
            window.clear()
            reference = Reference()
        step = rng.uniform(-1, 1, joints) * rng.choice([0.0, 0.001, 0.004, 0.02])
        q = [a + b for a, b in zip(q, step)]
        assert window.holds(q, velocity, now_us) == reference.holds(q, velocity, now_us)
        window.add(q, now_us)
        reference.add(q, now_us)


@pytest.mark.parametrize("joint", [0, 6])
@pytest.mark.parametrize("side", [1.0, -1.0])
@pytest.mark.parametrize("age_us", [0, 1, 10_000, 110_000])
def test_the_reach_is_velocity_times_age_and_slack_and_not_a_hair_more(joint: int, side: float, age_us: int) -> None:
    window, velocity = Core(), [2.0] * 7
    window.add([0.0] * 7, 5_000_000)
    reach = 2.0 * (1e-6 * (age_us + SLACK_US))
    q = [0.0] * 7
    q[joint] = side * reach
    assert window.holds(q, velocity, 5_000_000 + age_us)
    q[joint] = side * math.nextafter(reach, math.inf)
    assert not window.holds(q, velocity, 5_000_000 + age_us)


def test_a_cleared_window_has_forgotten_every_sample() -> None:
    window = Core()
    for index in range(5):
        window.add([float(index)] * 7, 1_000_000 + index * EVERY_US)
    window.clear()
    assert window.holds([100.0] * 7, [1.0] * 7, 1_050_000)
    window.add([100.0] * 7, 1_050_000)
    assert window.holds([100.0] * 7, [1.0] * 7, 1_050_000) and not window.holds([4.0] * 7, [1.0] * 7, 1_050_000)
