"""The live page: what it is told, whom it obeys, and that its buttons stop and start an arm in a real browser."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.log.trace import read_trace, violations
from edge.run.commands import Command, CommandQueue
from edge.view.launch import LiveView
from edge.view.snapshot import LATENESS_EDGES_US, ViewRecords, of_run
from tests.edge.run.test_controller import Run
from tests.support import FRANKA

STOP_TICKS = 307
"""What the safety case gives a stop of the simulated Franka, in ms: docs/safety.md."""
BROWSER = shutil.which("chromium-headless-shell") or shutil.which("chromium")


@pytest.fixture(scope="module")
def page() -> Iterator[LiveView]:
    live = LiveView(7, {"arm": "test", "joints": list(FRANKA.joints), "task": "", "bridge": "", "step_ms": 100})
    yield live
    live.close()


@pytest.fixture
def view(page: LiveView) -> LiveView:
    page.pass_on(CommandQueue())
    return page


def ask(view: LiveView, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port_of(view), timeout=5)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def port_of(view: LiveView) -> int:
    match = re.match(r"http://127\.0\.0\.1:(\d+)/#", view.url)
    assert match
    return int(match.group(1))


def token_of(view: LiveView) -> str:
    return view.url.split("#")[1]


def pressed(view: LiveView) -> list[Command]:
    commands, taken = CommandQueue(), []
    view.pass_on(commands)
    while (command := commands.take()) is not Command.NONE:
        taken.append(command)
    return taken


def test_a_command_needs_the_token(view: LiveView) -> None:
    for token in ({}, {"X-Token": ""}, {"X-Token": token_of(view)[:-1]}, {"X-Token": "x" * 32}):
        status, text = ask(view, "POST", "/command", "start", **token)
        assert (status, pressed(view)) == (401, []), text
    assert ask(view, "POST", "/command", "pause", **{"X-Token": token_of(view)})[0] == 200
    assert pressed(view) == [Command.PAUSE]
    assert pressed(view) == [], "once"


def test_a_page_of_another_host_is_refused(view: LiveView) -> None:
    """DNS rebinding: a name of the attacker's that resolves to loopback."""
    for host in ("evil.example", f"evil.example:{port_of(view)}", "127.0.0.1", ""):
        assert ask(view, "POST", "/command", "start", **{"X-Token": token_of(view), "Host": host})[0] == 403
        assert ask(view, "GET", "/", Host=host)[0] == 403
    assert pressed(view) == []


@pytest.mark.parametrize("body", ["", "jump", "start" * 100, "\x00"])
def test_what_is_no_command_is_refused(view: LiveView, body: str) -> None:
    assert ask(view, "POST", "/command", body, **{"X-Token": token_of(view)})[0] == 400
    assert ask(view, "POST", "/", "start", **{"X-Token": token_of(view)})[0] == 400
    assert pressed(view) == []


def test_an_emergency_stop_is_not_lost_under_later_presses(view: LiveView) -> None:
    for name in ("estop", "start", "pause", "start"):
        ask(view, "POST", "/command", name, **{"X-Token": token_of(view)})
    commands = CommandQueue()
    view.pass_on(commands)
    assert commands.take() is Command.ESTOP


def test_the_page_is_whole_and_fetches_nothing_from_elsewhere(view: LiveView) -> None:
    names = ["/", "/view.js", "/view.css", "/view.svg"]
    texts = [ask(view, "GET", name) for name in names]
    assert all(status == 200 for status, _ in texts)
    for _, text in texts:
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert ask(view, "GET", "/../server.py")[0] == 404
    assert ask(view, "GET", "/events?token=wrong")[0] == 401


def test_it_listens_on_loopback_only(view: LiveView) -> None:
    listening = subprocess.run(["cat", "/proc/net/tcp"], capture_output=True, text=True, check=True).stdout
    port = f"{port_of(view):04X}"
    addresses = [line.split()[1].split(":")[0] for line in listening.splitlines()[1:] if line.split()[1].endswith(port)]
    assert addresses and set(addresses) == {"0100007F"}


def test_a_snapshot_says_what_the_controller_knows(tmp_path: Path) -> None:
    run = Run(tmp_path / "trace.csv")
    run.go(3000)
    records = ViewRecords(7)
    records.snapshots.write(replace(records.blank, **of_run(run.controller, None)))
    found = records.snapshots.read(0)
    assert found is not None
    shown = json.loads(json.dumps(found[1].plain()))
    counters = run.controller.counters
    assert (shown["committed"], shown["state"], shown["motion"]) == (counters.chunks, "streaming", "running")
    assert shown["commanded"] == pytest.approx(
        [1e-6 * value for value in run.controller.last_state.commanded_urad], abs=1e-5
    )
    assert len(shown["plan"]) == len(shown["plan_us"]) > 5
    assert shown["plan_us"][0] <= shown["device_us"] < shown["plan_us"][1]
    assert shown["latency_ms"] == 40.0 and len(shown["lateness"]) == len(LATENESS_EDGES_US)
    run.rig.close()


