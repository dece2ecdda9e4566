"""Bad input to `edge-run` and `bridge-sim`: one clear line with the fix, the contract's exit code, and no motion."""

from __future__ import annotations

import json
import os
import pty
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edge.arms import available_arms
from edge.bundle import sha256
from edge.cli import bridge_sim, run
from edge.log.trace import read_trace
from firmware_bridge.simulator import SimulatedArm, SimulatorProcess
from tests.support import FRANKA


def edge_run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Exit code and the last line of stderr."""
    try:
        code = run.main([str(argument) for argument in arguments])
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    lines = capsys.readouterr().err.strip().splitlines()
    return code, lines[-1] if lines else ""


@pytest.fixture
def device(tmp_path: Path) -> Iterator[SimulatorProcess]:
    process = SimulatorProcess(SimulatedArm("franka", FRANKA.home_rad, trace=tmp_path / "trace.csv"))
    yield process
    process.close()


def stood_still(trace: Path) -> bool:
    """Whether the arm stayed where it stood, or where it was armed: on the microradian next to that."""
    rows = read_trace(trace)
    armed = rows.q[~np.isin(rows.state, ("BOOT", "SILENT", "IDLE"))]
    stayed = not armed.size or np.ptp(armed, axis=0).max() < 1e-9
    return bool(stayed and np.ptp(rows.q, axis=0).max() < 0.5e-6 + 1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--arm": "frank"}, f"unknown arm 'frank'; choose one of {', '.join(available_arms())}"),
        ({"--arm": "franka_hand"}, "this policy was trained for fr3, not for 'fr3_hand'; choose another arm or bundle"),
        ({"--bundle": "nowhere"}, "nowhere: no manifest.json there; make one with edge-export"),
        ({"--bridge": "serial:/dev/ttyNOPE"}, "/dev/ttyNOPE: there is no such port; plug the device in"),
        ({"--bridge": "telepathy:"}, "no arm at 'telepathy:'; write sim:, fci:ADDRESS"),
        ({"--bridge": "serial:/dev/null?speed=9"}, "unknown option speed"),
        ({"--bridge": "serial:/dev/null?baud=fast"}, "baud must be a whole number from 1"),
        ({"--bridge": "serial:/dev/null", "--camera": None}, "no --camera for 'front'; give --camera front=URL"),
        ({"--camera": "v4l2:/dev/video99"}, "/dev/video99: there is no such camera; plug it in, or name another"),
        (
            {"--task": "reach the red cube " * 5},
            "the task has 20 tokens and this bundle takes 16; shorten it",
        ),
        ({"--task": "make coffee"}, "never learned the word 'make', 'coffee'; it knows:"),
        ({"--task": " "}, "the task is empty"),
        ({"--ensemble": "2"}, "--ensemble averages goals, and this policy gives increments"),
        ({"--ensemble": "17"}, "--ensemble 17: 1 to 16 chunks are averaged"),
        ({"--execute": "15"}, "a chunk has 15 steps, execute 1 to 14"),
        ({"--report": "/nowhere/run.json"}, "there is no folder /nowhere"),
        ({"--duration": "-1"}, "argument --duration: -1 is not between"),
        ({"--rate": "5000"}, "argument --rate: 5000 Hz; the control loop runs at 50 to 1000 Hz"),
        ({"--engine": "openvino"}, "argument --engine: invalid choice: 'openvino'"),
        ({"--bridge": "serial:/dev/null", "--trace": "x.csv"}, "give it to bridge-sim instead"),
    ],
    ids=lambda value: value.get("--bridge", next(iter(value))) if isinstance(value, dict) else "",
)
def test_bad_input_is_refused_in_one_line(
    bundle_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, str | None],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    options: dict[str, str | None] = {"--arm": "franka", "--bundle": str(bundle_path), "--camera": "pattern:", **change}
    words = [word for name, value in options.items() if value is not None for word in (name, value)]
    code, line = edge_run(capsys, *words)
    assert code == 2
    assert message in line
    assert list(tmp_path.iterdir()) == [], "nothing is written"


def test_a_port_with_nobody_behind_it(bundle_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    master, slave = pty.openpty()
    code, line = edge_run(
        capsys,
        "--arm",
        "franka",
        "--bundle",
        bundle_path,
        "--bridge",
        f"serial:{os.ttyname(slave)}",
        "--camera",
        "pattern:",
    )
    os.close(master)
    os.close(slave)
    assert (code, line) == (2, "edge-run: the device does not answer; check port, baud rate and power")


def test_a_line_that_is_too_slow_is_refused_before_anything_starts(
    bundle_path: Path, device: SimulatorProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = f"serial:{device.port}?baud=57600"
    code, line = edge_run(capsys, "--arm", "franka", "--bundle", bundle_path, "--bridge", port, "--camera", "pattern:")
    assert code == 2
    assert "the line would be" in line and "(limit 80 %)" in line and "raise the line's rate" in line
    device.close()
    assert stood_still(tmp_path / "trace.csv")


def test_firmware_of_another_schema(
    bundle_path: Path,
    device: SimulatorProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("firmware_bridge.client.SCHEMA_HASH", 0x12345678)
    code, line = edge_run(
        capsys, "--arm", "franka", "--bundle", bundle_path, "--bridge", f"serial:{device.port}", "--camera", "pattern:"
    )
    assert code == 2
    assert "this host 12345678; flash the firmware of this version" in line
    device.close()
    assert stood_still(tmp_path / "trace.csv")


def test_another_arms_firmware(
    bundle_path: Path, device: SimulatorProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, line = edge_run(
        capsys, "--arm", "panda", "--bundle", bundle_path, "--bridge", f"serial:{device.port}", "--camera", "pattern:"
    )
    assert code == 2
    assert "the firmware drives 'franka' with 7 joints, not 'panda'; choose --arm franka" in line
    device.close()
    assert stood_still(tmp_path / "trace.csv")


def test_a_port_that_another_host_has_open(
    bundle_path: Path, device: SimulatorProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    from firmware_bridge.transports import SerialTransport

    first = SerialTransport(device.port)
    code, line = edge_run(
        capsys, "--arm", "franka", "--bundle", bundle_path, "--bridge", f"serial:{device.port}", "--camera", "pattern:"
    )
    first.close()
    assert code == 2
    assert "another program has the port open; close it first" in line


@pytest.fixture
def broken_bundle(bundle_path: Path, tmp_path: Path) -> Path:
    """A bundle whose decoder computes NaN, with hashes to match: only the runtime's own check stands in its way."""
    bundle = Path(shutil.copytree(bundle_path, tmp_path / "broken"))
    model = onnx.load(bundle / "action_decoder.onnx")
    spoilt = [tensor for tensor in model.graph.initializer if tensor.name.endswith("action_out.bias")]
    assert spoilt
    for tensor in spoilt:
        values = numpy_helper.to_array(tensor).copy()
        values[30] = np.nan
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, bundle / "action_decoder.onnx")
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"]["action_decoder.onnx"] = sha256(bundle / "action_decoder.onnx")
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    return bundle


