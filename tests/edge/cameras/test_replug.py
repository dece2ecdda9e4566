"""What comes back after a replug: the same device, in the same place, or it is not trusted."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.cameras.base import CameraLost, CameraUnhealthy, Frame, SourceTraits
from edge.cameras.health import ALIKE, HealthLimits, HealthState, fault_of, gone, likeness_of, seen, thumbnail
from edge.cameras.identity import identity_of, lasting_name
from edge.cameras.watched import LiveCamera, Watch
from tests.edge.cameras.test_health import until

MS = 1_000_000
SENSOR = SourceTraits(5 * MS, True, "a sensor", "look at the cable", "046d:0825 A at 1-2 MJPG 640x480")
LIMITS = HealthLimits.of(SENSOR)
Picture = NDArray[np.uint8]


def place(seed: int, size: int = 128) -> Picture:
    """A view with a background, objects and a light from one side."""
    draw = np.random.default_rng(seed)
    image = np.full((size, size, 3), draw.integers(40, 200, 3), np.float64)
    image += np.linspace(-40, 40, size)[:, None, None] * draw.choice([-1, 1])
    for _ in range(12):
        top, left = draw.integers(0, size - 20, 2)
        height, width = draw.integers(10, size // 2, 2)
        image[top : top + height, left : left + width] = draw.integers(0, 256, 3)
    return np.clip(image, 0, 255).astype(np.uint8)


def altered(image: Picture, seed: int) -> Picture:
    """The same place a little later: other exposure, noise, moved by two pixels, an object more."""
    draw = np.random.default_rng(seed)
    moved = np.roll(image.astype(np.float64), draw.integers(-2, 3, 2), axis=(0, 1))
    top, left = draw.integers(0, 100, 2)
    moved[top : top + 20, left : left + 20] = draw.integers(0, 256, 3)
    return np.clip(draw.uniform(0.5, 1.4) * moved + draw.normal(0, 8, image.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("seed", range(30))
def test_the_same_place_is_known_again(seed: int) -> None:
    assert likeness_of(thumbnail(place(seed)), thumbnail(altered(place(seed), seed + 1000))) > ALIKE


def test_another_place_is_another_picture() -> None:
    views = [thumbnail(place(seed)) for seed in range(30)]
    likeness = [likeness_of(one, other) for at, one in enumerate(views) for other in views[:at]]
    assert np.mean(np.array(likeness) < ALIKE) > 0.95
    assert likeness_of(thumbnail(place(3)), thumbnail(np.ascontiguousarray(place(3)[::-1, ::-1]))) < ALIKE, (
        "upside down"
    )


@pytest.mark.parametrize("size", [1, 4, 15, 16, 17, 128])
def test_pictures_without_contrast_are_alike_at_any_size(size: int) -> None:
    dark, light = (np.full((size, size + 3, 3), value, np.uint8) for value in (3, 250))
    assert likeness_of(thumbnail(dark), thumbnail(light)) == pytest.approx(1.0)


def test_another_picture_is_not_trusted_until_the_old_one_is_back() -> None:
    state, at_ms = HealthState.opened(0), 0

    def fault(image: Picture) -> str | None:
        nonlocal state, at_ms
        at_ms += 33
        state = seen(state, Frame(image, at_ms * MS, at_ms))
        return fault_of(state, LIMITS, SENSOR.fix, at_ms * MS)

    assert fault(place(1)) is None and fault(place(2)) is None, "while it was there, a picture may change"
    state = gone(state, "the device is gone", Frame(place(1), at_ms * MS, at_ms))
    state = gone(state, "there is no such camera")
    for number in range(5):
        assert "has come back with another picture" in (fault(altered(place(7), number)) or "")
    assert fault(altered(place(1), 0)) is None
    assert fault(place(7)) is None, "trusted again, and free to change"


class Replugged:
    """Frames of a place until the cable is pulled."""

    def __init__(self, image: Picture, frames: int = 10**9, identity: str = SENSOR.identity) -> None:
        self.traits = replace(SENSOR, identity=identity)
        self._image, self._left, self.closed = image, frames, False

    def read(self) -> Frame:
        time.sleep(0.005)
        if self._left == 0:
            raise CameraLost("cable pulled")
        self._left -= 1
        noise = np.random.default_rng(self._left).integers(0, 4, self._image.shape, dtype=np.uint8)
        return Frame(np.minimum(self._image, 250) + noise, time.monotonic_ns(), self._left)

    def close(self) -> None:
        self.closed = True


def fault_with(comes_back: Callable[[], Replugged]) -> Callable[[], str]:
    camera = LiveCamera(Replugged(place(1), 20), comes_back, Watch("camera 1", LIMITS, "fix"), time.monotonic_ns)
    camera.wait_first()

    def fault() -> str:
        try:
            camera.grab()
        except CameraUnhealthy as error:
            return str(error)
        return ""

    return fault


def test_the_camera_that_was_there_is_trusted_again() -> None:
    fault = fault_with(lambda: Replugged(place(1)))
    assert until(lambda: "is unplugged" in fault())
    assert until(lambda: fault() == "")


def test_another_picture_under_the_same_name_is_not() -> None:
    fault = fault_with(lambda: Replugged(place(2)))
    assert until(lambda: "has come back with another picture" in fault())
    time.sleep(0.2)
    assert "has come back with another picture" in fault()


@pytest.mark.parametrize(
    "identity",
    ["", "046d:0825 B at 1-2 MJPG 640x480", "046d:0825 A at 1-3 MJPG 640x480", "046d:0825 A at 1-2 YUYV 640x480"],
)
def test_another_device_is_not_whatever_it_shows(identity: str) -> None:
    """Another serial number, another port, another mode, or one that nothing is known of."""
    back: list[Replugged] = []

    def comes_back() -> Replugged:
        back.append(Replugged(place(1), identity=identity))
        return back[-1]

    fault = fault_with(comes_back)
    assert until(lambda: "another camera came back: it was '046d:0825 A at 1-2" in fault())
    assert back[0].closed


def tree(sys: Path, node: str, port: str, **ids: str) -> None:
    """What the kernel shows of a USB camera."""
    device = sys / "devices" / "usb1" / port
    (device / f"{port}:1.0").mkdir(parents=True, exist_ok=True)
    for name, text in ids.items():
        (device / name).write_text(text + "\n")
    entry = sys / "class" / "video4linux" / node
    entry.mkdir(parents=True, exist_ok=True)
    (entry / "name").write_text("C270 HD WEBCAM\n")
    (entry / "index").write_text("0\n")
    (entry / "device").unlink(missing_ok=True)
    (entry / "device").symlink_to(device / f"{port}:1.0")


def test_a_device_is_known_by_maker_serial_and_port_and_not_by_its_number(tmp_path: Path) -> None:
    ids = {"idVendor": "046d", "idProduct": "0825", "serial": "2A8F"}
    tree(tmp_path, "video0", "1-2", **ids)
    first = identity_of(Path("/dev/video0"), tmp_path)
    assert first == "C270 HD WEBCAM 0 046d 0825 2A8F 1-2"
    tree(tmp_path, "video5", "1-2", **ids)
    assert identity_of(Path("/dev/video5"), tmp_path) == first, "the same camera under another number"
    for port, change in {"1-3": {}, "1-4": {"serial": "77"}, "1-5": {"idProduct": "0826"}}.items():
        tree(tmp_path, "video0", port, **{**ids, **change})
        assert identity_of(Path("/dev/video0"), tmp_path) != first
    assert identity_of(Path("/dev/video9"), tmp_path) == ""


def test_a_name_that_lasts_is_found(tmp_path: Path) -> None:
    device, by_path = tmp_path / "video0", tmp_path / "v4l" / "by-path" / "pci-0000:00:14.0-usb-0:2:1.0-video-index0"
    device.touch()
    assert lasting_name(device, tmp_path) is None
    by_path.parent.mkdir(parents=True)
    by_path.symlink_to(device)
    assert lasting_name(device, tmp_path) == by_path
    by_id = tmp_path / "v4l" / "by-id" / "usb-046d_C270_2A8F-video-index0"
    by_id.parent.mkdir()
    by_id.symlink_to(device)
    assert lasting_name(device, tmp_path) == by_id
    assert lasting_name(by_id, tmp_path) is None, "it is one"
