"""Camera URLs: what opens, and one clear line for what does not. The kernel's cameras as far as they go without one."""

from __future__ import annotations

import builtins
import os
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.cameras import CameraError, CameraUnhealthy, open_camera
from edge.cameras.base import CameraLost
from edge.cameras.v4l2 import V4l2Camera, V4l2Source, capture_time

MS = 1_000_000
FRAME_PX = (32, 32)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("webcam", "no camera 'webcam'; write v4l2:/dev/videoN"),
        ("rtsp://host/1", "no camera 'rtsp://host/1'; write v4l2:"),
        ("pattern:big", "'pattern:big': nothing may stand after the colon; write pattern:"),
        ("pattern:?colour=1", "unknown option colour"),
        ("pattern:?freeze_after=soon", "freeze_after must be a number from 0"),
        ("pattern:?freeze_after=nan", "freeze_after must be a number from 0"),
        ("pattern:?freeze_after=1&stall_after=1", "name one of freeze_after=S, stall_after=S, unplug_after=S"),
        ("pattern:?for=1", "name one of freeze_after=S"),
        ("pattern:?stale_ms=0", "stale_ms must be a number from 1"),
        ("sim:", "belongs to a simulated arm; give --bridge sim: or an address of this machine"),
        ("v4l2:", "write v4l2:/dev/videoN?size=WxH&fps=N&fourcc=ABCD"),
        (
            "v4l2:/dev/video99",
            "/dev/video99: there is no such camera; plug it in, or name another (ls /dev/v4l/by-id /dev/video*)",
        ),
        ("v4l2:/dev/null?size=640", "size=640: write WIDTHxHEIGHT, as in size=640x480"),
        ("v4l2:/dev/null?fourcc=MJPEG", "fourcc=MJPEG: write four characters, as in fourcc=MJPG"),
        ("v4l2:/dev/null", "/dev/null: cannot be opened as a camera; check its cable"),
        ("file:", "write file:PATH?fps=N&end=loop|hold"),
        ("file:/nowhere.mp4", "/nowhere.mp4: there is no such recording"),
        ("file:/nowhere.mp4?end=stop", "end must be loop or hold, not 'stop'; write file:PATH"),
    ],
)
def test_what_cannot_be_opened_is_one_line(url: str, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CameraError) as caught:
        open_camera(url, FRAME_PX)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", ""), "OpenCV itself says nothing"


