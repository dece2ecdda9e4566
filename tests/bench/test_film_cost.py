"""The cost of frames in a log: every frame that was taken is written or counted as dropped."""

from __future__ import annotations

from pathlib import Path

from bench.log_cost import FILM_PX, film_cost, film_lines
from edge.log.pictures import read_frames


def test_no_frame_goes_without_being_counted(tmp_path: Path) -> None:
    found = film_cost(1, 1.5, 1, tmp_path, "jpeg")
    frames = found["frames"]
    logged = list(read_frames(tmp_path / "film.mcap"))
    used = [frame for frame in logged if frame.used]
    assert len(used) == frames["used_written"] >= 2 and frames["used_dropped"] == 0
    assert len(logged) - len(used) == frames["written"] and frames["written"] + frames["dropped"] >= 20
    assert used[0].pixels().shape == (*FILM_PX, 3) and found["bytes"] > 100_000
    assert "MB a second" in film_lines(found)[-1]
