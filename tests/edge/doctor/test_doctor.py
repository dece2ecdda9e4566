"""`edge-doctor` as a user starts it, in this process: what is sound, what is not, and its exit codes."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.arms import load_arm
from edge.bundle import load_bundle
from edge.cameras import recorded
from edge.cli import doctor
from edge.doctor.bridge import check_bridge
from edge.doctor.cameras import against_rate, check_camera
from edge.doctor.check import Check, Status
from edge.doctor.policy import check_fit, check_inference
from edge.policy.base import PolicyInput, PolicyOutput
from edge.policy.graph_policy import GraphPolicy
from firmware_bridge.client import DeviceClient
from firmware_bridge.codes import DeviceState
from firmware_bridge.link import Link
from firmware_bridge.simulator import SimulatedArm, SimulatorProcess
from firmware_bridge.transports import SerialTransport
from tests.conftest import TASK
from tests.foreign_bundle import write_foreign
from tests.support import FRANKA


def edge_doctor(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    try:
        code = doctor.main([str(argument) for argument in arguments])
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def row(out: str, name: str) -> tuple[str, str]:
    """Status and the rest of the row of a check, with its fix."""
    lines = out.splitlines()
    at = next(index for index, text in enumerate(lines) if text[9:25].strip() == name)
    fix = lines[at + 1] if at + 1 < len(lines) and lines[at + 1].lstrip().startswith("fix:") else ""
    return lines[at].split()[0], lines[at][26:] + fix


@pytest.mark.real_time
def test_everything_of_a_simulated_run(bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "doctor.json"
    code, out, err = edge_doctor(
        capsys, "--bundle", bundle_path, "--arm", "franka", "--bridge", "sim:", "--camera", "pattern:", "--json", report
    )
    assert (code, err) == (0, "")
    for name in ("arm", "bundle", "inference", "handshake", "clock", "device state", "camera front"):
        assert row(out, name)[0] == "ok", out
    assert row(out, "round trip")[0] in ("ok", "warn"), "a busy machine may be slow"
    assert "IDLE" in row(out, "device state")[1], "it is never armed"
    found = {check["name"]: check for check in json.loads(report.read_text())["checks"]}
    assert found["round trip"]["figures"]["milliseconds"]["count"] > 50
    assert len(found["inference"]["figures"]["warm_ms"]) == 5
    assert json.loads(report.read_text())["passed"] is True


def test_what_is_not_named_is_skipped_and_says_which_option(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = edge_doctor(capsys)
    assert code in (0, 1), "depends on the machine"
    for name, option in (
        ("arm", "--arm NAME"),
        ("bundle", "--bundle DIR"),
        ("inference", "--arm NAME"),
        ("bridge", "--bridge URL"),
        ("cameras", "--camera URL"),
    ):
        status, text = row(out, name)
        assert status == "skipped" and option in text


@pytest.fixture
def spoilt_bundle(bundle_path: Path, tmp_path: Path) -> Path:
    bundle = Path(shutil.copytree(bundle_path, tmp_path / "spoilt"))
    with (bundle / "backbone.onnx").open("r+b") as file:
        file.seek(5000)
        byte = file.read(1)
        file.seek(5000)
        file.write(bytes([byte[0] ^ 1]))
    return bundle


def test_a_damaged_engine(spoilt_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = edge_doctor(capsys, "--bundle", spoilt_bundle, "--arm", "franka")
    status, text = row(out, "bundle")
    assert (code, status) == (1, "FAIL")
    assert "backbone.onnx: its content is not what the manifest says" in text and "fix: copy or export it again" in text
    assert row(out, "inference")[0] == "skipped"


def test_an_engine_that_cannot_be_opened(bundle_path: Path, tmp_path: Path) -> None:
    bundle = load_bundle(Path(shutil.copytree(bundle_path, tmp_path / "b")))
    (bundle.path / "backbone.onnx").write_bytes(b"no graph")
    check = check_inference(bundle, FRANKA, "franka", TASK, 1)
    assert check.status is Status.FAIL and "backbone.onnx: ONNX Runtime cannot open it" in check.found


def test_a_task_the_policy_does_not_know(bundle_path: Path) -> None:
    check = check_inference(load_bundle(bundle_path), FRANKA, "franka", "make coffee", 1)
    assert check.status is Status.FAIL and "never learned the word 'make'" in check.found


@pytest.mark.parametrize(("spoil", "message"), [(np.nan, "is not finite"), (1e-9, "from one observation differ")])
def test_chunks_that_are_not_finite_or_not_repeatable(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: float, message: str
) -> None:
    infer = GraphPolicy.infer
    calls = []

    def spoilt(self: GraphPolicy, observed: PolicyInput) -> PolicyOutput:
        output = infer(self, observed)
        calls.append(output)
        output.increments_rad[3, 2] += spoil * len(calls)
        return output

    monkeypatch.setattr(GraphPolicy, "infer", spoilt)
    check = check_inference(load_bundle(bundle_path), FRANKA, "franka", TASK, 1)
    assert check.status is Status.FAIL and message in check.found and check.fix


def test_whether_a_policy_fits_the_arm(tmp_path: Path, bundle_path: Path) -> None:
    foreign = load_bundle(write_foreign(tmp_path / "foreign"))
    fits = check_fit(foreign, load_arm("so101"))
    assert fits.status is Status.OK and fits.found == (
        "foreign for so101: position in deg and percent; 30 steps of 33.3 ms, 1.00 s, 10 executed; "
        "cameras: front 64x48 (exact), wrist 40x40 (exact)"
    )
    other = check_fit(foreign, FRANKA)
    assert other.status is Status.FAIL and "was trained for so101, not for 'fr3'" in other.found
    without = check_fit(foreign, replace(load_arm("so101"), goals=None))
    assert without.status is Status.FAIL and "has no table [goals]" in without.found
    own = check_fit(load_bundle(bundle_path), replace(FRANKA, goals=None))
    assert own.status is Status.OK and "increment in rad; 15 steps of 100.0 ms, 1.50 s, 5 executed" in own.found


def test_a_camera_that_is_slower_than_the_policy_looks() -> None:
    seen = Check("camera front", Status.OK, "at 10 fps", "", {"rate_hz": 10.0})
    slow = against_rate(seen, 1 / 30)
    assert slow.status is Status.WARN and slow.found == "at 10 fps; the policy looks 30 times a second" and slow.fix
    assert against_rate(seen, 0.1) is seen
    drawn = Check("camera wrist", Status.OK, "drawn on demand", "", {})
    assert against_rate(drawn, 1 / 30) is drawn


def test_inference_that_cannot_keep_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk of a second that takes longer than one: the clock is wound forward in every call."""
    passed = [0.0]
    infer = GraphPolicy.infer

    def slow(self: GraphPolicy, observed: PolicyInput) -> PolicyOutput:
        passed[0] += 1.2
        return infer(self, observed)

    monkeypatch.setattr(GraphPolicy, "infer", slow)
    monkeypatch.setattr("edge.doctor.policy.time.perf_counter", lambda: passed[0])
    check = check_inference(load_bundle(write_foreign(tmp_path / "b")), load_arm("so101"), "so101", "", 1)
    assert check.status is Status.FAIL
    assert check.found == "a chunk takes 1200 ms and covers 1000 ms of motion: too slow to keep up" and check.fix


