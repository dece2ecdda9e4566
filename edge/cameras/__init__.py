"""Cameras by URL: a V4L2 device, a recording, the simulated bench, a moving test pattern. See docs/howto/cameras.md."""

from edge.cameras.base import Camera, CameraError, CameraUnhealthy, Frame
from edge.cameras.url import FORMS, CameraUrl, WatchedCamera, on_bench, open_camera

__all__ = [
    "FORMS",
    "Camera",
    "CameraError",
    "CameraUnhealthy",
    "CameraUrl",
    "Frame",
    "WatchedCamera",
    "on_bench",
    "open_camera",
]
