"""`edge-run` on a servo bus: the same path as a Franka's, with a bundle that knows the arm."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.cli.run import main
from edge.log.trace import read_trace
from tests.servo_bench import SO101, calibration
from tests.servo_process import ServoProcess
from tests.support import broken_limits, states_in_order

SMALL_RAD = 0.002
"""The network has never seen this arm; scaled down to this, whatever it says is a motion that the host allows."""


@pytest.fixture
def servos(tmp_path: Path) -> Iterator[ServoProcess]:
    process = ServoProcess(tmp_path, "--corrupt", "0.01")
    yield process
    process.close()


@pytest.fixture
def bundle(tmp_path: Path, bundle_path: Path) -> Path:
    """The shipped policy, with an embodiment that it was not trained for: one that moves an SO-101 a little."""
    path = shutil.copytree(bundle_path, tmp_path / "bundle")
    manifest = json.loads((path / "manifest.json").read_text())
    arm = json.loads(json.dumps(manifest["arms"][0])) | {"name": "so101", "axes": manifest["arms"][0]["axes"][:6]}
    for axis, joint, home in zip(arm["axes"], SO101.joints, SO101.home_rad):
        axis["joint"] = joint
        axis["state"] |= {"offset": home, "scale": 1.0}
        axis["action"] |= {"offset": 0.0, "scale": SMALL_RAD}
    used = {axis["action"]["column"] for axis in arm["axes"]}
    arm["constants"]["used"] = [float(column in used) for column in range(len(arm["constants"]["used"]))]
    arm["training"] |= {"state_mean": list(SO101.home_rad), "state_spread": [1.0] * 6}
    manifest["arms"].append(arm)
    (path / "manifest.json").write_text(json.dumps(manifest))
    return path


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "edge.cli.run", "--arm", "so101", "--camera", "pattern:", "--duration", "4"]
    line += ["--report", str(folder / "run.json"), "--trace", str(folder / "trace.csv"), "--no-plot", *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=120)


@pytest.mark.real_time
def test_a_run_on_the_servo_bus(servos: ServoProcess, bundle: Path, tmp_path: Path) -> None:
    done = run(tmp_path, "--bundle", str(bundle), "--bridge", servos.url)
    assert done.returncode == 0, done.stderr
    report, trace = json.loads((tmp_path / "run.json").read_text()), read_trace(tmp_path / "trace.csv")
    assert report["chunks"]["committed"] >= 4 and "STREAMING" in states_in_order(trace)
    assert broken_limits(trace, SO101) == []
    assert 0.9 < report["adapter"]["success_rate_least"] < 1 and report["adapter"]["period_p50_us"] <= 5200
    assert "arm's line" in done.stdout and f"success rate {report['adapter']['success_rate_least']:.2f}" in done.stdout


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("feetech:/dev/ttyNOPE?calibration={folder}/c.json", "/dev/ttyNOPE: there is no such port"),
        ("feetech:/dev/ttyNOPE?calibration=none.json", "none.json: there is no calibration; make one with edge-calib"),
        ("feetech:/dev/ttyNOPE?speed=9", "write feetech:PATH?calibration=FILE"),
    ],
)
def test_bad_input(bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], url: str, message: str) -> None:
    calibration().write(tmp_path / "c.json")
    arguments = [
        "--arm",
        "so101",
        "--camera",
        "pattern:",
        "--bundle",
        str(bundle),
        "--report",
        str(tmp_path / "run.json"),
    ]
    assert main([*arguments, "--bridge", url.format(folder=tmp_path)]) == 2
    assert message in capfd.readouterr().err.splitlines()[0]


def test_an_arm_that_the_bundle_does_not_know(
    bundle_path: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["--arm", "so101", "--bundle", str(bundle_path), "--bridge", "feetech:/dev/ttyNOPE"]) == 2
    assert "was trained for fr3, not for 'so101'; choose another arm or bundle" in capfd.readouterr().err
