"""The live page: what it is told, whom it obeys, and that its buttons stop and start an arm in a real browser."""

from __future__ import annotations

import http.client
import json
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge.cli.run import main as run_command
from edge.doors.view.launch import LiveView
from edge.doors.view.server import BUTTONS, MOST_KNOWN, STRANGER_S, Snapshots
from edge.doors.view.snapshot import LATENESS_EDGES_US, Phase, ViewRecords, of_run
from edge.errors import InputError
from edge.log.trace import read_trace
from edge.run.commands import Command, CommandQueue, Verdict
from tests.edge.run.test_controller import Run
from tests.support import FRANKA, broken_limits

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


@pytest.mark.parametrize("name", BUTTONS)
def test_every_button_is_its_command_or_its_verdict(view: LiveView, name: str) -> None:
    ask(view, "POST", "/command", name, **{"X-Token": token_of(view)})
    commands = CommandQueue()
    view.pass_on(commands)
    means = BUTTONS[name]
    if isinstance(means, Verdict):
        assert commands.verdict is means and commands.take() is Command.STOP
    else:
        assert commands.verdict is None and commands.take() is means


def test_a_fault_is_cleared_by_its_button_and_never_before_a_stop(view: LiveView) -> None:
    for name in ("clear", "stop"):
        ask(view, "POST", "/command", name, **{"X-Token": token_of(view)})
    assert pressed(view) == [Command.STOP]
    ask(view, "POST", "/command", "clear", **{"X-Token": token_of(view)})
    assert pressed(view) == [Command.CLEAR]


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
    names = ["/", "/arm.js", "/view.js", "/view.css", "/view.svg"]
    texts = [ask(view, "GET", name) for name in names]
    assert all(status == 200 for status, _ in texts)
    for _, text in texts:
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert ask(view, "GET", "/../server.py")[0] == 404
    for path in ("/about", "/snapshot"):
        assert ask(view, "GET", path, **{"X-Token": "wrong"})[0] == 401


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


def state_of(view: LiveView, after: int = 0, page: str = "test") -> dict[str, Any]:
    headers = {"X-Token": token_of(view), "X-After": str(after), "X-Page": page}
    status, text = ask(view, "GET", "/snapshot", **headers)
    assert status == 200
    found: dict[str, Any] = json.loads(text)
    return found


def test_a_page_is_given_what_is_published(view: LiveView, tmp_path: Path) -> None:
    run = Run(tmp_path / "trace.csv")
    run.go(2000)
    status, about = ask(view, "GET", "/about", **{"X-Token": token_of(view)})
    assert status == 200 and json.loads(about)["arm"] == "test"
    view.publish(run.controller, None)
    first = state_of(view)
    assert first["snapshot"]["committed"] == run.controller.counters.chunks
    assert state_of(view, first["number"])["snapshot"] is None, "nothing new"
    view.note("news")
    assert state_of(view, first["number"])["snapshot"]["note"] == "news"
    run.rig.close()


@pytest.fixture
def crowd(view: LiveView) -> Iterator[Crowd]:
    with ExitStack() as stack:
        yield Crowd(port_of(view), stack)


class Crowd:
    """Connections to the page that somebody holds open; more than a process has files for."""

    def __init__(self, port: int, stack: ExitStack) -> None:
        self._port, self._stack = port, stack
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))

    def join(self, count: int, first_bytes: bytes) -> list[socket.socket]:
        joined = []
        for _ in range(count):
            one = socket.socket()
            self._stack.callback(one.close)
            one.settimeout(5)
            one.connect(("127.0.0.1", self._port))
            if first_bytes:
                with suppress(OSError):
                    one.sendall(first_bytes)
            joined.append(one)
        return joined


HALF_OPEN = {
    "silent": b"",
    "half a line": b"POST /comm",
    "half a header": b"POST /command HTTP/1.1\r\nHost: 127",
    "a body that does not come": b"POST /command HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n\r\n",
}


@pytest.mark.real_time
@pytest.mark.parametrize("kind", HALF_OPEN)
def test_a_stop_has_its_place_among_half_open_connections(view: LiveView, crowd: Crowd, kind: str) -> None:
    crowd.join(1200, HALF_OPEN[kind])
    for name, command in (("estop", Command.ESTOP), ("stop", Command.STOP), ("estop", Command.ESTOP)):
        began_s = time.monotonic()
        assert ask(view, "POST", "/command", name, **{"X-Token": token_of(view)})[0] == 200
        assert time.monotonic() - began_s < 1.0
        assert pressed(view) == [command]
    assert ask(view, "GET", "/view.js")[0] == 200


def test_a_connection_is_ended_that_sends_its_request_byte_by_byte(view: LiveView, crowd: Crowd) -> None:
    (slow,) = crowd.join(1, b"GET / HTTP/1.1\r\nX: ")
    until_s = time.monotonic() + 10 * STRANGER_S
    with pytest.raises(OSError):
        while time.monotonic() < until_s:
            slow.sendall(b"x")
            time.sleep(0.1)


