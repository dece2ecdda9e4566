"""A camera, watched for a second: rate, age, and whether its picture lives."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from edge.cameras import CameraUnhealthy, Frame, WatchedCamera, open_camera
from edge.doctor.check import Check, Status, judged
from edge.errors import VlaEdgeError
from edge.run.report import percentiles

WATCH_NS = 1_000_000_000
WATCH_PERIODS = 15
"""Long enough to distinguish a frozen picture from two equal frames."""
LOOK_S = 0.002
LEAST_RATE = 0.8


def check_camera(
    url: str,
    frame_px: tuple[int, int],
    called: str,
    exact: bool = False,
    clock_ns: Callable[[], int] = time.monotonic_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> Check:
    """Opens the camera and looks through it for a second or 15 periods, whichever is longer."""
    name = f"camera {called}"
    try:
        camera = open_camera(url, frame_px, called, clock_ns, exact)
    except VlaEdgeError as error:
        return Check.failed(name, error)
    try:
        return _watch(name, camera, clock_ns, sleep)
    except CameraUnhealthy as error:
        return Check.failed(name, CameraUnhealthy(str(error).removeprefix(f"{name} ")))
    finally:
        camera.close()


def against_rate(check: Check, step_s: float) -> Check:
    """A camera's check, held against how often a policy looks: one that is slower shows it the same frame twice."""
    rate_hz = check.figures.get("rate_hz")
    if check.status is not Status.OK or rate_hz is None or rate_hz >= LEAST_RATE / step_s:
        return check
    found = f"{check.found}; the policy looks {1 / step_s:.3g} times a second"
    return replace(check, status=Status.WARN, found=found, fix="choose a faster mode (fps=N) or camera")


def _watch(name: str, camera: WatchedCamera, clock_ns: Callable[[], int], sleep: Callable[[float], None]) -> Check:
    traits = camera.traits
    until_ns = clock_ns() + max(WATCH_NS, WATCH_PERIODS * traits.period_ns)
    frames: list[Frame] = []
    ages_ms: list[float] = []
    while clock_ns() < until_ns:
        frame = camera.grab()
        ages_ms.append((clock_ns() - frame.captured_ns) / 1e6)
        if not frames or frame.sequence != frames[-1].sequence:
            frames.append(frame)
        sleep(LOOK_S)
    age = percentiles(ages_ms)
    if not traits.period_ns:
        found = f"{traits.description}, p50 {age['p50']:.1f} ms each"
        return Check(name, Status.OK, found, "", {"age_ms": age})
    passed_s = (frames[-1].captured_ns - frames[0].captured_ns) / 1e9
    rate_hz = (len(frames) - 1) / passed_s if passed_s else 0.0
    nominal_hz = 1e9 / traits.period_ns
    return judged(
        name,
        rate_hz >= LEAST_RATE * nominal_hz,
        f"{traits.description}; {rate_hz:.1f} fps, age p50 {age['p50']:.0f}  p99 {age['p99']:.0f} ms",
        "give it more light or a fixed exposure, another USB port, or a smaller size",
        rate_hz=round(rate_hz, 2),
        nominal_hz=round(nominal_hz, 2),
        age_ms=age,
    )
