"""Opens the camera that a URL names."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias
from urllib.parse import parse_qsl

from edge.cameras.base import CameraError, FrameSource
from edge.cameras.faults import KINDS, FaultPlan, FaultySource
from edge.cameras.health import HealthLimits
from edge.cameras.pattern import PatternSource
from edge.cameras.recorded import Playback, RecordedSource
from edge.cameras.v4l2 import V4l2Mode, V4l2Source
from edge.cameras.watched import LiveCamera, OnDemandCamera, Watch

FORMS = {
    "v4l2": "v4l2:/dev/videoN?size=WxH&fps=N&fourcc=ABCD",
    "file": "file:PATH?fps=N&end=loop|hold",
    "sim": "sim:?camera=NAME",
    "pattern": "pattern:",
}
OWN_OPTIONS = {"v4l2": {"size", "fps", "fourcc"}, "file": {"fps", "end"}, "sim": {"camera"}, "pattern": set()}
HEALTH_OPTIONS = {"stale_ms", "frozen_ms"}
FAULT_OPTIONS = {f"{kind}_after" for kind in KINDS} | {"for"}
LIVE = ("v4l2", "file")
FOREVER_S = 1e6
WatchedCamera: TypeAlias = LiveCamera | OnDemandCamera


@dataclass(frozen=True)
class CameraUrl:
    """A camera URL, read. `target` is the device, the recording, or the folder of a simulated bench."""

    url: str
    scheme: str
    target: str
    options: dict[str, str]

    @staticmethod
    def parse(url: str) -> CameraUrl:
        """Reads a URL without opening anything. Raises `CameraError`."""
        scheme, colon, rest = url.partition(":")
        if not colon or scheme not in FORMS:
            raise CameraError(f"no camera '{url}'; write {', '.join(FORMS.values())}")
        target, _, query = rest.partition("?")
        options = dict(parse_qsl(query, keep_blank_values=True))
        unknown = sorted(set(options) - OWN_OPTIONS[scheme] - HEALTH_OPTIONS - FAULT_OPTIONS)
        if unknown or (scheme in LIVE and not target) or (scheme == "pattern" and target):
            raise CameraError(
                f"'{url}': write {FORMS[scheme]}" + (f"; unknown option {', '.join(unknown)}" if unknown else "")
            )
        return CameraUrl(url, scheme, target, options)

    def number(self, name: str, least: float = 0.0) -> float | None:
        """The value of an option, None when it was not given. Raises `CameraError`."""
        text = self.options.get(name)
        if text is None:
            return None
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not least <= value < FOREVER_S:
            raise CameraError(f"'{self.url}': {name} must be a number from {least:g}")
        return value


def on_bench(url: str, folder: Path) -> str:
    """The URL with `sim:` and `sim:?OPTIONS` looking at the simulated bench in `folder`."""
    return f"sim:{folder}{url.removeprefix('sim:')}" if url == "sim:" or url.startswith("sim:?") else url


def open_camera(
    url: str, frame_px: tuple[int, int], number: int = 1, clock_ns: Callable[[], int] = time.monotonic_ns
) -> WatchedCamera:
    """Opens a camera that gives frames of `frame_px` (height, width) and waits for its first one.

    `number` is what it is called in messages, counted from 1. Raises `CameraError`.
    """
    parsed = CameraUrl.parse(url)
    open_source = _factory(parsed, frame_px, _fault_plan(parsed, clock_ns()), clock_ns)
    source = open_source()
    watch = Watch(f"camera {number} ({url})", _limits(parsed, HealthLimits.of(source.traits)), source.traits.cure)
    if parsed.scheme not in LIVE:
        return OnDemandCamera(source, watch, clock_ns)
    camera = LiveCamera(source, open_source, watch, clock_ns)
    camera.wait_first()
    return camera


def _factory(
    url: CameraUrl, frame_px: tuple[int, int], plan: FaultPlan | None, clock_ns: Callable[[], int]
) -> Callable[[], FrameSource]:
    def plain() -> FrameSource:
        if url.scheme == "pattern":
            return PatternSource(frame_px, clock_ns)
        if url.scheme == "v4l2":
            return V4l2Source(Path(url.target), _mode(url), frame_px, clock_ns)
        if url.scheme == "file":
            return RecordedSource(Path(url.target), _playback(url), frame_px, clock_ns)
        if not url.target:
            raise CameraError(
                "the camera sim: belongs to a simulated arm; give --bridge sim: or an address of this machine, "
                "or another camera"
            )
        from edge.sim.camera import SimulatedSource  # needs the sim extra, which a robot does not install

        return SimulatedSource(Path(url.target), frame_px, url.options.get("camera"))

    return plain if plan is None else lambda: FaultySource(plain(), plan, clock_ns)


def _mode(url: CameraUrl) -> V4l2Mode:
    size, fourcc = url.options.get("size"), url.options.get("fourcc")
    width, _, height = (size or "").partition("x")
    if size is not None and not (width.isdecimal() and height.isdecimal()):
        raise CameraError(f"'{url.url}': size is WIDTHxHEIGHT, as in size=640x480")
    if fourcc is not None and not (len(fourcc) == 4 and fourcc.isascii()):
        raise CameraError(f"'{url.url}': fourcc has four characters, as in fourcc=MJPG")
    return V4l2Mode((int(height), int(width)) if size else None, url.number("fps", 1.0), fourcc)


def _playback(url: CameraUrl) -> Playback:
    end = url.options.get("end", "loop")
    if end not in ("loop", "hold"):
        raise CameraError(f"'{url.url}': end is loop or hold")
    return Playback(url.number("fps", 0.1), end == "loop")


def _limits(url: CameraUrl, limits: HealthLimits) -> HealthLimits:
    stale_ms, frozen_ms = url.number("stale_ms", 1.0), url.number("frozen_ms")
    if stale_ms is not None:
        limits = replace(limits, stale_ns=round(stale_ms * 1e6))
    if frozen_ms is not None:
        limits = replace(limits, frozen_ns=round(frozen_ms * 1e6) or None)
    return limits


def _fault_plan(url: CameraUrl, now_ns: int) -> FaultPlan | None:
    after = {kind: url.number(f"{kind}_after") for kind in KINDS}
    wanted = [(kind, seconds) for kind, seconds in after.items() if seconds is not None]
    if len(wanted) > 1 or (not wanted and "for" in url.options):
        raise CameraError(f"'{url.url}': name one of {', '.join(f'{kind}_after=S' for kind in KINDS)}, with for=S")
    if not wanted:
        return None
    kind, seconds = wanted[0]
    begins_ns = now_ns + round(seconds * 1e9)
    return FaultPlan(kind, begins_ns, begins_ns + round((url.number("for") or FOREVER_S) * 1e9))
