"""Frames in a log: those of chunks without a loss, the others as JPEG; whatever has no room is counted."""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from mcap.reader import make_reader

from edge.cameras import Frame
from edge.inference.film import CameraView, FrameRings, NewestFrames
from edge.log.frame_video import KEY_FRAMES, VideoDecoder, VideoEncoder
from edge.log.mcap_log import LogError, LogReader
from edge.log.pictures import SCHEMA, LoggedFrame, decoded, encoded, frame_of, passing_frames, read_frames
from edge.log.records import Kind, Loop
from edge.log.run_log import RunLog
from tests.edge.log.test_log import wait_for

SEQUENCE_SET = b"\0\0\0\1\x67"
"""Begins a key frame in Annex B: what a decoder needs."""
VIEWS = (CameraView("front", (24, 32)), CameraView("wrist", (16, 16)))


def picture(view: CameraView, number: int) -> Frame:
    """Noise, which no lossy code keeps."""
    image = np.random.default_rng(number).integers(0, 256, (*view.frame_px, 3), dtype=np.uint8)
    return Frame(image, time.monotonic_ns(), number)


def drawn(view: CameraView, number: int) -> Frame:
    """A flat colour that a video keeps, another one each time."""
    image = np.full((*view.frame_px, 3), (40 + 40 * number) % 200, dtype=np.uint8)
    return Frame(image, time.monotonic_ns(), number)


def record(path: Path, frames: int, every: int = 3) -> tuple[RunLog, list[Frame]]:
    """A log of some frames of two cameras, of which every third was used for a chunk."""
    log, used = RunLog(path), list[Frame]()
    log.prepare({}, VIEWS)
    log.open()
    assert log.frames is not None
    for number in range(frames):
        seen = [picture(view, number) for view in VIEWS]
        for camera, frame in enumerate(seen):
            log.frames.seen(camera, frame)
        if number % every == 0:
            log.frames.observed(number + 1, [[frame] for frame in seen])
            used += seen
        wait_for(lambda: log.frames is not None and log.frames.passing.used == 0)
    return log, used


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1), (24, 33)])
@pytest.mark.parametrize("kind", ["noise", "flat", "extremes", "turned"])
def test_a_png_holds_every_pixel(size: tuple[int, int], kind: str) -> None:
    draw = np.random.default_rng(7)
    pixels = draw.integers(0, 256, (*size, 3), dtype=np.uint8)
    if kind == "flat":
        pixels[:] = 200
    elif kind == "extremes":
        pixels = np.where(pixels < 128, 0, 255).astype(np.uint8)
    elif kind == "turned":
        pixels = pixels[::-1, ::-1]
    assert np.array_equal(decoded(encoded(pixels, "png")), pixels)


