"""Recordings through OpenCV, and the way from a camera's image to the policy's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge.cameras.base import CameraError, CameraLost, Frame
from edge.cameras.images import centre_crop, fit, fit_text
from edge.cameras.recorded import RecordedCamera, RecordedSource

FRAME_PX = (32, 32)
MS = 1_000_000


class Clock:
    """Time passes by sleeping only."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)


def level(index: int) -> int:
    return 20 + 20 * index


def write_images(folder: Path, count: int = 5) -> Path:
    folder.mkdir()
    for index in range(count):
        cv2.imwrite(str(folder / f"{index:03d}.png"), np.full((48, 64, 3), level(index), np.uint8))
    return folder


def write_video(path: Path, count: int = 10, fps: float = 20.0) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (64, 48))
    assert writer.isOpened()
    for index in range(count):
        writer.write(np.full((48, 64, 3), level(index), np.uint8))
    writer.release()
    return path


def indices(frames: list[Frame]) -> list[int]:
    return [round((float(frame.image.mean()) - 20) / 20) for frame in frames]


def source(path: Path, clock: Clock, **options: Any) -> RecordedSource:
    return RecordedSource(RecordedCamera(path, **options), FRAME_PX, clock, clock.sleep)


def test_a_video_plays_at_its_own_rate_and_loops(tmp_path: Path) -> None:
    clock = Clock()
    played = source(write_video(tmp_path / "a.avi"), clock)
    frames = [played.read() for _ in range(23)]
    assert indices(frames) == [*range(10), *range(10), 0, 1, 2]
    assert [frame.captured_ns for frame in frames] == [50 * MS * n for n in range(23)]
    assert [frame.sequence for frame in frames] == list(range(23))
    assert played.traits.period_ns == 50 * MS and "recorded at 20 fps, 64x48 px" in played.traits.description


def test_images_play_in_the_order_of_their_names_and_hold_at_the_end(tmp_path: Path) -> None:
    clock = Clock()
    played = source(write_images(tmp_path / "i"), clock, fps=10.0, end="hold")
    frames = [played.read() for _ in range(8)]
    assert indices(frames) == [0, 1, 2, 3, 4, 4, 4, 4]
    assert {frame.captured_ns for frame in frames[4:]} == {400 * MS}, "the last frame grows old"
    assert clock.now_ns >= 600 * MS, "reading past the end does not spin"


@pytest.mark.parametrize("make", [lambda path: write_images(path, 10), lambda path: write_video(path)])
def test_a_reader_that_was_away_gets_the_frame_that_is_due(tmp_path: Path, make: object) -> None:
    clock = Clock()
    played = source(make(tmp_path / "a.avi"), clock, fps=20.0)  # type: ignore[operator]
    assert indices([played.read()]) == [0]
    clock.sleep(0.3)
    assert indices([played.read(), played.read()]) == [6, 7]
    clock.sleep(0.35)  # past the end: 14 is the fourth of the second round
    assert indices([played.read()]) == [4]


def test_a_single_image_is_a_recording_of_one(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "i", 3)
    played = source(folder / "002.png", Clock())
    assert indices([played.read(), played.read()]) == [2, 2]


def test_playing_begins_with_the_first_read_however_late_it_is(tmp_path: Path) -> None:
    clock = Clock()
    played = source(write_images(tmp_path / "i", 3), clock, fps=10.0, end="hold")
    clock.sleep(5.0)
    first = played.read()
    assert indices([first, played.read()]) == [0, 1] and first.captured_ns == 5000 * MS


def test_colours_come_out_as_rgb(tmp_path: Path) -> None:
    red_bgr = np.zeros((48, 64, 3), np.uint8)
    red_bgr[..., 2] = 200
    cv2.imwrite(str(tmp_path / "red.png"), red_bgr)
    frame = source(tmp_path / "red.png", Clock()).read()
    assert frame.image.shape == (32, 32, 3) and frame.image.dtype == np.uint8
    assert frame.image[16, 16].tolist() == [200, 0, 0]


def test_a_video_that_is_deleted_or_cut_is_lost(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi")
    played = source(path, Clock())
    played.read()
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(CameraLost, match=r"a.avi was cut short"):
        played.read()
    path.unlink()
    with pytest.raises(CameraLost, match=r"a.avi is gone"):
        played.read()


def test_an_image_that_is_deleted_or_damaged_is_lost(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "i")
    played = source(folder, Clock())
    played.read()
    (folder / "001.png").write_bytes(b"not an image")
    with pytest.raises(CameraLost, match=r"001.png is damaged"):
        played.read()
    (folder / "001.png").unlink()
    with pytest.raises(CameraLost, match=r"001.png is gone"):
        played.read()


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mp4").write_text("hello")
    small = tmp_path / "small.png"
    cv2.imwrite(str(small), np.zeros((20, 20, 3), np.uint8))
    for name, message in (
        ("nothing", "there is no such recording"),
        ("empty", "in this folder; name a video or images"),
        ("text.mp4", "no frame that can be read; name a video file"),
        ("small.png", "its 20x20 pixels are too few for the policy's 32x32"),
    ):
        with pytest.raises(CameraError, match=message):
            source(tmp_path / name, Clock())


@pytest.mark.parametrize(
    ("size_px", "frame_px", "rows", "columns"),
    [
        ((480, 640), (128, 128), (0, 480), (80, 560)),
        ((640, 480), (128, 128), (80, 560), (0, 480)),
        ((480, 640), (120, 160), (0, 480), (0, 640)),
        ((720, 1280), (120, 160), (0, 720), (160, 1120)),
        ((128, 128), (128, 128), (0, 128), (0, 128)),
    ],
)
def test_the_crop_is_the_largest_centred_one_of_the_policys_aspect(
    size_px: tuple[int, int], frame_px: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    assert centre_crop(size_px, frame_px) == (slice(*rows), slice(*columns))


def test_a_circle_stays_a_circle() -> None:
    picture = np.zeros((240, 426, 3), np.uint8)
    cv2.circle(picture, (213, 120), 60, (255, 255, 255), -1)
    fitted = fit(picture, (64, 64))[..., 0] > 127
    height, width = np.ptp(np.nonzero(fitted.any(axis=1))[0]), np.ptp(np.nonzero(fitted.any(axis=0))[0])
    assert abs(int(height) - int(width)) <= 1
    assert fit_text((240, 426), (64, 64)) == "426x240 px, centre 240x240, to 64x64"


def test_shrinking_averages_over_areas() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    assert np.unique(fit(stripes, (32, 32))).tolist() == [100]


def test_an_image_of_the_policys_size_is_not_touched() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    assert np.array_equal(fit(picture, (32, 32)), picture[..., ::-1])


def test_grey_images_are_refused() -> None:
    with pytest.raises(CameraError, match="not 8-bit colour"):
        fit(np.zeros((64, 64), np.uint8), (32, 32))
