"""What every camera must offer, whatever stands behind its URL. One joins by a bench in `BENCHES` (docs/extend.md)."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.cameras import CAMERAS, FrameSource, open_camera, read_camera
from edge.sim.bench import DrawnBench
from edge.sim.world import WorldWriter
from tests.edge.cameras.test_url import Driver
from tests.support import FRANKA

FRAME_PX = (32, 32)


def v4l2(folder: Path, patch: pytest.MonkeyPatch) -> str:
    patch.setattr(cv2, "VideoCapture", lambda *_: Driver())
    return "v4l2:/dev/null"


def recording(folder: Path, patch: pytest.MonkeyPatch) -> str:
    for number in range(3):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((48, 64, 3), 80 * number, np.uint8))
    return f"file:{folder}?fps=100"


def simulated(folder: Path, patch: pytest.MonkeyPatch) -> str:
    bench = DrawnBench(FRANKA, 0, folder)
    WorldWriter(bench.world_file, FRANKA.dof).publish(0, FRANKA.home_rad, FRANKA.home_rad)
    return bench.camera_url


BENCHES = {"v4l2": v4l2, "file": recording, "sim": simulated, "pattern": lambda folder, patch: "pattern:"}


def test_every_camera_has_a_bench() -> None:
    assert set(BENCHES) == set(CAMERAS.builtin)


@pytest.fixture(scope="module", params=BENCHES)
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        yield BENCHES[request.param](tmp_path_factory.mktemp("camera"), patch)


@pytest.fixture
def source(url: str) -> Iterator[FrameSource]:
    source = read_camera(url)[0].open(FRAME_PX, time.monotonic_ns)
    yield source
    source.close()


def test_frames_are_what_a_policy_sees(source: FrameSource) -> None:
    opened_ns = time.monotonic_ns()
    frames = [source.read() for _ in range(4)]
    for frame in frames:
        assert frame.image.dtype == np.uint8 and frame.image.shape == (*FRAME_PX, 3)
        assert abs(frame.captured_ns - opened_ns) < 5e9, "the host's monotonic clock"
    assert all(after.sequence > before.sequence for before, after in itertools.pairwise(frames))
    assert all(after.captured_ns >= before.captured_ns for before, after in itertools.pairwise(frames))


def test_it_describes_itself(source: FrameSource) -> None:
    traits = source.traits
    assert traits.period_ns >= 0 and traits.description and traits.fix
    assert not {"\n", "."} & {traits.description[-1], traits.fix[-1]}, "a part of a line, not a line"


def test_health_and_faults_are_every_cameras(url: str) -> None:
    camera = open_camera(f"{url}{'&' if '?' in url else '?'}stale_ms=60000&frozen_ms=0&unplug_after=60", FRAME_PX)
    try:
        assert camera.grab().image.shape == (*FRAME_PX, 3)
        assert camera.traits.fix == "leave the simulated fault out of its URL"
    finally:
        camera.close()