def test_events_stream_what_is_published(view: LiveView, tmp_path: Path) -> None:
    run = Run(tmp_path / "trace.csv")
    run.go(2000)
    connection = http.client.HTTPConnection("127.0.0.1", port_of(view), timeout=5)
    connection.request("GET", f"/events?token={token_of(view)}")
    stream = connection.getresponse()
    threading.Timer(0.3, lambda: view.publish(run.controller, None)).start()
    said: dict[str, Any] = {}
    while "snapshot" not in said:
        kind = stream.readline().decode().strip().removeprefix("event: ")
        said[kind] = json.loads(stream.readline().decode().removeprefix("data: "))
        stream.readline()
    assert said["about"]["arm"] == "test"
    assert said["snapshot"]["committed"] == run.controller.counters.chunks
    connection.close()
    run.rig.close()


@pytest.mark.real_time
@pytest.mark.skipif(BROWSER is None, reason="needs chromium-headless-shell or chromium; `make test` installs one")
def test_the_buttons_in_a_browser(bundle_path: Path, tmp_path: Path) -> None:
    """Start, pause, start again and an emergency stop, pressed in Chromium; judged by the device's trace."""
    from playwright.sync_api import expect, sync_playwright

    arguments = ["--arm", "franka", "--bundle", str(bundle_path), "--duration", "60", "--view", "--wait"]
    arguments += [
        "--report",
        str(tmp_path / "run.json"),
        "--trace",
        str(tmp_path / "trace.csv"),
        "--scene-seed",
        "2026",
    ]
    run = subprocess.Popen([sys.executable, "-m", "edge.cli.run", *arguments], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    url = ""
    for line in run.stdout:
        url = line.split("live page: ")[1].strip() if "live page: " in line else url
        if "waits for the start command" in line:
            break
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        state = page.locator("#state")
        expect(page.locator("#arm")).to_have_text("Franka Research 3 (FR3) (simulated)")
        expect(state).to_have_text("idle", timeout=10_000)
        expect(page.locator("#pause")).to_be_disabled()
        expect(page.locator("#home")).to_be_disabled()
        run.send_signal(signal.SIGRTMIN)
        expect(page.locator("#note")).to_contain_text("nothing is armed yet", timeout=5_000)
        page.click("#start")
        expect(state).to_have_text("streaming", timeout=10_000)
        time.sleep(1.5)
        assert page.locator(".joint canvas").count() == 7
        page.screenshot(path=str(tmp_path / "view.png"))
        expect(page.locator("#home")).to_be_disabled()
        page.click("#pause")
        expect(state).to_have_text("hold (held)", timeout=5_000)
        page.click("#home")
        expect(state).to_have_text("streaming", timeout=5_000)
        expect(state).to_have_text("hold (held)", timeout=20_000)
        page.click("#start")
        expect(state).to_have_text("streaming", timeout=5_000)
        time.sleep(1.0)
        page.click("#estop")
        expect(state).to_have_attribute("data-state", re.compile("estop|lost"), timeout=5_000)
        browser.close()
    assert complaints == []
    assert run.wait(timeout=30) == 1
    report = json.loads((tmp_path / "run.json").read_text())
    assert "emergency stop by the operator" in report["error"]
    trace = read_trace(tmp_path / "trace.csv")
    assert violations(trace, FRANKA.operating) == []
    states = [str(state) for state in trace.state]
    changes = [state for index, state in enumerate(states) if index == 0 or states[index - 1] != state]
    start = changes.index("ARMED")
    moves = ["ARMED", "STREAMING"]
    stops = [state for state in changes[start:] if state != "DECEL"]  # at home it lasts a period, or none
    assert stops == [*moves, "HOLD", *moves, "HOLD", *moves, "ESTOP"], "the second time home"
    assert changes[start : start + 4] == [*moves, "DECEL", "HOLD"], "a pause decelerates"
    pressed_at = states.index("ESTOP")
    speed = np.abs(np.diff(trace.q[pressed_at:], axis=0)).max(axis=1)
    assert np.all(speed[STOP_TICKS:] == 0.0), "at rest within the safety case's time"
