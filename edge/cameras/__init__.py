"""Cameras by URL: a V4L2 device, a recording, the simulated bench, a moving test pattern. See docs/howto/cameras.md."""

from edge.cameras.base import Camera, CameraDriver, CameraError, CameraUnhealthy, Frame, FrameSource, SourceTraits
from edge.cameras.named import assigned, split_name
from edge.cameras.url import CAMERAS, WatchedCamera, check_camera, looks_at_bench, on_bench, open_camera, read_camera

__all__ = [
    "CAMERAS",
    "Camera",
    "CameraDriver",
    "CameraError",
    "CameraUnhealthy",
    "Frame",
    "FrameSource",
    "SourceTraits",
    "WatchedCamera",
    "assigned",
    "check_camera",
    "looks_at_bench",
    "on_bench",
    "open_camera",
    "read_camera",
    "split_name",
]
