"""`edge-run --log` in real time on the simulated bench, then `edge-run --replay`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mcap.reader import make_reader


def edge_run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge.cli.run", "--no-plot", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.real_time
def test_a_real_run_is_logged_and_replayed_identically(tmp_path: Path, bundle_path: Path) -> None:
    log, report_file = tmp_path / "run.mcap", tmp_path / "run.json"
    arguments = ("--arm", "franka", "--bundle", str(bundle_path), "--duration", "4", "--report", str(report_file))
    run = edge_run(*arguments, "--log", str(log))
    assert run.returncode == 0, run.stderr
    report = json.loads(report_file.read_text())
    frames = report["log"].pop("frames")
    assert report["log"] == {"file": str(log), "missing_records": 0}
    assert frames["dropped"] == frames["used_dropped"] == 0
    report["log"]["frames"] = frames

    replay = edge_run("--replay", str(log), "--recompute", "--bundle", str(bundle_path))
    assert replay.returncode == 0, replay.stdout + replay.stderr
    assert "identical" in replay.stdout and "truncated" not in replay.stdout
    chunks = report["chunks"]
    assert f"recomputed   {chunks['computed']} chunks from {chunks['computed']} frames" in replay.stdout
    assert f"{chunks['computed']} to the last bit" in replay.stdout
    assert f"{chunks['requested']} requested, {chunks['computed']} taken" in replay.stdout
    assert f"{chunks['committed']} committed, {chunks['late']} late" in replay.stdout

    with log.open("rb") as file:
        found = [(channel.topic, json.loads(message.data)) for _, channel, message in make_reader(file).iter_messages()]
    header = next(content["header"] for topic, content in found if topic == "/run")
    manifest = json.loads((bundle_path / "manifest.json").read_text())
    assert header["bundle"]["checkpoint_sha256"] == manifest["checkpoint_sha256"]
    assert header["bundle"]["files"] == manifest["files"]
    assert next(content["report"] for topic, content in found if topic == "/report") == report
    ended = next(c for topic, c in found if topic == "/decisions" and c["decision"] == "ended")
    assert ended["details"] == {"why": "duration", "error": None}
    ticks = [content["ticks"] for topic, content in found if topic == "/loop"]
    assert len(ticks) > 500 and ticks[-1] == report["loop"]["ticks"]
    assert max(content["overruns"] for topic, content in found if topic == "/loop") == report["loop"]["overruns"]
    beats = [content["beat"] for topic, content in found if topic == "/inference"]
    assert len(beats) > 20 and beats == sorted(beats)


def test_a_run_needs_its_arm_and_bundle(tmp_path: Path) -> None:
    result = edge_run("--log", str(tmp_path / "run.mcap"))
    assert result.returncode == 2 and "--arm and --bundle, --policy or --leader are required" in result.stderr