@pytest.mark.parametrize("url", ["v4l2:/dev/video0", "file:recording.png"])
def test_without_opencv_the_error_names_the_install_line(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recording.png").touch()
    monkeypatch.chdir(tmp_path)
    real = builtins.__import__

    def without_cv2(name: str, *rest: object, **more: object) -> object:
        if name == "cv2":
            raise ModuleNotFoundError("No module named 'cv2'", name="cv2")
        return real(name, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.delitem(sys.modules, "cv2", raising=False)
    monkeypatch.setattr(builtins, "__import__", without_cv2)
    with pytest.raises(CameraError, match=r"needs cv2, which is missing: pip install 'vla-edge\[camera\]'"):
        open_camera(url, FRAME_PX)


def test_a_folder_of_images_is_a_live_camera(tmp_path: Path) -> None:
    for index in range(20):
        cv2.imwrite(str(tmp_path / f"{index:02d}.jpg"), np.full((48, 64, 3), 10 * index, np.uint8))
    camera = open_camera(f"file:{tmp_path}?fps=50", FRAME_PX)
    first = camera.grab()
    time.sleep(0.2)
    later = camera.grab()
    assert later.sequence > first.sequence and later.captured_ns > first.captured_ns
    assert time.monotonic_ns() - later.captured_ns < 200 * MS
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(CameraUnhealthy, match=r"camera 1 \(file:.*is unplugged"):
        for _ in range(100):
            camera.grab()
            time.sleep(0.02)
    camera.close()


def test_a_fault_outlives_the_reopening_of_its_camera(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((32, 32, 3), np.uint8))
    camera = open_camera(f"file:{tmp_path / 'a.png'}?fps=100&unplug_after=0.2&for=0.8", FRAME_PX)
    opened_s = time.monotonic()
    seen: list[tuple[float, bool]] = []
    while time.monotonic() - opened_s < 3 and not (len(seen) > 2 and seen[-1][1] and not seen[-2][1]):
        try:
            camera.grab()
            seen.append((time.monotonic() - opened_s, True))
        except CameraUnhealthy:
            seen.append((time.monotonic() - opened_s, False))
        time.sleep(0.02)
    camera.close()
    away = [at for at, healthy in seen if not healthy]
    assert away and away[-1] - away[0] > 0.6 and seen[-1][1], "gone for the whole of the fault, and back after it"


def test_health_limits_can_be_set(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((32, 32, 3), np.uint8))
    camera = open_camera(f"file:{tmp_path / 'a.png'}?fps=100&frozen_ms=100", FRAME_PX)
    with pytest.raises(CameraUnhealthy, match="the same pixels for over 100 ms"):
        for _ in range(100):
            camera.grab()
            time.sleep(0.02)
    camera.close()


@pytest.mark.parametrize(
    ("stamp_ms", "expected_ns", "driver"),
    [
        (99_990.0, 99_990 * MS, True),
        (100_000.0, 100_000 * MS, True),
        (100_001.0, 100_000 * MS, False),  # after the reading
        (98_000.0, 100_000 * MS, False),  # two seconds old: some other clock
        (1.8e12, 100_000 * MS, False),  # the time of day
        (0.0, 100_000 * MS, False),
        (-1.0, 100_000 * MS, False),
    ],
)
def test_a_drivers_timestamp_counts_where_it_can_be_monotonic(stamp_ms: float, expected_ns: int, driver: bool) -> None:
    assert capture_time(stamp_ms, 100_000 * MS) == (expected_ns, driver)


class Driver:
    """What a V4L2 driver with one mode answers to OpenCV."""

    def __init__(self, size_px: tuple[int, int] = (480, 640), fps: float = 30.0, fourcc: str = "MJPG") -> None:
        self.found = {
            cv2.CAP_PROP_FRAME_HEIGHT: size_px[0],
            cv2.CAP_PROP_FRAME_WIDTH: size_px[1],
            cv2.CAP_PROP_FPS: fps,
            cv2.CAP_PROP_FOURCC: cv2.VideoWriter.fourcc(*fourcc),
            cv2.CAP_PROP_POS_MSEC: 0.0,
        }
        self.image = np.zeros((*size_px, 3), np.uint8)
        self.plugged = self.opened = True

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return True

    def set(self, name: int, value: float) -> bool:
        return False

    def get(self, name: int) -> float:
        return self.found[name]

    def grab(self) -> bool:
        return self.plugged

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, self.image

    def release(self) -> None:
        self.opened = False


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    found = Driver()
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: found)
    return found


@pytest.mark.parametrize("asked", ["size=1280x720", "fps=60", "fourcc=YUYV", "size=640x480&fps=15"])
def test_a_mode_that_the_driver_does_not_grant_is_refused(asked: str, driver: Driver) -> None:
    with pytest.raises(CameraError, match=r"the driver gives size=640x480&fps=30&fourcc=MJPG; ask for a mode it has"):
        open_camera(f"v4l2:/dev/null?{asked}", FRAME_PX)
    assert not driver.opened


def test_a_frame_smaller_than_the_policys_is_refused(driver: Driver) -> None:
    with pytest.raises(CameraError, match="/dev/null: its 640x480 pixels are too few for the policy's 500x500"):
        V4l2Source(V4l2Camera(Path("/dev/null")), (500, 500))
    assert not driver.opened


def test_frames_carry_the_drivers_time_and_a_camera_that_goes_is_lost(driver: Driver) -> None:
    driver.found[cv2.CAP_PROP_POS_MSEC] = 4990.0
    source = V4l2Source(V4l2Camera(Path("/dev/null"), (480, 640), 30.0, "MJPG"), FRAME_PX, lambda: 5000 * MS)
    assert source.traits.description == (
        "MJPG at 30 fps, 640x480 px, centre 480x480, to 32x32, the driver's timestamps"
    )
    driver.image[240, 320] = (10, 20, 240)
    first, second = source.read(), source.read()
    assert (first.captured_ns, second.sequence - first.sequence) == (4990 * MS, 1)
    assert first.image.max() == first.image[..., 0].max() > 0, "red comes first"
    driver.found[cv2.CAP_PROP_POS_MSEC] = 0.0
    assert source.read().captured_ns == 5000 * MS
    driver.plugged = False
    with pytest.raises(CameraLost, match="gives no frames"):
        source.read()


@pytest.mark.hil
def test_a_real_camera_delivers() -> None:
    device = os.environ.get("VLA_EDGE_CAMERA")
    if device is None:
        pytest.skip("VLA_EDGE_CAMERA names no device, as in VLA_EDGE_CAMERA=/dev/video0")
    source = V4l2Source(V4l2Camera(Path(device)), (128, 128))
    frames = [source.read() for _ in range(30)]
    source.close()
    ages_ms = [(time.monotonic_ns() - frame.captured_ns) / 1e6 for frame in frames[-1:]]
    assert 0 <= ages_ms[0] < 1000
    rises = np.diff([frame.captured_ns for frame in frames])
    assert (rises > 0).all()
    assert 0.5 < np.median(rises) / source.traits.period_ns < 2
    assert len({frame.image.tobytes() for frame in frames}) > 1
