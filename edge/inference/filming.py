"""The cameras of a run without a policy: a process of its own takes their frames to the log and to the page."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing

from edge.cameras import CameraUnhealthy, open_camera
from edge.errors import VlaEdgeError
from edge.inference.film import DRAWN_NS, CameraView, FrameOutlets, told
from edge.inference.helper import Helper
from edge.realtime.scheduler import FixedStep
from firmware_bridge.printing import print_line

READY_TIMEOUT_S = 30.0
BACK_NS = 3_000_000_000
"""A camera that gives no frames for so long has been lost, and so is the recording."""


class FilmProcess(Helper):
    """Takes the frames of cameras at `urls`, until it is closed. Raises `InputError` for one that cannot be opened."""

    def __init__(self, urls: Sequence[str], views: Sequence[CameraView], outlets: FrameOutlets) -> None:
        descriptors = outlets.descriptors
        arguments = ["--urls", json.dumps(list(urls)), "--views", json.dumps(views)]
        super().__init__(
            "edge.inference.filming",
            [*arguments, "--outlets", json.dumps(descriptors)],
            list(descriptors.values()),
            READY_TIMEOUT_S,
            f"the cameras were not open after {READY_TIMEOUT_S:.0f} s",
        )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="edge.inference.filming", description=__doc__)
    parser.add_argument("--urls", type=json.loads, required=True, help="of each camera, as JSON")
    parser.add_argument("--views", type=json.loads, required=True, help="name and size of each, as JSON")
    parser.add_argument("--outlets", type=json.loads, required=True, help="descriptors of where frames go to, by name")
    args = parser.parse_args(argv)
    ending: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ending.append(number))
    views = [CameraView(name, tuple(size)) for name, size in args.views]
    try:
        film(args.urls, views, FrameOutlets.opened([view.frame_px for view in views], args.outlets), ending)
    except VlaEdgeError as error:
        print_line(json.dumps({"error": str(error)}), sys.stdout)
        return 1
    return 0


def film(urls: Sequence[str], views: Sequence[CameraView], outlets: FrameOutlets, ending: Sequence[int]) -> None:
    """Until there is something in `ending`. Raises `CameraError` for a camera that is lost for good."""
    with ExitStack() as stack:
        cameras = [
            stack.enter_context(
                closing(open_camera(url, view.frame_px, view.name, on_frame=told(outlets.sinks, number)))
            )
            for number, (url, view) in enumerate(zip(urls, views, strict=True))
        ]
        print_line(json.dumps({"ready": True}), sys.stdout)
        loop, well_ns = FixedStep(DRAWN_NS, time.monotonic_ns, time.sleep), [time.monotonic_ns()] * len(cameras)
        while not ending:
            for number, camera in enumerate(cameras):
                try:
                    camera.grab()  # one that draws on demand draws now; the others say how they are
                    well_ns[number] = time.monotonic_ns()
                except CameraUnhealthy:
                    if time.monotonic_ns() - well_ns[number] > BACK_NS:
                        raise
            loop.wait()


if __name__ == "__main__":
    sys.exit(main())