def test_the_same_page_in_many_tabs(view: LiveView, crowd: Crowd) -> None:
    """Connections that have shown the token and stay open: the oldest make room, and a press gets through."""
    port, token = port_of(view), token_of(view)
    request = f"GET /snapshot HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-Token: {token}\r\n\r\n"
    for tab in crowd.join(3 * MOST_KNOWN, request.encode()):
        assert tab.recv(12) == b"HTTP/1.1 200"
    assert ask(view, "POST", "/command", "estop", **{"X-Token": token})[0] == 200
    assert pressed(view) == [Command.ESTOP]


def junk(port: int) -> dict[str, bytes]:
    host = f"Host: 127.0.0.1:{port}\r\n".encode()
    draw = Random(0)
    return {
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        "no version": b"GET\r\n\r\n",
        "a version of the future": b"GET / HTTP/9.9\r\n\r\n",
        "no number as a length": b"POST /command HTTP/1.1\r\n" + host + b"Content-Length: x\r\n\r\n",
        "a negative length": b"POST /command HTTP/1.1\r\n" + host + b"Content-Length: -5\r\n\r\n",
        "a length of lengths": b"POST /command HTTP/1.1\r\n" + host + b"Content-Length: " + b"9" * 6000 + b"\r\n\r\n",
        "an address that is none": b"GET //[ HTTP/1.1\r\n" + host + b"\r\n",
        "bytes above 127": b"GET /\xff\xfe HTTP/1.1\r\n" + host + b"X-Token: \xff\xfe\r\n\r\n",
        "a million of a header": b"GET / HTTP/1.1\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n",
        "a thousand headers": b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
        "another method": b"BREW / HTTP/1.1\r\n" + host + b"\r\n",
        "chunks": b"POST /command HTTP/1.1\r\n" + host + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        **{f"noise {seed}": draw.randbytes(300) for seed in range(50)},
    }


def test_junk_is_answered_or_dropped_and_leaves_no_word_on_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    live = LiveView(7, {"arm": "test"})
    token = token_of(live)
    with ExitStack() as stack:
        crowd, port = Crowd(port_of(live), stack), port_of(live)
        known = f"Host: 127.0.0.1:{port}\r\nX-Token: {token}\r\n".encode()
        trusted = {
            "a number that is none": b"GET /snapshot HTTP/1.1\r\n" + known + b"X-After: x\r\n\r\n",
            "half of a command": b"POST /command HTTP/1.1\r\n" + known + b"Content-Length: 5\r\n\r\nst",
        }
        for name, data in {**junk(port), **trusted}.items():
            for goes in ("closes", "resets"):
                (one,) = crowd.join(1, data)
                if goes == "resets":
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                else:
                    one.settimeout(0.05)
                    with suppress(OSError):
                        first = one.recv(15)
                        assert first == b"" or not first.startswith(b"HTTP/1.1 2"), name
                one.close()
        assert ask(live, "GET", "/")[0] == 200
        assert ask(live, "POST", "/command", "stop", **{"X-Token": token})[0] == 200
        assert pressed(live) == [Command.STOP]
    live.close()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("port", [-1, 65536, 80000, 1 << 40])
def test_a_port_that_is_none_is_refused_by_name(port: int, capsys: pytest.CaptureFixture[str]) -> None:
    """By the command, before anything is opened, and by the page itself."""
    with pytest.raises(InputError, match=f"--view: port {port}: .*; choose another with --view-port"):
        LiveView(7, {}, port)
    with pytest.raises(SystemExit) as ended:
        run_command(["--arm", "franka", "--bundle", "none", "--view", "--view-port", str(port)])
    assert ended.value.code == 2
    assert "--view-port" in capsys.readouterr().err.splitlines()[-1]


def test_a_page_knows_the_end_only_once_it_has_been_sent() -> None:
    """The process ends when every page knows: an answer that is still on its way would end with it."""
    records = ViewRecords(7)
    snapshots = Snapshots(records)
    records.snapshots.write(records.blank)
    snapshots.sent(snapshots.newer(0)[0], "one")
    records.snapshots.write(replace(records.blank, phase=Phase.ENDED.value))
    number, text = snapshots.newer(1)
    assert "ended" in text and not snapshots.all_know_the_end()
    snapshots.sent(number, "one")
    assert snapshots.all_know_the_end()


def test_the_end_waits_for_a_page_on_a_busy_machine_as_long_as_it_takes_to_ask_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = [100.0]
    monkeypatch.setattr("edge.doors.view.server.time", SimpleNamespace(monotonic=lambda: now_s[0]))
    records = ViewRecords(7)
    snapshots = Snapshots(records)
    records.snapshots.write(records.blank)
    snapshots.sent(snapshots.newer(0)[0], "one")
    records.snapshots.write(replace(records.blank, phase=Phase.ENDED.value))
    now_s[0] += 2.5  # 1.5 s for an answer that did not come, and a second until it asks again
    assert not snapshots.all_know_the_end()
    now_s[0] += 1.0
    assert snapshots.all_know_the_end(), "it has gone"


