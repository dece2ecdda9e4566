"""Frames as a run's cameras give them, from a process of their own: for the cost of a log with frames."""

from __future__ import annotations

import argparse
import json
import threading
import time

import numpy as np
from numpy.typing import NDArray

from edge.cameras import Frame
from edge.inference.film import FrameRings

PICTURES = 8
CHUNK_S = 0.5
"""Between two chunks, each computed from the newest frame of every camera."""
NOISE = 3.0


def pictures(height: int, width: int, seed: int) -> list[NDArray[np.uint8]]:
    """Smooth colours with a sensor's noise, shifted a little from one to the next."""
    rows, columns = np.mgrid[0:height, 0:width]
    draw, found = np.random.default_rng(seed), []
    for number in range(PICTURES):
        waves = [
            60 * np.sin((columns + 9 * number) / (40 + 25 * colour)) + 50 * np.cos(rows / 60) for colour in range(3)
        ]
        image = np.stack(waves, axis=-1) + 128 + draw.normal(0, NOISE, (height, width, 3))
        found.append(np.clip(image, 0, 255).astype(np.uint8))
    return found


def film(
    rings: FrameRings | None, camera: int, made: list[NDArray[np.uint8]], rate_hz: float, ended: threading.Event
) -> None:
    """One camera, in a thread of its own, as in a run."""
    began, number = time.monotonic(), 0
    request, chunk_s = 1, began
    while not ended.wait(max(0.0, began + number / rate_hz - time.monotonic())):
        frame = Frame(made[number % PICTURES].copy(), time.monotonic_ns(), number)
        if rings is not None:
            rings.seen(camera, frame)
            if camera == 0 and time.monotonic() >= chunk_s:
                rings.observed(request, [[frame]] * len(rings.sizes_px))
                request, chunk_s = request + 1, chunk_s + CHUNK_S
        number += 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.film_source", description=__doc__)
    parser.add_argument("--memory", type=int, help="descriptor of the rings; none for cameras that nobody logs")
    parser.add_argument("--sizes", type=json.loads, required=True, help="height and width of each, as JSON")
    parser.add_argument("--rate", type=float, default=30.0)
    args = parser.parse_args()
    sizes = [tuple(size) for size in args.sizes]
    rings = None if args.memory is None else FrameRings(sizes, args.memory)
    ended = threading.Event()
    made = [pictures(size[0], size[1], camera) for camera, size in enumerate(sizes)]
    print("ready", flush=True)
    for camera, of_camera in enumerate(made):
        threading.Thread(target=film, args=(rings, camera, of_camera, args.rate, ended), daemon=True).start()
    input()  # until the measurement is over
    ended.set()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
