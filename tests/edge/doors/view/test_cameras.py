"""Cameras on the live page: the newest frame, its age, what is stale; and what stays after an emergency stop."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge.cameras import Frame
from edge.doors.view.launch import LiveView
from edge.inference.film import CameraView
from edge.log.pictures import decoded
from tests.edge.doors.view.test_page import BROWSER, NO_BROWSER, port_of, says_gone, token_of
from tests.edge.run.test_controller import Run
from tests.support import FRANKA

VIEWS = (CameraView("front", (48, 64)), CameraView("wrist", (32, 32)))
ABOUT = {
    "arm": "test",
    "joints": list(FRANKA.joints),
    "units": ["rad"] * 7,
    "parts": [],
    "task": "wave",
    "bridge": "sim:",
    "step_ms": 100,
    "limits": [FRANKA.operating.position_min_rad, FRANKA.operating.position_max_rad],
}


@pytest.fixture
def live() -> Iterator[LiveView]:
    view = LiveView(7, ABOUT, cameras=VIEWS)
    yield view
    view.close()


def show(view: LiveView, camera: int, shade: int, age_ns: int = 0) -> int:
    """A grey frame; returns when it was captured."""
    assert view.frames is not None
    at_ns = time.monotonic_ns() - age_ns
    view.frames.seen(camera, Frame(np.full((*VIEWS[camera].frame_px, 3), shade, np.uint8), at_ns, 0))
    return at_ns


def frame(view: LiveView, camera: str, after: str = "0", token: str | None = None) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port_of(view), timeout=5)
    headers = {"X-Token": token_of(view) if token is None else token, "X-Camera": camera, "X-After": after}
    connection.request("GET", "/frame", headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body, dict(answer.getheaders())


def test_a_page_is_given_each_frame_once_and_its_age(live: LiveView) -> None:
    assert frame(live, "0")[0] == 204, "there is none yet"
    at_ns = show(live, 0, 90, age_ns=700_000_000)
    status, body, headers = frame(live, "0")
    assert status == 200 and headers["X-Captured"] == str(at_ns) and 700 <= int(headers["X-Age-Ms"]) < 5000
    assert decoded(body).shape == (48, 64, 3) and abs(float(decoded(body).mean()) - 90) < 1
    assert frame(live, "0", str(at_ns))[0] == 204 and frame(live, "1")[0] == 204
    assert frame(live, "0", token="wrong")[0] == 401
    assert [frame(live, camera)[0] for camera in ("2", "-1", "x")] == [400, 400, 400]


@pytest.mark.real_time
@pytest.mark.side_by_side
@pytest.mark.skipif(BROWSER is None, reason=NO_BROWSER)
@pytest.mark.parametrize("width", [1280, 390])
def test_frames_are_shown_and_stale_ones_marked_in_a_browser(live: LiveView, tmp_path: Path, width: int) -> None:
    from playwright.sync_api import expect, sync_playwright

    run = Run(tmp_path / "trace.csv")
    run.go(3000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": width, "height": 860})
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(f"{message.text} {message.location['url']}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(live.url)
        live.publish(run.controller, None)
        boxes = page.locator(".camera")
        expect(boxes).to_have_count(2, timeout=10_000)
        show(live, 1, 200)
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:  # one camera goes on, the other has stopped
            show(live, 0, 60)
            live.publish(run.controller, None)
            page.wait_for_timeout(100)
        expect(boxes.nth(0)).not_to_have_class("camera stale")
        expect(boxes.nth(1)).to_have_class("camera stale")
        expect(boxes.nth(1)).to_contain_text("STALE")
        sizes = "images => images.map(image => [image.naturalWidth, image.naturalHeight])"
        assert page.locator(".camera img").evaluate_all(sizes) == [[64, 48], [32, 32]]
        expect(page.locator("#reaction")).to_contain_text("reaction:")
        wide = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert wide[0] <= wide[1], "nothing is cut off at the side"
        page.screenshot(path=str(tmp_path / f"cameras-{width}.png"), full_page=True)
        run.rig.client.estop()
        live.publish_report(run.rig.state(), 2)
        live.note("emergency stop by the operator")
        expect(page.locator("#state")).to_have_text("emergency stop", timeout=10_000)
        assert complaints == []
        live.close()
        page.wait_for_timeout(2500)
        expect(page.locator("#note")).to_contain_text("The run is over: emergency stop by the operator")
        expect(boxes.nth(0)).to_contain_text("the last frame")
        page.screenshot(path=str(tmp_path / f"over-{width}.png"), full_page=True)
        browser.close()
    assert [text for text in complaints if not says_gone(text)] == []
    run.rig.close()
