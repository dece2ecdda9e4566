"""The instruments: energy counters, fingerprints, the judge of the closed loop, lines and loops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bench import cli
from bench.blending import BLENDINGS
from bench.energy import PowerSum, SensorMeter, find_meter
from bench.link import LINES, stream
from bench.loop import figures, lateness_ns
from bench.machine import busy_share, fingerprint, same_machine
from bench.wire import NotingTransport, stilled
from edge.bundle import load_bundle
from edge.inference.records import Outcome, PlanRequest, PlanResult
from edge.log.trace import Trace
from firmware_bridge.framing import encode_frame
from firmware_bridge.messages import Commit, Heartbeat
from firmware_bridge.transports import LoopbackTransport

ROOT = Path(__file__).resolve().parents[2]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_rapl_counts_packages_once_and_through_a_wrap(tmp_path: Path) -> None:
    zone = tmp_path / "class/powercap/intel-rapl:0"
    for folder in (zone, tmp_path / "class/powercap/intel-rapl:0:0"):
        write(folder / "energy_uj", "900000\n")
        write(folder / "max_energy_range_uj", "999999\n")
    meter, what = find_meter(tmp_path)
    assert meter is not None and "1 processor package" in what
    meter.begin()
    write(zone / "energy_uj", "400000\n")
    assert meter.joules() == pytest.approx(0.5)


def test_busy_cores_are_counted_while_one_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = tmp_path / "proc/stat"
    write(stat, "cpu  100 0 50 800 50 0 0 0 40 0\ncpu0 1 1 1 1\n")
    monkeypatch.setattr(time, "sleep", lambda _: write(stat, "cpu  120 0 55 860 55 0 0 10 60 0\n"))
    assert busy_share(tmp_path) == pytest.approx(0.35), "65 of 100 ticks idle or waiting for a disk"
    assert busy_share(tmp_path) is None, "no tick has passed"
    assert busy_share(tmp_path / "nowhere") is None


def test_a_jetsons_sensor_is_added_up_over_time(tmp_path: Path) -> None:
    folder = tmp_path / "class/hwmon/hwmon3"
    write(folder / "in1_label", "VDD_IN\n")
    write(folder / "in1_input", "5000\n")
    write(folder / "curr1_input", "2000\n")
    meter, what = find_meter(tmp_path)
    assert isinstance(meter, SensorMeter) and "tegrastats" in what
    assert meter.watts() == pytest.approx(10.0)
    before = time.monotonic()
    meter.begin()
    begun = time.monotonic()
    time.sleep(0.2)
    asked = time.monotonic()
    joules = meter.joules()
    assert 9.99 * (asked - begun) <= joules <= 10.01 * (time.monotonic() - before)


def test_power_is_added_up_between_looks() -> None:
    energy = PowerSum()
    for at_s, watts in ((0.0, 10.0), (1.0, 10.0), (3.0, 20.0)):
        energy.add(at_s, watts)
    assert energy.joules == pytest.approx(10 + 30)


def test_without_a_meter_it_says_why(tmp_path: Path) -> None:
    meter, why = find_meter(tmp_path)
    assert meter is None and "neither RAPL" in why


def test_a_fingerprint_tells_machines_apart(tmp_path: Path) -> None:
    write(tmp_path / "proc/cpuinfo", "model name : Some CPU\nflags : fpu avx2 amx_int8 hypervisor\ncpu MHz : 2400.5\n")
    write(tmp_path / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n")
    write(tmp_path / "sys/devices/system/cpu/cpu0/cache/index3/size", "32768K\n")
    write(tmp_path / "proc/device-tree/model", "NVIDIA Jetson\0")
    found = fingerprint(tmp_path)
    assert (found["cpu"], found["governor"], found["board"]) == ("Some CPU", ["powersave"], "NVIDIA Jetson")
    assert found["cpu_flags"] == ["avx2", "amx_int8"] and found["hypervisor"] and found["l3_bytes"] == 32 << 20
    here = fingerprint()
    assert same_machine(here, here) == []
    assert any("Some CPU" in text for text in same_machine(here, found))


def test_lateness_is_taken_against_the_grid_and_skips_are_known() -> None:
    """A loop that drifts by 10 us a step is later and later; one that skips a place and says so is not."""
    drifting = np.stack([np.arange(100) * 1_010_000, np.arange(100)], axis=1)
    assert lateness_ns(drifting, 1000)[-1] == pytest.approx(990_000)
    places = np.concatenate([np.arange(50), np.arange(51, 101)])
    skipping = np.stack([places * 1_000_000, places], axis=1)
    found = figures([skipping], 1000)
    assert found["late_max_us"] == 0 and found["overruns_percent"] == pytest.approx(100 / 99, abs=0.01)
    assert figures([drifting], 1000)["drift_us_per_s"] == pytest.approx(10_000, rel=0.1)


@pytest.mark.real_time
def test_streaming_sees_what_a_slow_line_does_to_set_points() -> None:
    """At 115200 baud a set-point takes 4 ms, and most periods go without; at 3 Mbaud nearly all get theirs."""
    slow, fast = stream(115_200, 45, 0.3), stream(3_000_000, 45, 0.3)
    assert slow["starved_share"] > 0.6 and slow["behind_at_end"] > 100
    assert fast["starved_share"] < slow["starved_share"] and fast["behind_at_end"] < 100


def test_a_can_line_is_paced_at_what_its_frames_leave() -> None:
    by_name = {line.name: line.payload_baud for line in LINES}
    assert by_name["serial 1 Mbaud"] == 1_000_000
    assert 500_000 < by_name["CAN 1 Mbit/s (SLCAN)"] < 1_000_000
    text = {line.name: line.proxy_baud for line in LINES}
    assert text["serial 1 Mbaud"] == 1_000_000
    assert text["CAN 1 Mbit/s (SLCAN)"] > 2 * by_name["CAN 1 Mbit/s (SLCAN)"], "two digits a byte, and the id"
    assert by_name["CAN 500 kbit/s (SLCAN)"] == pytest.approx(by_name["CAN 1 Mbit/s (SLCAN)"] / 2, rel=0.01)


@pytest.mark.parametrize("name", ["naive switching", "temporal ensembling"])
def test_a_plan_that_agrees_is_joined_without_a_jump(name: str) -> None:
    """However far the arm lags behind its set-points: the others' ways to join must not lose by our making."""
    step_rad, delay, horizon = 0.02, 2, 6
    increments = np.full((horizon, 1), step_rad)

    class Agrees:
        def request(self, request: PlanRequest) -> None:
            assert len(request.prefix_rad) == 0, "it is not told of the prefix"

        def result(self) -> PlanResult:
            return PlanResult.untimed(1, Outcome.CHUNK, increments)

        def status(self) -> None:
            return None

    joining = BLENDINGS[name](Agrees())
    lagging = SimpleNamespace(measured_urad=(0,), commanded_urad=(100_000,))
    timeline = SimpleNamespace(begun=True, q_urad=lambda step: np.array([100_000 + 20_000 * step]))
    joining.attach(SimpleNamespace(last_state=lagging, timeline=timeline))
    for step in (0, 1):
        none = np.zeros((0, 1))
        joining.request(PlanRequest(1, step, 0, none, none, np.zeros(0, bool), increments[:delay], none, none))
        np.testing.assert_allclose(joining.result().increments_rad, increments, atol=1e-12)