@pytest.mark.long
@pytest.mark.parametrize(
    ("limit", "value"), [(resource.RLIMIT_FSIZE, 0), *((resource.RLIMIT_NOFILE, count) for count in (6, 12))]
)
def test_what_the_system_refuses_is_one_line(limit: int, value: int, bundle_path: Path, tmp_path: Path) -> None:
    """At each of these counts of open files another part of the start is refused."""
    command = [sys.executable, "-m", "edge.cli.run", "--arm", "franka", "--bundle", str(bundle_path), "--view"]
    command += ["--duration", "1", "--log", str(tmp_path / "run.mcap"), "--report", str(tmp_path / "run.json")]
    ended = subprocess.run(
        command, preexec_fn=lambda: resource.setrlimit(limit, (value, value)), capture_output=True, text=True
    )
    lines = [line for line in ended.stderr.splitlines() if "live page" not in line]
    assert ended.returncode == 2 and len(lines) == 1, ended.stderr
    assert lines[0].startswith("edge-run: ") and "ulimit" in lines[0] and len(lines[0]) <= 300


@pytest.mark.real_time
@pytest.mark.side_by_side
def test_nan_from_the_policy(broken_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace, report = tmp_path / "trace.csv", tmp_path / "run.json"
    code, line = edge_run(
        capsys, "--arm", "franka", "--bundle", broken_bundle, "--duration", 5, "--trace", trace, "--report", report
    )
    assert code == 1, line
    assert "refused, not finite of joint" in line and "check the checkpoint and the camera's image" in line
    assert json.loads(report.read_text())["ended"] == "safety stop"
    assert report.with_suffix(".png").stat().st_size > 10_000
    assert stood_still(trace)


@pytest.mark.real_time
@pytest.mark.side_by_side
def test_inference_too_slow_for_the_chunk(
    bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, line = edge_run(
        capsys,
        "--arm",
        "franka",
        "--bundle",
        bundle_path,
        "--inject-latency-ms",
        5000,
        "--trace",
        tmp_path / "trace.csv",
    )
    assert code == 2
    assert "and this bundle allows 4.8 s; use a faster engine, fewer flow steps or a smaller --execute" in line
    assert stood_still(tmp_path / "trace.csv")


def test_bridge_sim_refuses_an_unknown_arm(capsys: pytest.CaptureFixture[str]) -> None:
    assert bridge_sim.main(["--arm", "frank"]) == 2
    assert "unknown arm 'frank'" in capsys.readouterr().err


@pytest.mark.parametrize("plant", ["ideal", "mujoco"])
def test_bridge_sim_describes_itself_and_traces(tmp_path: Path, plant: str) -> None:
    trace = tmp_path / "trace.csv"
    process = subprocess.Popen(
        [sys.executable, "-m", "edge.cli.bridge_sim", "--arm", "panda", "--plant", plant, "--trace", str(trace)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    description = json.loads(process.stdout.readline())
    assert Path(description["port"]).exists()
    assert (description["arm"], description["joints"], description["plant"]) == ("panda", 7, plant)
    process.terminate()
    assert process.wait(timeout=5) == 0
    header = trace.read_text().splitlines()[0]
    assert header.startswith("tick_us,state,q0,q1,q2,q3,q4,q5,q6,dq0,dq1,dq2,dq3,dq4,dq5,dq6")


@pytest.mark.parametrize(
    "command",
    [
        *("edge.cli.run", "edge.cli.doctor", "edge.cli.bridge_sim"),
        *(pytest.param(f"export.commands.{name}", marks=pytest.mark.long) for name in ("export", "train")),
    ],
)
def test_help_is_worth_reading(command: str) -> None:
    result = subprocess.run([sys.executable, "-m", command, "--help"], capture_output=True, text=True, check=True)
    assert len(result.stdout.splitlines()) >= 8
