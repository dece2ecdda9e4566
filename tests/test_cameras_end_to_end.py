"""Cameras that fail in mid-run, with the real `edge-run`: a short fault is bridged, a lasting one ends in a stop."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.support import FRANKA, RealRun, broken_limits, states_in_order

pytestmark = pytest.mark.real_time

STOPPED = ["SILENT", "IDLE", "ARMED", "STREAMING", "DECEL", "HOLD", "IDLE"]


@pytest.mark.parametrize(
    ("camera", "why"),
    [
        ("pattern:?freeze_after=3", "is frozen (new frames, but the same pixels for over 500 ms)"),
        ("sim:?unplug_after=3", "is unplugged (simulated fault: unplugged)"),
    ],
)
def test_a_camera_that_fails_for_good_stops_the_arm(tmp_path: Path, bundle_path: Path, camera: str, why: str) -> None:
    run = RealRun(tmp_path, bundle_path, 20, "--camera", camera)
    code, out, err = run.finish()
    assert code == 1
    last = err.strip().splitlines()[-1]
    assert "(buffer empty); the policy was paused: camera front (" in last and why in last
    report = run.report
    assert report["ended"] == "safety stop" and report["duration_s"] < 15
    assert report["pauses"]["count"] == 1 and report["pauses"]["answers"] >= 3
    assert why in report["pauses"]["in_force"] and why in out
    assert states_in_order(run.trace) == STOPPED
    assert broken_limits(run.trace, FRANKA) == []
    assert report["chunks"]["committed"] >= 3


def test_a_camera_that_stalls_briefly_does_not_end_the_run(tmp_path: Path, bundle_path: Path) -> None:
    run = RealRun(tmp_path, bundle_path, 8, "--camera", "sim:?stall_after=3&for=0.75&stale_ms=150")
    code, _, err = run.finish()
    assert code == 0, err
    report = run.report
    assert report["pauses"]["count"] >= 1 and report["pauses"]["in_force"] is None
    assert next(iter(report["pauses"]["reasons"])).endswith("leave the simulated fault out of its URL")
    assert states_in_order(run.trace) == STOPPED and report["duration_s"] > 7.9
    assert broken_limits(run.trace, FRANKA) == []
    assert report["latency_ms"]["observation_to_chunk"]["p50"] >= report["latency_ms"]["request_to_chunk"]["p50"]


@pytest.mark.side_by_side
def test_a_recording_that_is_deleted_in_mid_run_stops_the_arm(tmp_path: Path, bundle_path: Path) -> None:
    video = tmp_path / "recording.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 20.0, (160, 128))
    noise = np.random.default_rng(0)
    for _ in range(40):
        writer.write(noise.integers(100, 140, (128, 160, 3)).astype(np.uint8))
    writer.release()
    run = RealRun(tmp_path, bundle_path, 30, "--camera", f"file:{video}")
    run.wait_until_streaming()
    video.unlink()
    code, _, err = run.finish()
    assert code == 1
    assert "the policy was paused: camera front (file:" in err
    assert "name a video file or a folder of images" in err.splitlines()[-1], "however long its path is"
    assert states_in_order(run.trace) == STOPPED
    assert broken_limits(run.trace, FRANKA) == []
    assert run.report["latency_ms"]["frame_age_at_request"]["max"] > 0
