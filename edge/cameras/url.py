"""Opens the camera that a URL names."""

from __future__ import annotations

from pathlib import Path

from edge.cameras.base import Camera, CameraError
from edge.cameras.pattern import PatternCamera


def open_camera(url: str, frame_px: tuple[int, int]) -> Camera:
    """`pattern:`, or `sim:DIR` with the folder of a simulated bench. Raises `CameraError`."""
    scheme, _, rest = url.partition(":")
    if scheme == "pattern" and not rest:
        return PatternCamera(frame_px)
    if scheme == "sim" and rest:
        from edge.cameras.simulated import SimulatedCamera  # needs the sim extra, which a robot does not install

        return SimulatedCamera(Path(rest), frame_px)
    raise CameraError(f"no camera '{url}'; this version has sim: (with the sim bridge) and pattern:")
