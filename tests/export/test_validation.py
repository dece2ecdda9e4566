"""Validation judges whole chunks on episodes that were held out, always the same way; and what is logged of a run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from export.families.action_prior.policy import ActionPrior
from export.training import prior as prior_module
from export.training.prior import train_prior
from export.training.processes import ALONE
from export.training.schedule import Settings, TrainingError
from export.training.source import split
from export.training.validation import chunk_errors, fixed_noise, held_out_validation, own_units
from tests.export.small import QUIET, few, read_windows, records, small, write_dataset

JUDGED = dataclasses.replace(QUIET, validate_every=4, held_out=0.25, validation_windows=40)


def held_out(share: float, seed: int, **changes: int) -> Settings:
    return Settings(seed=seed, validate_every=1, held_out=share, **changes)  # type: ignore[arg-type]


def test_the_last_episodes_are_held_out_whatever_the_seed() -> None:
    episode = np.repeat(np.arange(20), 7)
    for seed in (1, 2):
        found = split(np.arange(140), episode, held_out(0.2, seed, held_out_last=3))
        assert sorted(set(episode[found.held_out])) == [17, 18, 19]
    other = split(np.arange(140), episode, held_out(0.2, 2, validation_seed=1))
    assert np.array_equal(other.held_out, split(np.arange(140), episode, held_out(0.2, 1)).held_out)
    with pytest.raises(TrainingError, match="too few"):
        split(np.arange(140), episode, held_out(0.2, 1, held_out_last=20))


def test_held_out_episodes_are_whole_and_seeded() -> None:
    episode = np.repeat(np.arange(20), 7)
    candidates = np.arange(140)[::2]
    found = split(candidates, episode, held_out(0.2, 1))
    assert len(np.unique(episode[found.held_out])) == 4
    assert set(episode[found.held_out]).isdisjoint(episode[found.training])
    assert sorted([*found.training, *found.held_out]) == list(candidates)
    assert np.array_equal(found.held_out, split(candidates, episode, held_out(0.2, 1)).held_out)
    assert not np.array_equal(found.held_out, split(candidates, episode, held_out(0.2, 2)).held_out)
    assert len(split(candidates, episode, held_out(0.0, 1)).held_out) == 0
    with pytest.raises(TrainingError, match="1 episodes are too few"):
        split(candidates, np.zeros(140), held_out(0.5, 1))


def test_training_never_sees_what_was_held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small()
    windows, arm = read_windows(write_dataset(tmp_path / "data", episodes=8), config)
    trained_on: set[int] = set()
    judged_on: set[int] = set()
    original = type(windows).window

    def window(self: object, rows: np.ndarray, device: torch.device) -> object:
        (trained_on if len(rows) == 16 else judged_on).update(map(int, rows))
        return original(windows, rows, device)

    monkeypatch.setattr(type(windows), "window", window)
    monkeypatch.setattr(prior_module, "identity_of", lambda *_: {})
    train_prior(config, windows, (arm,), few(8, batch=16), JUDGED, tmp_path)
    episodes = windows.data.episode
    assert len(np.unique(episodes[list(judged_on)])) == 2
    assert set(episodes[list(judged_on)]).isdisjoint(episodes[list(trained_on)])


def test_the_error_is_that_of_valid_actions_in_use(tmp_path: Path) -> None:
    config = small(noise_scale=1.0)
    windows, arm = read_windows(write_dataset(tmp_path), config)
    rows = np.array([3, 55, 62])
    window = windows.window(rows, torch.device("cpu"))
    torch.manual_seed(0)
    policy = ActionPrior(config).eval()
    noise = fixed_noise(config, 3, seed=4)
    z = policy.encode_future(window)
    found = chunk_errors(policy, window, z.detach(), noise, own_units((arm,), config))
    nothing = torch.zeros(3, 15, dtype=torch.bool)
    chunk = policy.chunk(noise, z, torch.zeros_like(window.actions), nothing, window.slots.float())
    total = own = 0.0
    for row in range(3):
        for step in range(int(window.valid[row].sum())):
            for joint in range(7):
                away = abs(float(chunk[row, step, 29 + joint] - window.actions[row, step, 29 + joint]))
                total, own = total + away, own + away * arm.actions.scale[joint]
    assert found.actions == 7 * int(window.valid.sum()) == 7 * (15 + 5 + 15)
    assert found.normalised == pytest.approx(total, rel=1e-5)
    assert found.own == pytest.approx(own, rel=1e-5)


def test_validation_is_the_same_every_time_and_does_not_touch_training(tmp_path: Path) -> None:
    config = small(noise_scale=1.0)
    windows, arm = read_windows(write_dataset(tmp_path / "data", episodes=4), config)
    torch.manual_seed(0)
    policy = ActionPrior(config).eval()
    rows = np.arange(60, 240)

    def judge(seed: int) -> dict[str, float]:
        settings = dataclasses.replace(JUDGED, seed=seed, validation_windows=150)
        device = torch.device("cpu")
        found = held_out_validation(
            policy, windows, rows, (arm,), settings, device, lambda _, window: policy.encode_future(window)
        )
        assert found is not None and len(found.rows) == 150
        return found.judge(ALONE)

    assert judge(1) == judge(1) != judge(2)
    kept = {}
    for name, every in (("often", 1), ("once", 6)):
        out = tmp_path / name
        out.mkdir()
        settings = dataclasses.replace(JUDGED, validate_every=every)
        kept[name] = train_prior(config, windows, (arm,), few(6), settings, out).state_dict
    assert all(torch.equal(value, kept["once"][key]) for key, value in kept["often"].items())


def test_training_stops_at_the_error_and_says_when(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, schedule = small(pose_weight=0.0), few(400, batch=32, peak_rate=1e-2)
    windows, arm = read_windows(write_dataset(tmp_path / "data", episodes=4), config)
    settings = dataclasses.replace(JUDGED, log_every=1000, stop_at_error=0.6)
    first = train_prior(config, windows, (arm,), schedule, settings, tmp_path)
    found = records(tmp_path, "prior")
    errors = [record["validation_mae"] for record in found if "validation_mae" in record]
    assert errors[-1] <= 0.6 < min(errors[:-1])
    steps = int(found[-1]["step"]) + 1
    assert steps < 400 and steps % 4 == 0
    assert 0 < found[-1]["validation_mae_rad"] < found[-1]["validation_mae"]
    assert f"a validation error of 0.6 was reached after {steps} steps" in capsys.readouterr().out
    again = train_prior(config, windows, (arm,), schedule, settings, tmp_path)
    assert len(records(tmp_path, "prior")) == len(found), "it is reached once"
    assert all(torch.equal(value, again.state_dict[name]) for name, value in first.state_dict.items())
    never = dataclasses.replace(settings, stop_at_error=1e-6)
    (tmp_path / "never").mkdir()
    train_prior(config, windows, (arm,), few(4), never, tmp_path / "never")
    assert "was reached not within 4 steps" in capsys.readouterr().out


def test_tensorboard_gets_what_the_file_gets(tmp_path: Path) -> None:
    config = small()
    windows, arm = read_windows(write_dataset(tmp_path / "data", episodes=4), config)
    settings = dataclasses.replace(JUDGED, tensorboard=True)
    train_prior(config, windows, (arm,), few(8), settings, tmp_path)
    board = EventAccumulator(str(tmp_path / "tensorboard" / "prior"))
    board.Reload()
    wanted = records(tmp_path, "prior")
    names = {"loss", "reconstruct", "pose", "gradient_norm", "rate", "validation_mae", "validation_mae_rad"}
    names |= {"validation_committed_mae", "validation_return"}  # of random motion, begun at rest: none stays there
    assert names | {"steps_per_second"} == set(board.Tags()["scalars"])
    for name in names:
        logged = {event.step: event.value for event in board.Scalars(name)}
        expected = {int(record["step"]): record[name] for record in wanted if name in record}
        assert logged == pytest.approx(expected, rel=1e-6)
    assert len(board.Scalars("loss")) == 8 and len(board.Scalars("validation_mae")) == 2
