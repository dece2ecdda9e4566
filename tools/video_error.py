"""What a video codec does to frames of the simulated camera: error, size, speed. `python tools/video_error.py`.

`edge/log/dataset/video.py` takes the first row; docs/howto/data.md has the table.
"""

from __future__ import annotations

import time
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np

from edge.arms import load_arm
from edge.log.dataset.video import CODEC, OPTIONS, PIXELS
from lab.experts.demonstrations import CAMERA, Recorder

COLOURED = 80
"""Difference between the largest and the smallest channel from which a pixel counts as coloured: the cubes."""
TRIALS = (
    (CODEC, PIXELS, OPTIONS),
    ("libx264", "yuv444p", {**OPTIONS, "crf": "18"}),
    ("libx264", "yuv420p", OPTIONS),
    ("libx264", "yuv420p", {**OPTIONS, "crf": "18"}),
    ("libx264rgb", "rgb24", {**OPTIONS, "crf": "0"}),
    ("libsvtav1", "yuv420p", {"crf": "30", "g": "2"}),
)


def measure(frames: np.ndarray, codec: str, pixels: str, options: dict[str, str], path: Path) -> str:
    """One line of the table."""
    begun = time.process_time()
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], pixels
        stream.codec_context.time_base = Fraction(1, 10)
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    encoded = time.process_time()
    with av.open(str(path)) as container:
        decoded = np.array([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    seconds = time.process_time() - encoded
    error = np.abs(decoded.astype(int) - frames)
    coloured = error[frames.max(-1).astype(int) - frames.min(-1) > COLOURED]
    return (
        f"| {codec} | {pixels} | {options['crf']} | {error.mean():.2f} | {coloured.mean():.1f} | "
        f"{np.percentile(coloured, 99):.0f} | {path.stat().st_size / len(frames):.0f} | "
        f"{len(frames) / (encoded - begun):.0f} | {len(frames) / seconds:.0f} |"
    )


def main() -> None:
    recorder, rng = Recorder(load_arm("franka"), with_frames=True), np.random.default_rng(0)
    frames = np.concatenate([np.array(recorder.record(rng).frames[CAMERA]) for _ in range(8)])
    recorder.close()
    print(
        f"{len(frames)} frames of {frames.shape[2]} x {frames.shape[1]}, levels of 255, frames per second of CPU time"
    )
    print("| codec | pixels | crf | mean error | of coloured pixels | their 99 % | bytes a frame | encoded | decoded |")
    print("|---|---|---|---|---|---|---|---|---|")
    with TemporaryDirectory() as folder:
        for codec, pixels, options in TRIALS:
            print(measure(frames, codec, pixels, options, Path(folder) / "video.mp4"))


if __name__ == "__main__":
    main()
