"""From JSON to the page and the tables; what is refused; what a reader must be told."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.cli import main
from bench.compare import differences, speeds
from bench.document import FORMAT, Recording, read_document, write_document
from bench.harness import YARDSTICK, Plan, Timing, group
from bench.page import html_of, page
from bench.report import write_markdown
from bench.sections import summary_line
from edge.errors import InputError

BROWSER = shutil.which("chromium-headless-shell") or shutil.which("chromium")


def measured(scale: float = 1.0, quick: bool = False, yardstick_ms: float | None = None) -> dict[str, Any]:
    """A latency run as the benchmark writes it, from drawn times."""
    recording = Recording("latency", {"preset": None}, quick)
    draw = np.random.default_rng(1)

    def timing(ms: float) -> Timing:
        return Timing(10**6, 10**7, [round(1e6 * scale * ms * value) for value in draw.normal(1.0, 0.02, 120)])

    timings = {"engine fp32": timing(2.0), "eager <torch>": timing(6.0), "engine fp32 again": timing(2.0)}
    if yardstick_ms is not None:
        timings[YARDSTICK] = timing(yardstick_ms)
    recording.leave_out("energy", "no meter & no <sensor>")
    groups = [group("backbone", "inputs to outputs", timings, Plan(), 0, "engine fp32")]
    recording.body = {"groups": groups, "energy": None, "wire": {}}
    return recording.to_plain()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "latency.json"
    write_document(path, measured())
    return path


def test_a_document_comes_back_with_its_samples(file: Path) -> None:
    document = read_document(file)
    assert document["format"] == FORMAT
    assert len(document["groups"][0]["ways"]["engine fp32"]["raw_ns"]) == 120
    machine = document["machine"]
    assert machine["cores"] and machine["kernel"] and "commit" in machine and "dirty" in machine
    assert "numpy" in machine["versions"] and 0 <= machine["busy_share"] <= 1


@pytest.mark.parametrize(
    ("content", "complaint"),
    [("{", "no JSON"), ("[]", "not a measurement"), ('{"benchmark": "x", "machine": {}, "format": 99}', "format 99")],
)
def test_what_is_no_measurement_is_refused(
    content: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    assert main(["report", str(path)]) == 2
    error = capsys.readouterr().err.strip()
    assert complaint in error and "\n" not in error
    assert main(["report", str(tmp_path / "missing.json")]) == 2


def test_the_page_stands_on_its_own(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    assert main(["report", str(file), "-o", str(out)]) == 0
    text = out.read_text()
    assert not re.search(r"""(src|href)\s*=\s*["'](?!#)|url\((?!#)|@import|https?://|<script""", text)
    assert "eager &lt;torch&gt;" in text and "no meter &amp; no &lt;sensor&gt;" in text and "<torch>" not in text
    assert "Not run" in text and "<svg" in text and "Smoke run" not in text
    assert "Smoke run" in page([measured(quick=True)])
    drawn = "".join(re.findall("<svg.*?</svg>", text, re.DOTALL))
    assert "p99" in drawn and "var(--c0)" in drawn and not re.search("#[0-9a-f]{6}", drawn), "the colours of the theme"


@pytest.mark.skipif(BROWSER is None, reason="needs chromium-headless-shell or chromium; `make test` installs one")
def test_the_page_in_a_browser(file: Path, tmp_path: Path) -> None:
    """It is laid out without a complaint, asks nobody for anything, and no plot spills over its edge."""
    from playwright.sync_api import sync_playwright

    out = tmp_path / "report.html"
    assert main(["report", str(file), "-o", str(out)]) == 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        shown = browser.new_page(viewport={"width": 1100, "height": 800})
        asked: list[str] = []
        complaints: list[str] = []
        shown.on("request", lambda request: asked.append(request.url))
        shown.on("console", lambda message: complaints.append(message.text))
        shown.goto(out.as_uri())
        assert shown.locator("svg").count() == 1 and shown.locator("table tr").count() == 3
        spills = "() => document.documentElement.scrollWidth > window.innerWidth"
        assert not shown.evaluate(spills)
        outside = (
            "() => [...document.querySelectorAll('svg')].flatMap(svg => { const b = svg.getBoundingClientRect();"
            "return [...svg.querySelectorAll('text')].map(t => t.getBoundingClientRect())"
            ".filter(t => t.left < b.left - 1 || t.right > b.right + 1) }).length"
        )
        assert shown.evaluate(outside) == 0
        browser.close()
    assert asked == [out.as_uri()] and complaints == []