def test_a_trained_policy_is_timed_standing_still(bundle_path: Path, tmp_path: Path) -> None:
    before = load_bundle(bundle_path)
    still = stilled(before, tmp_path / "still")
    assert still.manifest.engines == before.manifest.engines
    for arm, was in zip(still.manifest.arms, before.manifest.arms, strict=True):
        assert {(axis.action.scale, axis.action.offset) for axis in arm.axes} == {(1e-6, 0.0)}
        assert [(axis.state, axis.action.column) for axis in arm.axes] == [
            (axis.state, axis.action.column) for axis in was.axes
        ]
        assert arm.step_s == was.step_s
    assert load_bundle(bundle_path) == before, "the bundle itself is as it was"


def test_only_commits_are_noted_on_the_wire() -> None:
    line = NotingTransport(LoopbackTransport.pair()[0])
    line.write(encode_frame(1, 0, Heartbeat(1)))
    assert line.commits_ns == []
    line.write(encode_frame(1, 1, Commit(1, 16, 1, 0, 100_000, 0)))
    assert len(line.commits_ns) == 1


def test_a_trace_says_when_the_arm_was_there_for_good() -> None:
    closed_loop = pytest.importorskip("bench.closed_loop", reason="needs the sim extra")
    q = np.concatenate([np.zeros(100), np.linspace(0, 1, 1000), np.ones(500)])
    trace = Trace(
        1000 * np.arange(len(q)), np.full(len(q), "STREAMING"), q[:, None], q[:, None], np.ones(len(q), int),
        np.zeros(len(q), int),
    )  # fmt: skip
    assert closed_loop.done_s(trace, lambda at: at[0] > 0.5) == pytest.approx(0.5, abs=0.03)
    assert closed_loop.done_s(trace, lambda at: 0.4 < at[0] < 0.6) is None, "passing by is not being there"
    assert closed_loop.jerk(trace)[0] < 0.1 * closed_loop.jerk(_shaken(trace))[0]


def _shaken(trace: Trace) -> Trace:
    q = trace.q + 1e-3 * (np.arange(len(trace.q)) % 2)[:, None]
    return Trace(trace.tick_us, trace.state, q, trace.dq, trace.chunk, trace.limited)


@pytest.mark.parametrize("command", [["--help"], *([name, "--help"] for name in cli.COMMANDS)], ids=" ".join)
def test_every_command_has_a_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(command)
    assert left.value.code == 0
    assert len(capsys.readouterr().out) > 300


def test_bad_words_are_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ([], ["nothing"], ["latency", "--calls", "0"]):
        with pytest.raises(SystemExit) as left:
            cli.main(command)
        assert left.value.code == 2
    assert cli.main(["latency", "--bundle", "/nowhere", "--without-torch"]) == 2
    assert cli.main(["closed-loop", "--quick"]) == 2
    assert "edge-bench: " in capsys.readouterr().err


def test_measuring_a_bundle_loads_no_torch() -> None:
    """What a robot can run: the command itself, and engines, wire, loop and report of a bundle."""
    modules = "bench.cli, bench.latency, bench.wire, bench.loop, bench.link, bench.report, bench.budget, bench.compare"
    heavy = {"torch", "transformers", "onnx", "mujoco", "matplotlib"}
    script = f"import sys, {modules}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow  # half a minute until the first episode runs
@pytest.mark.parametrize(("whom", "code", "said"), [("all", 130, "stopped"), ("worker", 2, "is there memory for")])
def test_a_closed_loop_ends_at_once_when_it_is_stopped(whom: str, code: int, said: str, bundle_path: Path) -> None:
    command = [sys.executable, "-m", "bench.cli", "closed-loop", "--bundle", str(bundle_path), "--jobs", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True, text=True)
    try:
        while len(workers := _spawned_by(process.pid)) < 2:
            assert process.poll() is None
            time.sleep(0.1)
        time.sleep(10)  # they run episodes
        if whom == "all":
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        else:
            os.kill(workers[0], signal.SIGKILL)
        told = process.communicate(timeout=20)[1]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == code and said in told


def _spawned_by(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid), "-f", "spawn_main"], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]
