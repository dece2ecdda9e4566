"""Opens the camera that a URL names."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from edge.cameras.base import CameraDriver, CameraError, Frame
from edge.cameras.faults import FaultOptions
from edge.cameras.health import HealthOptions
from edge.cameras.paced import PacedSource
from edge.cameras.watched import LiveCamera, OnDemandCamera, Watch
from edge.registry import Registry

CAMERAS: Registry[CameraDriver] = Registry(
    "vla_edge.cameras",
    "camera",
    {
        "v4l2": "edge.cameras.v4l2:V4l2Camera",
        "file": "edge.cameras.recorded:RecordedCamera",
        "sim": "edge.sim.camera:SimulatedCamera",
        "pattern": "edge.cameras.pattern:PatternCamera",
    },
    CameraError,
)
WatchedCamera: TypeAlias = LiveCamera | OnDemandCamera


def on_bench(url: str, folder: Path) -> str:
    """The URL with `sim:` and `sim:?OPTIONS` looking at the simulated bench in `folder`."""
    return f"sim:{folder}{url.removeprefix('sim:')}" if looks_at_bench(url) else url


def looks_at_bench(url: str) -> bool:
    """Whether a URL means the bench of the run itself."""
    return url == "sim:" or url.startswith("sim:?")


def read_camera(url: str) -> tuple[CameraDriver, HealthOptions, FaultOptions]:
    """A camera's driver, and the options that every camera has; opens nothing. Raises `CameraError`."""
    driver, health, faults = CAMERAS.read_with(url, HealthOptions, FaultOptions)
    return driver, health, faults


def check_camera(url: str) -> None:
    """Before anything is opened: the URL, what its driver needs, whether the camera is there. Raises `CameraError`."""
    driver, _, _ = read_camera(url)
    check = getattr(driver, "check", None)
    if check is not None:
        check()


def open_camera(
    url: str,
    frame_px: tuple[int, int],
    name: str = "1",
    clock_ns: Callable[[], int] = time.monotonic_ns,
    exact: bool = False,
    on_frame: Callable[[Frame], None] | None = None,
    drawn_every_ns: int = 0,
) -> WatchedCamera:
    """Opens a camera that gives frames of `frame_px` (height, width) and waits for its first one.

    `name` is what it is called in messages. With `exact` a camera whose own frames have another size is refused: a cut
    changes the field of view that a policy was trained with. `on_frame` is told every frame, in the thread that takes
    it. A camera that draws on demand does so in a thread of its own where `drawn_every_ns` says how often. Raises
    `CameraError`.
    """
    driver, health, faults = read_camera(url)
    open_source = faults.around(lambda: driver.open(frame_px, clock_ns), clock_ns)
    source = open_source()
    called, native_px = f"camera {name} ({url})", source.traits.native_px
    if exact and native_px not in (None, frame_px):
        source.close()
        assert native_px is not None
        raise CameraError(
            f"{called} gives {native_px[1]}x{native_px[0]} and the policy was trained on {frame_px[1]}x{frame_px[0]}; "
            f"set the camera to that size (of a V4L2 device: size={frame_px[1]}x{frame_px[0]})"
        )
    if source.traits.period_ns == 0 and drawn_every_ns:
        source.close()
        open_drawn, drawn = open_source, source.traits

        def open_source() -> PacedSource:
            return PacedSource(open_drawn, drawn, drawn_every_ns, clock_ns)

        source = open_source()
    watch = Watch(called, health.limits(source.traits), source.traits.fix)
    if source.traits.period_ns == 0:
        return OnDemandCamera(source, watch, clock_ns, on_frame)
    camera = LiveCamera(source, open_source, watch, clock_ns, on_frame)
    camera.wait_first()
    return camera