def test_tables_go_between_their_marks_and_nowhere_else(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("before\n<!-- edge-bench latency -->\nold\n<!-- end latency -->\nafter\n")
    write_markdown(path, [measured()])
    first = path.read_text()
    assert first.startswith("before\n<!-- edge-bench latency -->\n") and first.endswith("<!-- end latency -->\nafter\n")
    assert "\nold\n" not in first and "| eager <torch> |" in first
    write_markdown(path, [measured()])
    assert path.read_text().count("| eager <torch> |") == 1, "written again, not once more"
    path.write_text("no marks\n")
    with pytest.raises(InputError, match="no marks for latency"):
        write_markdown(path, [measured()])


def test_two_runs_agree_within_their_noise_and_not_beyond() -> None:
    found = differences(measured(), measured(1.01))
    assert found and all(one.agrees for one in found)
    slower = differences(measured(), measured(1.5))
    assert not all(one.agrees for one in slower)
    assert all(one.agrees for one in slower if one.what.endswith("ratio")), "a slower machine keeps its ratios"


def test_a_slower_machine_is_no_difference_and_a_slower_engine_is_one() -> None:
    first, slow_machine = measured(yardstick_ms=0.2), measured(1.5, yardstick_ms=0.2)
    assert {one.what for one in differences(first, slow_machine)} == {
        "backbone, engine fp32, yardsticks",
        "backbone, engine fp32 again, yardsticks",
        "backbone, eager <torch>, yardsticks",
        "backbone, eager <torch>, ratio",
    }
    assert all(one.agrees for one in differences(first, slow_machine))
    assert speeds(first, slow_machine) == ["backbone: the machine was 0.67 x as fast in the second run"]
    slow_engines = measured(1.5, yardstick_ms=0.2 / 1.5)
    wrong = [one.what for one in differences(first, slow_engines) if not one.agrees]
    assert len(wrong) == 3 and all(what.endswith("yardsticks") for what in wrong)


def on_the_wire(wire_ms: float, yardstick_ms: float) -> dict[str, Any]:
    """A run of observation to wire, and the yardsticks of before and after it."""

    def times(ms: float) -> dict[str, Any]:
        return Timing(warm_ns=[round(1e6 * ms)] * 99 + [round(1.02e6 * ms)] * 101).to_plain(1, 0)

    run = {"observation_to_wire": times(wire_ms), YARDSTICK: times(yardstick_ms)}
    return {"benchmark": "latency", "wire": {"runs": {"fp32": run}}}


def test_a_run_on_the_wire_is_counted_in_yardsticks_too() -> None:
    first = on_the_wire(25.0, 0.7)
    assert [one.agrees for one in differences(first, on_the_wire(37.5, 1.05))] == [True], "a slower machine"
    assert [one.agrees for one in differences(first, on_the_wire(37.5, 0.7))] == [False], "a slower path"


@pytest.mark.parametrize(("busy", "told"), [(0.5, True), (0.1, False), (None, False)])
def test_a_reader_is_told_of_a_busy_machine(busy: float | None, told: bool) -> None:
    document = measured()
    document["machine"]["busy_share"] = busy
    assert ("The machine was busy when it began (50" in summary_line(document)) == told


def test_a_simulated_run_comes_out_the_same_again() -> None:
    row = {"joining": "synchronous", "latency_ms": 100.0, "reached": 3, "jerk_rms": 50.0}
    runs = [{"benchmark": "closed-loop", "rows": [row]}, {"benchmark": "closed-loop", "rows": [row | {"reached": 2}]}]
    assert all(one.agrees for one in differences(runs[0], runs[0]))
    assert [one.agrees for one in differences(*runs)] == [False, True]


def test_compare_says_so_with_its_exit_code(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.json"
    write_document(other, measured(1.5))
    assert main(["compare", str(file), str(file)]) == 0
    assert main(["compare", str(file), str(other)]) == 1
    assert "DIFFERS" in capsys.readouterr().out


def test_markdown_becomes_html() -> None:
    text = html_of(["**a** & b", "", "| x | y |", "|---|---|", "| - | 2 |"])
    assert text == ("<p><b>a</b> &amp; b</p><table><tr><th>x</th><th>y</th></tr><tr><td>-</td><td>2</td></tr></table>")
