"""The examples, each as a user starts it, and the front behind them in real time."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import edge
from edge.errors import InputError
from edge.log.mcap_log import LogError
from edge.log.trace import Trace, read_trace
from edge.policy.base import PolicyInput
from edge.run.replay_table import replay_log
from tests.support import FRANKA, HOME, broken_limits, states_in_order

ROOT = Path(__file__).resolve().parents[1]
RECORDED = ROOT / "tests" / "edge" / "run" / "recorded"
STEPS = 15


def example(name: str, *arguments: object) -> str:
    """What it prints."""
    command = [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.real_time
def test_run_a_bundle(bundle_path: Path) -> None:
    found = re.match(r"duration: (\d+) chunks, .*'target': 'red'", example("run_a_bundle.py", bundle_path, 2))
    assert found and int(found[1]) >= 2


def test_step_a_policy(bundle_path: Path) -> None:
    assert "after 0.1 s a step: [" in example("step_a_policy.py", bundle_path, 12)


@pytest.mark.real_time
def test_own_policy() -> None:
    found = re.match(r"duration: moved by up to (\S+) rad", example("own_policy.py", 1.5))
    assert found and 0.05 < float(found[1]) <= 0.11


def test_the_readmes_python_is_the_example() -> None:
    shown = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert shown == [(ROOT / "examples" / "own_policy.py").read_text().split('"""\n\n', 1)[1]]


@pytest.mark.real_time
def test_stream_set_points() -> None:
    found = re.match(r"policy: (\d+) chunks in (\S+) s", example("stream_set_points.py", 1.5))
    assert found and int(found[1]) > 5 and 1.0 < float(found[2]) < 4


def test_read_a_log() -> None:
    printed = example("read_a_log.py", RECORDED / "stop.mcap")
    assert "'decision': 'stop'" in printed
    counts = eval(printed.splitlines()[-1])
    assert counts["/report"] == 1 and counts["/joints/measured"] > 100 and "/journal" not in counts


def test_every_example_is_run_here() -> None:
    mine = Path(__file__).read_text() + (ROOT / "tests" / "test_ray_serve.py").read_text()
    assert all(f'"{path.name}"' in mine for path in (ROOT / "examples").glob("*.py"))


def test_the_front_is_light_and_whole() -> None:
    script = "import sys, edge; print(sorted({'numpy', 'onnxruntime', 'serial'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert all(getattr(edge, name) is not None for name in edge.__all__)
    with pytest.raises(AttributeError, match="no attribute 'fly'"):
        _ = edge.fly


def test_a_log_that_is_cut_or_none(tmp_path: Path) -> None:
    whole = list(edge.read_log(RECORDED / "stop.mcap"))
    cut = tmp_path / "cut.mcap"
    cut.write_bytes((RECORDED / "stop.mcap").read_bytes()[:60_000])
    part = list(edge.read_log(cut))
    assert 0 < len(part) < len(whole) and part == whole[: len(part)]
    cut.write_bytes(b"no log at all")
    with pytest.raises(LogError, match="is not an MCAP file"):
        list(edge.read_log(cut))
    with pytest.raises(LogError, match="No such file"):
        list(edge.read_log(tmp_path / "none.mcap"))


def test_a_step_is_the_row_of_a_chunk(bundle_path: Path) -> None:
    policy = edge.open_policy(bundle_path, "franka", "reach the red cube", execute_steps=3)
    frames = np.full((1, *policy.cameras[0].frame_px, 3), 90, np.uint8)
    steps = [policy.step(frames, HOME) for _ in range(3)]
    history = policy.shape.history
    states, rest = np.tile(HOME, (history, 1)), np.zeros((history, 7))
    seen = PolicyInput(frames, states, rest, np.ones(history, np.bool_), np.zeros((0, 7)), (0, 0))
    np.testing.assert_array_equal(steps, policy.infer(seen).increments_rad[:3])
    actions = np.vstack([rest[3:], steps])
    later = PolicyInput(frames, states, actions, np.ones(history, np.bool_), np.zeros((0, 7)), (0, 3))
    fourth = policy.step(frames, HOME)
    np.testing.assert_array_equal(fourth, policy.infer(later).increments_rad[0])
    assert not np.array_equal(fourth, steps[0])
    for wrong in (np.full(7, np.nan), HOME[:6]):
        with pytest.raises(InputError, match="this policy moves 7 joints"):
            policy.step(frames, wrong)
    with pytest.raises(InputError, match="this policy sees uint8"):
        policy.step(frames[:, :8], HOME)


# The front in real time: whatever the user's code does, the arm stops and the drive is off ---------------------------


def ended_at_rest(trace_file: Path) -> Trace:
    trace = read_trace(trace_file)
    assert broken_limits(trace, FRANKA) == []
    order = [str(state) for state in states_in_order(trace)]
    assert "STREAMING" in order and "DECEL" in order and order[-2:] == ["HOLD", "IDLE"]
    return trace


def nod(observation: edge.Observation) -> np.ndarray:
    time_s = 0.1 * (observation.step + 1 + np.arange(STEPS))
    return HOME + 0.05 * (1 - np.cos(2.0 * time_s))[:, None] * np.ones(7)


@pytest.mark.real_time
def test_an_exception_in_the_function_stops_the_arm_and_comes_out(tmp_path: Path) -> None:
    def broken(observation: edge.Observation) -> np.ndarray:
        if observation.step >= 3:
            raise LookupError("nothing found")
        return nod(observation)

    trace = tmp_path / "trace.csv"
    with (
        edge.connect("franka", "sim:", scene_seed=None, trace=trace) as arm,
        pytest.raises(LookupError, match="nothing found"),
    ):
        arm.run(broken, duration_s=20, execute_steps=3)
    ended_at_rest(trace)


@pytest.mark.real_time
def test_a_function_that_hangs_delays_nothing_but_its_chunk(tmp_path: Path) -> None:
    release = threading.Event()

    def hangs(observation: edge.Observation) -> np.ndarray:
        if observation.step >= 3:
            release.wait(20)
        return nod(observation)

    trace = tmp_path / "trace.csv"
    with edge.connect("franka", "sim:", scene_seed=None, trace=trace) as arm:
        outcome = arm.run(hangs, duration_s=20, execute_steps=3, log=tmp_path / "run.mcap")
    release.set()
    assert outcome.ended == "safety stop" and "inference has not answered for" in (outcome.error or "")
    ended_at_rest(trace)
    assert any("has not answered" in str(message.content) for message in edge.read_log(tmp_path / "run.mcap"))
    assert replay_log(tmp_path / "run.mcap") == 0, "the thread writes nothing into the journal"


@pytest.mark.real_time
def test_ctrl_c_ends_a_run_and_the_next_one_begins_afresh(tmp_path: Path) -> None:
    trace, pressed = tmp_path / "trace.csv", []

    def presses(observation: edge.Observation) -> np.ndarray:
        """Ctrl-C in mid-motion, once: one that comes later would end the tests themselves."""
        if observation.step >= 10 and not pressed:
            pressed.append(observation.step)
            os.kill(os.getpid(), signal.SIGINT)
        return nod(observation)

    with edge.connect("franka", "sim:", scene_seed=None, trace=trace) as arm:
        assert arm.run(presses, duration_s=20).ended == "user"
        time.sleep(1.0)  # reports wait in the line meanwhile
        np.testing.assert_allclose(arm.q_rad()[0], arm.q_rad()[6] - HOME[6] + HOME[0], atol=1e-4)
        assert arm.run(lambda observation: None, duration_s=20).ended == "policy"
    ended_at_rest(trace)