def test_a_page_is_told_how_far_the_run_has_come(tmp_path: Path) -> None:
    live = LiveView(7, {"arm": "test"})
    run = Run(tmp_path / "trace.csv")
    phases = [state_of(live)["snapshot"]["phase"]]
    report = run.rig.state()
    live.publish_report(report, 1)
    phases.append(state_of(live)["snapshot"]["phase"])
    run.go(1000)
    live.publish(run.controller, None)
    phases.append(state_of(live)["snapshot"]["phase"])
    live.publish_report(report, 2)
    shown = state_of(live)["snapshot"]
    phases += [shown["phase"], shown["motion"]]
    live.note("emergency stop by the operator")
    ends = threading.Thread(target=live.close)
    ends.start()
    until_s, last = time.monotonic() + 1.0, shown
    while last["phase"] != "ended" and time.monotonic() < until_s:
        with suppress(OSError, http.client.HTTPException):  # it may go in the middle of an answer
            last = state_of(live)["snapshot"]
    ends.join()
    phases += [last["phase"], last["note"]]
    run.rig.close()
    assert phases == [
        "starting",
        "waiting",
        "running",
        "running",
        "stopping",
        "ended",
        "emergency stop by the operator",
    ]


def test_a_page_that_nobody_looks_at_ends_at_once() -> None:
    live = LiveView(7, {"arm": "test"})
    began_s = time.monotonic()
    live.close()
    assert time.monotonic() - began_s < 1.0


NO_BROWSER = "needs chromium-headless-shell or chromium; `make test` installs one"


def says_gone(complaint: str) -> bool:
    """Of a request that was under way, or made, when the page's server had ended."""
    return "ERR_CONNECTION_REFUSED" in complaint or "ERR_CONNECTION_RESET" in complaint


@pytest.mark.real_time
@pytest.mark.skipif(BROWSER is None, reason=NO_BROWSER)
def test_a_press_gets_through_from_any_of_seven_tabs(tmp_path: Path) -> None:
    """A browser has six connections to a server for all of its tabs together."""
    from playwright.sync_api import expect, sync_playwright

    about = {"arm": "test", "joints": list(FRANKA.joints), "units": ["rad"] * 7, "parts": [], "step_ms": 100}
    live = LiveView(7, about)
    run = Run(tmp_path / "trace.csv")
    live.publish_report(run.rig.state(), 1)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        context = browser.new_context()
        tabs = [context.new_page() for _ in range(7)]
        for tab in tabs:
            tab.goto(live.url)
        for tab in tabs:
            expect(tab.locator("#state")).to_have_text("waiting for start", timeout=10_000)
            expect(tab.locator("#counts")).to_contain_text("pace-")
        for tab in tabs:
            tab.click("#estop")
            with tab.expect_response("**/command", timeout=5_000):
                tab.click("#stop")
        run.go(1000)
        live.publish(run.controller, None)
        expect(tabs[0].locator("#state")).to_have_text("streaming", timeout=5_000)
        run.rig.client.estop()
        live.publish_report(run.rig.state(), 2)
        expect(tabs[0].locator("#state")).to_have_text("emergency stop", timeout=5_000)
        live.note("emergency stop by the operator")
        live.close()
        expect(tabs[6].locator("#note")).to_contain_text(
            "The run is over: emergency stop by the operator", timeout=5_000
        )
        browser.close()
    commands = CommandQueue()
    live.pass_on(commands)
    assert commands.take() is Command.ESTOP
    run.rig.close()


@pytest.mark.real_time
@pytest.mark.skipif(BROWSER is None, reason=NO_BROWSER)
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
        page.on("console", lambda message: complaints.append(f"{message.text} {message.location['url']}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        state = page.locator("#state")
        expect(page.locator("#arm")).to_have_text("Franka Research 3 (FR3) (simulated)")
        expect(state).to_have_text("waiting for start", timeout=10_000)
        expect(page.locator("#counts")).to_contain_text("pace-")
        expect(page.locator("#pause")).to_be_disabled()
        expect(page.locator("#home")).to_be_disabled()
        assert complaints == []
        page.route("**/snapshot", lambda route: route.abort())
        expect(state).to_have_text("not connected", timeout=5_000)
        expect(page.locator("#start")).to_be_disabled()
        expect(page.locator("#estop")).to_be_enabled()
        page.unroute("**/snapshot")
        expect(state).to_have_text("waiting for start", timeout=5_000)
        complaints.clear()
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
        expect(state).to_have_text("emergency stop", timeout=5_000)
        expect(page.locator("#note")).to_contain_text("The run is over: emergency stop by the operator", timeout=5_000)
        expect(page.locator("#estop")).to_be_disabled()
        page.screenshot(path=str(tmp_path / "over.png"))
        browser.close()
    # A frame may be asked for in the moment in which the run and its page end.
    assert [text for text in complaints if not (says_gone(text) and text.endswith("/frame"))] == []
    assert run.wait(timeout=30) == 1
    report = json.loads((tmp_path / "run.json").read_text())
    assert "emergency stop by the operator" in report["error"]
    trace = read_trace(tmp_path / "trace.csv")
    assert broken_limits(trace, FRANKA) == []
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
