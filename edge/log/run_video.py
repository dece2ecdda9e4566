"""A finished run as one small video for people: what its cameras saw, side by side, at the speed at which it was."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.log.dataset.video import VideoWriter
from edge.log.mcap_log import LogError
from edge.log.pictures import LoggedFrame, passing_frames
from firmware_bridge.reading import told

FPS = 20
PERIOD_NS = round(1e9 / FPS)
LEAST_HEIGHT_PX = 240
"""Smaller frames are shown larger, by a whole number."""
OPTIONS, PIXELS = {"crf": "23", "preset": "veryfast", "threads": "1"}, "yuv420p"
"""What browsers and players show."""
Pixels = NDArray[np.uint8]


def write_run_video(log: Path, out: Path) -> None:
    """Writes the MP4 of a log's frames; a camera is black before its first one. Raises `LogError`, `OSError`."""
    shown: dict[str, Pixels] = {}
    for frame in passing_frames(log, lambda frame: frame.camera not in shown, "jpeg"):
        shown[frame.camera] = np.zeros_like(_pixels(log, frame))
    if not shown:
        raise LogError(f"{log}: has no frames, so there is no video of it")
    height, width = max(one.shape[0] for one in shown.values()), sum(one.shape[1] for one in shown.values())
    size = height + height % 2, width + width % 2  # the encoder wants even ones
    video, next_ns = VideoWriter(out, FPS, *size, OPTIONS, PIXELS), 0
    try:
        for frame in passing_frames(log, lambda _: True, "jpeg"):
            next_ns = next_ns or frame.host_ns
            while next_ns < frame.host_ns:
                video.write([_side_by_side(shown.values(), *size)])
                next_ns += PERIOD_NS
            shown[frame.camera] = _pixels(log, frame)
        video.write([_side_by_side(shown.values(), *size)])
    except BaseException:
        video.discard()
        raise
    video.close()


def _pixels(log: Path, frame: LoggedFrame) -> Pixels:
    try:
        pixels = frame.pixels()
    except ValueError as error:
        raise LogError(f"{log}: a frame of '{frame.camera}': {told(error)}") from None
    times = -(-LEAST_HEIGHT_PX // len(pixels))
    return pixels.repeat(times, axis=0).repeat(times, axis=1)


def _side_by_side(images: Iterable[Pixels], height_px: int, width_px: int) -> Pixels:
    joined = np.zeros((height_px, width_px, 3), np.uint8)
    left = 0
    for one in images:
        joined[: one.shape[0], left : left + one.shape[1]] = one
        left += one.shape[1]
    return joined