def test_frames_come_back_and_those_of_chunks_to_the_last_bit(tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    log, used = record(path, 9)
    assert log.close() is None
    frames = list(read_frames(path))
    kept = [frame for frame in frames if frame.used]
    assert len(frames) == 18 + 6 and [frame.camera for frame in kept] == ["front", "wrist"] * 3
    for frame, before in zip(kept, used):
        assert np.array_equal(frame.pixels(), before.image)
        assert (frame.host_ns, frame.sequence) == (before.captured_ns, before.sequence)
        assert frame.request == before.sequence + 1 and frame.data.startswith(b"\x89PNG")
    passing = [frame for frame in frames if not frame.used]
    assert all(frame.data.startswith(b"\xff\xd8") and frame.sha256 == "" for frame in passing)
    with path.open("rb") as file:
        found = [(s, c, json.loads(m.data)) for s, c, m in make_reader(file).iter_messages() if "/camera" in c.topic]
    for schema, channel, content in found:
        assert schema is not None and schema.name == "foxglove.CompressedImage"
        assert channel.topic.startswith(f"/camera/{content['frame_id']}")
        assert set(content) == set(json.loads(schema.data)["properties"])
    assert log.summary()["frames"] == {"written": 18, "dropped": 0, "used_written": 6, "used_dropped": 0}
    assert list(LogReader(path).records()), "the journal reads as ever"


def test_frames_as_video_come_back_in_order_and_those_of_chunks_to_the_last_bit(tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    log = RunLog(path, kept="h264")
    log.prepare({}, VIEWS)
    log.open()
    assert log.frames is not None
    made = [[drawn(view, number) for view in VIEWS] for number in range(KEY_FRAMES + 5)]
    for number, seen in enumerate(made):
        for camera, frame in enumerate(seen):
            log.frames.seen(camera, frame)
        if number % 10 == 0:
            log.frames.observed(number + 1, [[frame] for frame in seen])
        wait_for(lambda: log.frames is not None and log.frames.passing.used == 0)
    assert log.close() is None
    kept = [frame for frame in read_frames(path) if frame.used]
    assert all(np.array_equal(frame.pixels(), made[frame.sequence][frame.camera == "wrist"].image) for frame in kept)
    assert len(kept) == 2 * 4
    for view in VIEWS:
        frames = [frame for frame in read_frames(path) if not frame.used and frame.camera == view.name]
        assert [frame.sequence for frame in frames] == list(range(len(made)))
        begins = [frame.sequence for frame in frames if frame.data.startswith(SEQUENCE_SET)]
        assert begins == [0, KEY_FRAMES], "a viewer may come in at each"
    for frame in passing_frames(path, lambda _: True, "png"):
        before = made[frame.sequence][frame.camera == "wrist"]
        assert frame.host_ns == before.captured_ns
        assert np.abs(frame.pixels().astype(int) - before.image).mean() < 4, "of 40 between two frames"
    with path.open("rb") as file:
        names = {c.topic: s.name for s, c, _ in make_reader(file).iter_messages() if s and "/camera" in c.topic}
    assert names["/camera/front"] == "foxglove.CompressedVideo" and names["/camera/front/used"] == SCHEMA


def test_frames_that_cannot_be_a_video_are_refused_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"--log-frames h264: frames of 33x24; H\.264 wants even sides"):
        RunLog(tmp_path / "run.mcap", kept="h264").prepare({}, [*VIEWS, CameraView("odd", (24, 33))])


@pytest.mark.parametrize("data", [b"", b"\0\0\0\1", b"\0\0\0\1\x65" + bytes(90), bytes(range(256))])
def test_what_is_no_frame_of_a_video_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="no frame of a video"):
        VideoDecoder(1 << 20).decode(data)
    large = VideoEncoder(64, 64).encode(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(ValueError, match="no frame of a video"):
        VideoDecoder(64 * 64 - 1).decode(large)


def test_a_writer_that_is_held_up_costs_frames_and_no_record(tmp_path: Path) -> None:
    """Whoever takes the frames never waits, and the frames of chunks have room of their own."""
    path = tmp_path / "run.mcap"
    log, _ = record(path, 1)
    assert log.process is not None and log.frames is not None
    os.kill(log.process.pid, signal.SIGSTOP)
    for number in range(200):
        log.frames.seen(0, picture(VIEWS[0], number))
        log.journal.put(Kind.LOOP, Loop.body(number, 0, 0))
        if number % 20 == 0:
            log.frames.observed(number + 2, [[picture(view, number)] for view in VIEWS])
    os.kill(log.process.pid, signal.SIGCONT)
    assert log.close() is None
    counts = log.summary()["frames"]
    assert counts["dropped"] > 100 and counts["used_dropped"] == 0 and counts["used_written"] == 2 + 20
    assert counts["written"] + counts["dropped"] == 202
    assert sum(record.kind is Kind.LOOP for record in LogReader(path).records()) == 200


def test_a_full_disk_drops_frames_counts_them_and_does_not_end_the_run(tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    log, _ = record(path, 1)
    assert log.process is not None and log.frames is not None
    wait_for(lambda: path.stat().st_size > 0)
    resource.prlimit(log.process.pid, resource.RLIMIT_FSIZE, (path.stat().st_size, resource.RLIM_INFINITY))
    told = None
    deadline = time.monotonic() + 20
    for number in range(2000):
        log.frames.seen(0, picture(VIEWS[0], number))
        log.frames.observed(number + 2, [[picture(view, number)] for view in VIEWS])
        told = log.check() or told
        if log.summary()["frames"]["used_dropped"] or time.monotonic() > deadline:
            break
        time.sleep(0.005)
    assert log.summary()["frames"]["used_dropped"] > 0
    while told is None and time.monotonic() < deadline:  # its writer says so when it has got there
        told = log.check()
        time.sleep(0.005)
    assert told is not None and "the log ends early" in told and log.close() == told


def test_a_frame_that_was_changed_is_not_what_was_logged() -> None:
    pixels = picture(VIEWS[0], 1).image
    frame = LoggedFrame("front", 0, 0, 1, 0, "0" * 64, encoded(pixels, "png"), "png")
    with pytest.raises(ValueError, match="do not have the hash"):
        frame.pixels()


@pytest.mark.parametrize(
    "data", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", encoded(np.zeros((9, 9, 3), np.uint8), "png")[:-30]]
)
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="no picture"):
        decoded(data)


@pytest.mark.parametrize("change", [{"data": "!"}, {"request": "1"}, {"format": 4}, {"frame_id": 3}, {"sha256": None}])
def test_a_frame_that_makes_no_sense_is_refused(change: dict[str, object]) -> None:
    whole = {"frame_id": "front", "data": "", "sha256": "", "host_ns": 1, "sequence": 1, "request": 1, "part": 0}
    whole["format"] = "png"
    assert frame_of("/camera/front", json.dumps(whole).encode()) is not None
    with pytest.raises(ValueError):
        frame_of("/camera/front", json.dumps({**whole, **change}).encode())


def test_a_page_has_the_newest_frame_a_few_times_a_second() -> None:
    newest = NewestFrames([view.frame_px for view in VIEWS])
    assert newest.newest(0) is None
    first, second = picture(VIEWS[0], 1).image, picture(VIEWS[0], 2).image
    newest.seen(0, Frame(first, 1_000_000_000, 0))
    newest.seen(0, Frame(second, 1_050_000_000, 1))
    other = NewestFrames(newest.sizes_px, newest.memory.descriptor).newest(0)
    assert other is not None and other[0] == 1_000_000_000 and np.array_equal(other[1], first)
    newest.seen(0, Frame(second, 1_250_000_000, 2))
    found = newest.newest(0)
    assert found is not None and np.array_equal(found[1], second) and newest.newest(1) is None


def test_frames_of_two_cameras_keep_their_place_in_a_ring() -> None:
    rings = FrameRings([view.frame_px for view in VIEWS])
    rings.seen(1, picture(VIEWS[1], 5))
    rings.seen(0, picture(VIEWS[0], 6))
    from edge.inference.film import unpacked

    found = [unpacked(data) for data in iter(rings.passing.pop, None)]
    assert [(head.camera, head.sequence, pixels.shape) for head, pixels in found] == [
        (1, 5, (16, 16, 3)),
        (0, 6, (24, 32, 3)),
    ]
