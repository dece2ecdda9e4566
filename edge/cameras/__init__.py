"""Cameras by URL: `sim:` (the simulated bench), `pattern:` (a moving test pattern)."""

from edge.cameras.base import Camera, CameraError, Frame
from edge.cameras.url import open_camera

__all__ = ["Camera", "CameraError", "Frame", "open_camera"]
