"""A run that was stopped, however, and resumed equals one that was not, bit for bit."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from export.families.action_prior.checkpoint import Checkpoint
from export.families.action_prior.policy import VlaPolicy
from export.training import loop
from export.training.data import Demonstrations, fit_embodiment, read_demonstrations
from export.training.distil import distil
from export.training.instructions import InstructionTokens, word_tokenizer
from export.training.interrupts import SIGNALS, Stopped, interrupts
from export.training.mixture import Mixture
from export.training.pointing import Scenes, train_pointing
from export.training.prior import train_prior
from export.training.records import Records, read_records
from export.training.schedule import Settings, TrainingError
from export.training.vla import Plan, Start, train_vla
from tests.export.small import INSTRUCTIONS, QUIET, few, read_windows, small, write_dataset

STEPS, SAVE = 9, 4
Train = Callable[[Path], Checkpoint]
SETTINGS = dataclasses.replace(QUIET, validate_every=3, held_out=0.5, validation_windows=16, micro_batch=4)


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Train]:
    """Every stage with everything that a step may depend on: validation, micro-batches, an average, slow groups."""
    root = tmp_path_factory.mktemp("resume")
    config, schedule = small(), few(STEPS, save_every=SAVE)
    windows, arm = read_windows(write_dataset(root / "data", frames=64), config)
    tokenizer: Tokenizer = word_tokenizer(tuple(INSTRUCTIONS))
    text = InstructionTokens(tokenizer, tuple(INSTRUCTIONS), config.token_budget)

    def prior(folder: Path) -> Checkpoint:
        return train_prior(config, windows, (arm,), schedule, SETTINGS, folder)

    torch.manual_seed(5)
    weights = VlaPolicy(config).state_dict()
    first = Checkpoint(config, {name: value for name, value in weights.items() if "backbone" not in name}, (arm,), None)
    seeing = Checkpoint(config, weights, (arm,), tokenizer.to_str())

    def vla(folder: Path) -> Checkpoint:
        start = Start(first, tokenizer, vlm=seeing)
        return train_vla(start, windows, text, schedule, Plan(distillation_steps=5), SETTINGS, folder)

    def one_step(folder: Path) -> Checkpoint:
        return distil(seeing, windows, text, schedule, 2, SETTINGS, folder)

    return {"prior": prior, "vla": vla, "distil": one_step}


def everything(folder: Path, name: str) -> tuple[dict[str, object], bytes]:
    """All that a run has left: its last state, flattened, and the very bytes of its metrics."""
    state = torch.load(folder / f"{name}.training.pt", weights_only=True)

    def flat(prefix: str, value: object) -> dict[str, object]:
        if isinstance(value, dict):
            items = value.items()
        elif isinstance(value, list | tuple):
            items = enumerate(value)  # type: ignore[assignment]
        else:
            return {prefix: value}
        return {key: inner for name, part in items for key, inner in flat(f"{prefix}/{name}", part).items()}

    return flat("", state), (folder / f"{name}.metrics.jsonl").read_bytes()


def assert_same(one: Path, other: Path, name: str) -> None:
    (a, a_metrics), (b, b_metrics) = everything(one, name), everything(other, name)
    assert a.keys() == b.keys()
    assert any("/optimiser/state" in key for key in a) and any("/average/" in key for key in a)
    for key, value in a.items():
        same = torch.equal(value, b[key]) if isinstance(value, torch.Tensor) else value == b[key]  # type: ignore[arg-type]
        assert same, key
    assert a_metrics == b_metrics
    steps = [int(record["step"]) for record in read_records(other / f"{name}.metrics.jsonl")]
    assert steps == list(range(STEPS)), "no step twice, none left out"


def interrupted(monkeypatch: pytest.MonkeyPatch, train: Train, folder: Path, at: int, how: Callable[[], None]) -> None:
    """Runs `train` until its step `at`, in the middle of which `how` happens."""
    original = loop.Training._gradients

    def gradients(self: loop.Training, step: int) -> dict[str, float]:
        if step == at:
            how()
        return original(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Training, "_gradients", gradients)
        train(folder)


class Crash(Exception):
    pass


def crash() -> None:
    raise Crash


@pytest.mark.parametrize("name", ["prior", "vla", "distil"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    name: str, stages: dict[str, Train], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, whole, halves = stages[name], tmp_path / "whole", tmp_path / "halves"
    whole.mkdir()
    halves.mkdir()
    first = train(whole)
    with pytest.raises(Crash):  # three steps after the last save: they are computed and recorded again
        interrupted(monkeypatch, train, halves, SAVE + 3, crash)
    assert len(read_records(halves / f"{name}.metrics.jsonl")) == SAVE + 3
    with pytest.raises(Stopped, match="stopped after step 7"):  # between saves, by Ctrl-C
        interrupted(monkeypatch, train, halves, SAVE + 2, lambda: signal.raise_signal(signal.SIGINT))
    assert torch.load(halves / f"{name}.training.pt", weights_only=True)["steps"] == SAVE + 3
    resumed = train(halves)
    assert_same(whole, halves, name)
    assert all(torch.equal(value, resumed.state_dict[key]) for key, value in first.state_dict.items())
    again = train(halves)
    assert all(torch.equal(value, again.state_dict[key]) for key, value in first.state_dict.items()), "finished stays"


KILLED = """
import sys
from pathlib import Path
from export.training.prior import train_prior
from tests.export.small import QUIET, few, read_windows, small
windows, arm = read_windows(Path(sys.argv[1]), small())
train_prior(small(), windows, (arm,), few(40, save_every=1), QUIET, Path(sys.argv[2]))
"""


def test_a_run_that_was_killed_goes_on(tmp_path: Path) -> None:
    """SIGKILL at any time: the state on the disk is that of a whole step, and the end is the same."""
    data, whole, killed = write_dataset(tmp_path / "data"), tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    state = killed / "prior.training.pt"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(data), str(killed)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not state.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert 1 <= torch.load(state, weights_only=True)["steps"] < 40
    windows, arm = read_windows(data, small())
    one, two = (train_prior(small(), windows, (arm,), few(40, save_every=40), QUIET, out) for out in (whole, killed))
    assert all(torch.equal(value, two.state_dict[name]) for name, value in one.state_dict.items())
    assert (whole / "prior.metrics.jsonl").read_bytes() == (killed / "prior.metrics.jsonl").read_bytes()


def test_a_second_ctrl_c_does_not_wait(
    stages: dict[str, Train], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        interrupted(monkeypatch, stages["prior"], tmp_path, 2, twice)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": 4}, "belongs to a run with seed 3, this one has 4"),
        ({"ema_decay": 0.5}, "belongs to a run with ema_decay 0.99"),
        ({"precision": "bf16"}, "belongs to a run with precision fp32"),
    ],
)
def test_another_run_is_not_resumed(tmp_path: Path, settings: dict[str, object], message: str) -> None:
    config = small()
    windows, arm = read_windows(write_dataset(tmp_path / "data"), config)
    train_prior(config, windows, (arm,), few(1), QUIET, tmp_path)
    other = dataclasses.replace(QUIET, **settings)  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match=message):
        train_prior(config, windows, (arm,), few(1), other, tmp_path)
    with pytest.raises(TrainingError, match="belongs to a run with steps 1, this one has 2"):
        train_prior(config, windows, (arm,), few(2), QUIET, tmp_path)
    shorter, _ = read_windows(write_dataset(tmp_path / "more", episodes=4), config)
    with pytest.raises(TrainingError, match="belongs to a run with data"):
        train_prior(config, shorter, (arm,), few(1), QUIET, tmp_path)


CHANGES: dict[str, Callable[[Demonstrations], dict[str, object]]] = {
    "states": lambda data: {"states": _changed(data.states, np.float32(1e-3))},
    "actions": lambda data: {"actions": _changed(data.actions, np.float32(1e-3))},
    "frames": lambda data: {"frames": _changed(data.frames, np.uint8(1))},
    "instructions": lambda data: {"instructions": (data.instructions[0] + "s", *data.instructions[1:])},
    "instruction of every step": lambda data: {"instruction": _changed(data.instruction, np.int32(1))},
    "segments": lambda data: {"segment": _changed(data.segment, np.int64(1))},
    "episodes": lambda data: {"episode": _changed(data.episode, np.int64(1))},
}
"""One value of each kind of a dataset, changed in one place."""


def _changed(values: Any, by: Any) -> Any:
    """A copy with one entry changed, not one that a sample of evenly spaced rows would see."""
    values = values.copy()
    values[(len(values) // 2 + 7, *(0 for _ in values.shape[1:]))] += by
    return values


@pytest.mark.parametrize("what", list(CHANGES))
def test_one_changed_value_in_the_data_is_refused_by_name(what: str, tmp_path: Path) -> None:
    config, schedule = small(), few(2)
    data = read_demonstrations(write_dataset(tmp_path / "data", frames=64, episodes=4), config=config)
    arm = fit_embodiment(data, 0, config.normalisation_quantile)
    tokenizer = word_tokenizer(tuple(INSTRUCTIONS))
    torch.manual_seed(5)
    first = Checkpoint(config, VlaPolicy(config).state_dict(), (arm,), tokenizer.to_str())

    def train(changed: Demonstrations) -> None:
        windows = Mixture([data, changed], (arm,), config)
        text = InstructionTokens(tokenizer, changed.instructions, config.token_budget)
        train_vla(Start(first, tokenizer), windows, text, schedule, Plan(0), QUIET, tmp_path)

    train(data)
    train(dataclasses.replace(data, states=data.states.copy()))  # the same values are the same run
    with pytest.raises(TrainingError, match=f"belongs to a run with data: {what} of dataset 2 "):
        train(dataclasses.replace(data, **CHANGES[what](data)))


def test_one_changed_value_of_the_scenes_is_refused_by_name(tmp_path: Path) -> None:
    scenes = Scenes(tuple(INSTRUCTIONS), np.zeros((200, 64, 64, 3), np.uint8), np.random.rand(200, 3, 2).astype("f4"))
    tokenizer = word_tokenizer(tuple(INSTRUCTIONS))
    train_pointing(small(), tokenizer, scenes, few(1), QUIET, tmp_path)
    changed = {
        "frames": dataclasses.replace(scenes, frames=_changed(scenes.frames, np.uint8(1))),
        "places": dataclasses.replace(scenes, xy_m=_changed(scenes.xy_m, np.float32(1e-3))),
        "instructions": dataclasses.replace(scenes, instructions=(*scenes.instructions[:-1], scenes.instructions[0])),
    }
    for what, other in changed.items():
        with pytest.raises(TrainingError, match=f"belongs to a run with data: {what} "):
            train_pointing(small(), tokenizer, other, few(1), QUIET, tmp_path)


def test_a_damaged_state_is_refused_with_its_cure(tmp_path: Path) -> None:
    config = small()
    windows, arm = read_windows(write_dataset(tmp_path / "data"), config)
    train_prior(config, windows, (arm,), few(1), QUIET, tmp_path)
    state = tmp_path / "prior.training.pt"
    whole = state.read_bytes()
    state.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TrainingError, match="delete it to begin anew"):
        train_prior(config, windows, (arm,), few(1), QUIET, tmp_path)
    torch.save({"step": 1, "module": {}, "optimiser": {}}, state)  # as versions before 0.2 wrote it
    with pytest.raises(TrainingError, match="was written by another version; delete it"):
        train_prior(config, windows, (arm,), few(1), QUIET, tmp_path)


def test_a_line_that_was_cut_short_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "x.metrics.jsonl"
    path.write_text('{"step": 0, "loss": 1.0}\n{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    kept = Records(tmp_path, "x", 2, tensorboard=False)
    kept.write({"step": 2, "loss": 3.0})
    kept.close()
    assert [record["loss"] for record in read_records(path)] == [1.0, 2.0, 3.0]


def test_parts_of_another_size_may_go_on_with_a_run(
    stages: dict[str, Train], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only rounds differently is no other run: a machine with less memory finishes what another began."""
    config = small()
    windows, arm = read_windows(write_dataset(tmp_path / "data"), config)

    def train(settings: Settings) -> Checkpoint:
        return train_prior(config, windows, (arm,), few(4, save_every=2), settings, tmp_path)

    with pytest.raises(Crash):
        interrupted(monkeypatch, lambda _: train(QUIET), tmp_path, 3, crash)
    train(dataclasses.replace(QUIET, micro_batch=3))
    assert [record["step"] for record in read_records(tmp_path / "prior.metrics.jsonl")] == [0, 1, 2, 3]


@pytest.mark.parametrize("number", SIGNALS)
def test_every_signal_to_end_is_taken_after_the_step(number: signal.Signals) -> None:
    with interrupts(alone=True) as watch:
        signal.raise_signal(number)
    assert watch.requested


def test_under_nohup_the_end_of_the_terminal_means_nothing() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupts(alone=True) as watch:
            signal.raise_signal(signal.SIGHUP)
        assert not watch.requested
    finally:
        signal.signal(signal.SIGHUP, before)