def test_a_dead_port(capsys: pytest.CaptureFixture[str]) -> None:
    master, slave = pty.openpty()
    code, out, _ = edge_doctor(capsys, "--arm", "franka", "--bridge", f"serial:{os.ttyname(slave)}")
    os.close(master)
    os.close(slave)
    assert code == 1
    assert row(out, "handshake")[0] == "FAIL"
    assert "does not answer" in row(out, "handshake")[1] and "fix: check port, baud rate and power" in out


def test_a_port_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = edge_doctor(capsys, "--arm", "franka", "--bridge", "serial:/dev/ttyNOPE")
    assert code == 1 and row(out, "bridge")[0] == "FAIL"
    assert "fix: plug the device in" in out


@pytest.fixture
def device() -> Iterator[SimulatorProcess]:
    process = SimulatorProcess(SimulatedArm("franka", FRANKA.home_rad))
    yield process
    process.close()


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_another_arms_device(device: SimulatorProcess, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = edge_doctor(capsys, "--arm", "panda", "--bridge", f"serial:{device.port}")
    assert code == 1
    assert "the firmware drives 'franka'" in row(out, "handshake")[1] and "fix: choose --arm franka" in out


def test_a_latched_stop_is_found_and_not_cleared(device: SimulatorProcess) -> None:
    transport = SerialTransport(device.port)
    client = DeviceClient(Link(transport, time.monotonic_ns, 77), time.sleep)
    client.connect("franka", FRANKA.hash32, 7)
    client.synchronise_clock()
    client.arm(client.wait_for_state().measured_urad, 1)
    client.estop()
    time.sleep(0.3)
    found = by_name(check_bridge(transport, FRANKA))
    transport.close()
    assert found["handshake"].status is Status.OK
    assert found["device state"].status is Status.FAIL and "ESTOP" in found["device state"].found
    assert found["device state"].figures["state"] == DeviceState.ESTOP and "clear" in found["device state"].fix


@pytest.mark.real_time
def test_a_recorded_camera_is_measured(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for index in range(20):
        cv2.imwrite(str(tmp_path / f"{index:02d}.png"), rng.integers(0, 255, (48, 64, 3)).astype(np.uint8))
    check = check_camera(f"file:{tmp_path}?fps=20", (32, 32), 1)
    assert check.status in (Status.OK, Status.WARN), check
    assert 10 < check.figures["rate_hz"] < 21 and check.figures["nominal_hz"] == 20
    assert 0 <= check.figures["age_ms"]["p50"] < 150
    assert "64x48 px, centre 48x48, to 32x32" in check.found


@pytest.mark.real_time
def test_a_slow_camera_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((48, 64, 3), np.uint8))
    fit = recorded.fit
    monkeypatch.setattr(recorded, "fit", lambda *some: (time.sleep(0.08), fit(*some))[1])
    check = check_camera(f"file:{tmp_path}?fps=30", (32, 32), 1)
    assert check.status is Status.WARN and check.figures["rate_hz"] < 24 and "more light" in check.fix


@pytest.mark.parametrize(
    ("url", "found", "fix"),
    [
        ("v4l2:/dev/video99", "there is no such camera", "plug it in"),
        ("pattern:?freeze_after=0.1", "is frozen", "restart the camera"),
        ("pattern:?stall_after=0.1", "is stale", "leave the simulated fault out"),
        ("pattern:?unplug_after=0.1", "is unplugged", "leave the simulated fault out"),
    ],
)
def test_a_camera_that_fails(url: str, found: str, fix: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = edge_doctor(capsys, "--camera", url)
    status, text = row(out, "camera 1")
    assert (code, status) == (1, "FAIL")
    assert found in text and f"fix: {fix}" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bridge", "sim:"], "--bridge compares the device with a profile; add --arm NAME"),
        (["--arm", "franka", "--bridge", "telepathy:"], "no arm at 'telepathy:'; write sim:, fci:ADDRESS"),
        (["--camera", "webcam"], "no camera 'webcam'; write v4l2:"),
        (["--camera", "sim:"], "looks at a simulated arm; add --bridge sim:"),
        (["--json", "/nowhere/x.json"], "there is no folder /nowhere"),
        (["--threads", "many"], "argument --threads: invalid int value"),
    ],
)
def test_bad_input_is_refused_before_any_check(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = edge_doctor(capsys, *arguments)
    assert (code, out) == (2, "")
    assert message in err.splitlines()[-1]


def test_an_unknown_arm_is_a_finding(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = edge_doctor(capsys, "--arm", "frank", "--bridge", "sim:")
    assert code == 1 and row(out, "arm")[0] == "FAIL" and "franka" in row(out, "arm")[1]
    assert row(out, "bridge")[0] == "skipped"


def test_ctrl_c_is_one_line() -> None:
    device, port = pty.openpty()  # nobody answers there, so the handshake is still waiting when the signal comes
    bridge = f"serial:{os.ttyname(port)}"
    arguments = [sys.executable, "-m", "edge.cli.doctor", "--arm", "franka", "--bridge", bridge, "--camera", "pattern:"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert select.select([device], [], [], 60.0)[0], "no word of the handshake"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    os.close(device)
    os.close(port)
    assert process.returncode == 1
    assert err.strip() == "edge-doctor: stopped before all checks were made" and "Traceback" not in out
