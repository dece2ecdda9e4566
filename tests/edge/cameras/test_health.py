"""Stale, frozen, unplugged: decided on a fake clock, and what the two kinds of camera make of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from edge.cameras.base import CameraError, CameraLost, CameraUnhealthy, Frame, SourceTraits
from edge.cameras.faults import FaultPlan, FaultySource
from edge.cameras.health import HealthLimits, HealthState, fault_of, gone, seen
from edge.cameras.pattern import PatternSource
from edge.cameras.watched import LiveCamera, OnDemandCamera, Watch

MS = 1_000_000
SENSOR = SourceTraits(33 * MS, True, "a sensor", "look at the cable")
LIMITS = HealthLimits.of(SENSOR)


def frame(number: int, at_ms: int, value: int | None = None) -> Frame:
    pixels = np.full((4, 4, 3), number % 256 if value is None else value, np.uint8)
    return Frame(pixels, at_ms * MS, number)


def fault_after(frames: list[Frame], now_ms: int, limits: HealthLimits = LIMITS) -> str | None:
    state = HealthState.opened(0)
    for one in frames:
        state = seen(state, one)
    return fault_of(state, limits, SENSOR.fix, now_ms * MS)


@pytest.mark.parametrize(
    ("period_ms", "never_still", "stale_ms", "frozen_ms"),
    [
        (0, True, 250, 500),
        (33, True, 250, 500),
        (100, True, 300, 1000),
        (500, True, 1500, 5000),
        (33, False, 250, None),
    ],
)
def test_the_limits_grow_with_the_period(
    period_ms: int, never_still: bool, stale_ms: int, frozen_ms: int | None
) -> None:
    limits = HealthLimits.of(SourceTraits(period_ms * MS, never_still, "", ""))
    assert limits == HealthLimits(stale_ms * MS, frozen_ms * MS if frozen_ms else None)


def test_a_camera_that_delivers_is_healthy() -> None:
    assert fault_after([frame(n, 33 * n) for n in range(100)], 33 * 99 + 30) is None


def test_a_camera_without_a_new_frame_is_stale_after_the_limit_and_not_before() -> None:
    frames = [frame(n, 33 * n) for n in range(10)]
    newest_ms = 33 * 9
    assert fault_after(frames, newest_ms + 250) is None
    fault = fault_after(frames, newest_ms + 251)
    assert fault == "is stale (no new frame for over 250 ms); look at the cable"


def test_the_same_frame_again_is_not_a_new_one() -> None:
    frames = [frame(0, 0), *[frame(1, 33)] * 50]
    fault = fault_after(frames, 33 + 251)
    assert fault is not None and fault.startswith("is stale")
    assert fault_after(frames, 100) is None, "50 times the same frame is not 50 equal frames"


def test_before_its_first_frame_a_camera_is_not_healthy() -> None:
    fault = fault_after([], 100)
    assert fault is not None and fault.startswith("has no frame yet")


def test_equal_pixels_under_new_timestamps_are_frozen_after_the_limit_and_not_before() -> None:
    frozen = [frame(n, 33 * n, value=7) for n in range(30)]
    before = [one for one in frozen if one.captured_ns < 500 * MS]
    assert fault_after(before, 500) is None
    fault = fault_after(frozen, 33 * 29)
    assert fault is not None and fault.startswith("is frozen (new frames, but the same pixels for over 500 ms)")


def test_one_changed_pixel_begins_anew() -> None:
    frames = [frame(n, 33 * n, value=7) for n in range(30)]
    changed = frames[20].image.copy()
    changed[3, 3, 2] ^= 1
    frames[20] = replace(frames[20], image=changed)
    assert fault_after(frames, 33 * 29) is None


def test_two_looks_at_the_same_picture_far_apart_are_not_frozen() -> None:
    frames = [*[frame(0, 0, value=1)] * 5, frame(1, 4000, value=1)]
    assert fault_after(frames, 4000) is None


def test_a_picture_that_may_stand_still_is_never_frozen() -> None:
    limits = HealthLimits.of(replace(SENSOR, never_still=False))
    assert fault_after([frame(n, 33 * n, value=7) for n in range(300)], 33 * 299, limits) is None


def test_a_failed_read_is_unplugged_until_the_next_frame() -> None:
    state = gone(seen(HealthState.opened(0), frame(5, 0)), "the device is gone")
    fault = fault_of(state, LIMITS, SENSOR.fix, 10 * MS)
    assert fault == "is unplugged (the device is gone); look at the cable"
    assert fault_of(seen(state, frame(0, 400)), LIMITS, SENSOR.fix, 410 * MS) is None


class Clock:
    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


@pytest.mark.parametrize(
    ("kind", "word"), [("freeze", "is frozen"), ("stall", "is stale"), ("unplug", "is unplugged (simulated fault")]
)
def test_a_simulated_fault_is_found_and_passes(kind: str, word: str) -> None:
    clock = Clock()
    plan = FaultPlan(kind, 1000 * MS, 2500 * MS)  # type: ignore[arg-type]
    source = FaultySource(PatternSource((32, 128), clock), plan, clock)
    camera = OnDemandCamera(source, Watch("camera 1", HealthLimits.of(source.traits), source.traits.fix), clock)
    healthy: dict[int, str | None] = {}
    for at_ms in range(0, 4000, 100):
        clock.now_ns = at_ms * MS
        try:
            camera.grab()
            healthy[at_ms] = None
        except CameraUnhealthy as error:
            healthy[at_ms] = str(error)
    assert all(fault is None for at_ms, fault in healthy.items() if at_ms < 1000 or at_ms >= 2500)
    assert all(word in (fault or "") for at_ms, fault in healthy.items() if 1500 <= at_ms < 2500)
    assert "leave the simulated fault out of its URL" in (healthy[2400] or "") or kind == "freeze"


class ScriptedSource:
    """Frames at 200 Hz until `fails_after` of them, then a lost camera."""

    def __init__(self, fails_after: int = 10**9, value: Callable[[int], int] = lambda n: n % 256) -> None:
        self.traits = replace(SENSOR, period_ns=5 * MS)
        self._fails_after, self._value = fails_after, value
        self._count = 0
        self.closed = False

    def read(self) -> Frame:
        time.sleep(0.005)
        if self._count >= self._fails_after:
            raise CameraLost("cable pulled")
        self._count += 1
        pixels = np.full((4, 4, 3), self._value(self._count), np.uint8)
        return Frame(pixels, time.monotonic_ns(), self._count)

    def close(self) -> None:
        self.closed = True


def live(source: ScriptedSource, reopen: Callable[[], ScriptedSource] | None = None) -> LiveCamera:
    watch = Watch("camera 1", HealthLimits.of(source.traits), source.traits.fix)
    return LiveCamera(source, reopen or ScriptedSource, watch, time.monotonic_ns)


def until(condition: Callable[[], bool], timeout_s: float = 5.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.005)
    return False


def test_the_newest_frame_wins_and_grabbing_does_not_wait() -> None:
    source = ScriptedSource()
    camera = live(source)
    camera.wait_first()
    first = camera.grab().sequence
    assert until(lambda: camera.grab().sequence >= first + 20)
    began = time.perf_counter()
    grabbed = [camera.grab().sequence for _ in range(200)]
    assert time.perf_counter() - began < 0.5, "200 reads would take a second"
    assert grabbed == sorted(grabbed)
    camera.close()
    assert source.closed


def test_a_lost_camera_is_opened_again() -> None:
    opened: list[ScriptedSource] = []
    first = ScriptedSource(fails_after=5)

    def reopen() -> ScriptedSource:
        opened.append(ScriptedSource())
        if len(opened) == 1:
            raise CameraError("still away")
        return opened[-1]

    camera = live(first, reopen)
    camera.wait_first()

    def fault() -> str:
        try:
            camera.grab()
        except CameraUnhealthy as error:
            return str(error)
        return ""

    assert until(lambda: "camera 1 is unplugged (cable pulled)" in fault())
    assert until(lambda: "is unplugged (still away)" in fault()) and first.closed
    assert until(lambda: fault() == ""), "it came back"
    assert len(opened) == 2
    camera.close()


def test_a_camera_that_gives_no_first_frame_cannot_be_opened() -> None:
    def never() -> ScriptedSource:
        raise CameraError("away")

    camera = live(ScriptedSource(fails_after=0), never)
    with pytest.raises(CameraError, match=r"camera 1 gave no frame within 0.1 s \(cable pulled\); look at the cable"):
        camera.wait_first(0.1)


def test_a_live_camera_that_repeats_its_pixels_is_frozen() -> None:
    camera = live(ScriptedSource(value=lambda count: min(count, 10)))
    camera.wait_first()

    def frozen() -> bool:
        try:
            camera.grab()
        except CameraUnhealthy as error:
            return "is frozen" in str(error)
        return False

    assert not frozen()
    assert until(frozen)
    camera.close()
