"""The page of a finished run: what is in it is what is in the log, and it is looked at in a browser."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.cli.run import main
from edge.doors.view.finished import write_run_page
from edge.log.logged_run import read_run
from edge.log.mcap_log import LogError
from edge.log.pictures import Kept, decoded
from edge.log.records import Record
from tests.edge.doors.view.test_page import BROWSER, NO_BROWSER
from tests.edge.log.test_episodes import FRAME_MS, corrected, corrected_run, shade, with_frames  # noqa: F401

RECORDED = Path(__file__).parents[2] / "run" / "recorded"


def shown(page: Path) -> dict[str, Any]:
    """What the page has of its run."""
    found = re.search(r'<script id="run" type="application/json">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found
    return dict(json.loads(found[1]))


@pytest.mark.parametrize("kept", ["jpeg", "h264"])
def test_the_page_has_the_log_and_fetches_nothing(
    kept: Kept,
    corrected_run: list[Record],  # noqa: F811
    tmp_path: Path,
    capsys: Any,
) -> None:
    corrected, page = with_frames(tmp_path / "run.mcap", corrected_run, kept), tmp_path / "run.html"  # noqa: F811
    assert main(["--replay", str(corrected), "--html", str(page)]) in (0, 2)  # a log of a test ends without an end
    assert f"wrote {page}" in capsys.readouterr().out
    run, log = shown(page), read_run(corrected)
    assert run["joints"] == list(log.arm["joints"]) and [len(chain["frames"]) for chain in run["chains"]] == [7]
    assert len(run["t"]) == len(log.host_ns)
    np.testing.assert_allclose(np.array(run["measured"]).T, log.measured_rad, atol=1e-5)
    assert run["limits"][1] == list(log.arm["operating"]["position_max_rad"])
    counted = {camera["name"]: len(camera["frames"]) for camera in run["cameras"]}
    assert counted == {name: len(seen) for name, seen in log.seen_ns.items()}
    for at, (_, data) in enumerate(run["cameras"][1]["frames"]):
        pixels = decoded(b64decode(data))
        assert data.startswith("/9j/") and abs(float(pixels.mean()) - shade(FRAME_MS * at)) < 2, "JPEGs, in order"
    assert len(run["person"]) == 1 and run["person"][0][1] > run["person"][0][0] + 0.5, "the take-over is shown"
    joined = [one for one in run["chunks"] if one["joined"] is not None]
    assert joined and all(0 <= one["joined"] - one["told"] < 3 for one in joined)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page.read_text())


def test_it_says_why_the_run_stopped(tmp_path: Path) -> None:
    for name, why, bad in (("stop", "Stopped: ", True), ("reach", "Ended: ", False)):
        write_run_page(RECORDED / f"{name}.mcap", tmp_path / "run.html")
        run = shown(tmp_path / "run.html")
        assert run["why"].startswith(why) and run["bad"] is bad, run["why"]


def test_what_is_no_page_is_not_written_over(tmp_path: Path, capsys: Any) -> None:
    other = tmp_path / "notes.html"
    other.write_text("<!doctype html>my notes")
    log = str(RECORDED / "reach.mcap")
    assert main(["--replay", log, "--html", str(other)]) == 2
    assert other.read_text() == "<!doctype html>my notes" and "name another" in capsys.readouterr().err
    assert main(["--replay", log, "--html", log]) == 2
    with pytest.raises(SystemExit, match="2"):
        main(["--arm", "franka", "--to-home", "--html", str(tmp_path / "run.html")])
    empty = tmp_path / "empty.mcap"
    empty.write_bytes(b"")
    with pytest.raises(LogError):
        write_run_page(empty, tmp_path / "run.html")
    assert not (tmp_path / "run.html").exists()


@pytest.mark.skipif(BROWSER is None, reason=NO_BROWSER)
def test_the_slider_shows_every_moment_in_a_browser(corrected: Path, tmp_path: Path) -> None:  # noqa: F811
    from playwright.sync_api import sync_playwright

    write_run_page(corrected, tmp_path / "run.html")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 390, "height": 860})
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto((tmp_path / "run.html").as_uri())
        seen = []
        for moment in (0.5, 2.5):
            page.locator("#time").fill(str(moment))
            picture = page.locator(".camera img").first.get_attribute("src")
            seen.append((picture, page.locator(".links").get_attribute("d")))
        assert seen[0][0] != seen[1][0] and seen[0][1] != seen[1][1], "the frame and the arm move with the slider"
        wide = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert wide[0] <= wide[1] and complaints == []
        browser.close()
