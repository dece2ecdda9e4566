"""Several datasets as one: every window in its place, drawn by weight, the same at the same step."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from export.commands.train import main
from export.families.action_prior.checkpoint import load_checkpoint
from export.families.action_prior.config import tiny
from export.training.data import fit_embodiments
from export.training.instructions import InstructionTokens, word_tokenizer
from export.training.mapping import read_mapping, shipped_mappings
from export.training.mixture import Mixture, read_all
from export.training.schedule import Settings, TrainingError
from export.training.source import sampler_of
from tests.recordings import INSTRUCTIONS, write_dataset

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def other_arm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mapping that makes another embodiment of the same columns."""
    file = tmp_path_factory.mktemp("mapping") / "arm.toml"
    fr3 = next(mapping for mapping in shipped_mappings() if mapping.name == "fr3")
    file.write_text(
        fr3.file.read_text()
        .replace('arm = "franka"\n', "")
        .replace('"fr3"', '"arm"')
        .replace("unit", "scale = -1.0\nunit")
    )
    return file


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory, other_arm: Path) -> Mixture:
    folder = tmp_path_factory.mktemp("data")
    one = write_dataset(folder / "one", frames=128)
    two = write_dataset(folder / "two", frames=128, robot="arm", seed=1)
    datasets = read_all([one, two], [read_mapping(other_arm)], tiny())
    return Mixture(datasets, fit_embodiments(datasets, 0.01), tiny())


def test_windows_come_back_in_the_order_asked_for(mixture: Mixture) -> None:
    rows = np.array([150, 3, 130, 119, 120, 0])
    batch = mixture.window(rows, CPU)
    assert batch.embodiment.tolist() == [1, 0, 1, 0, 1, 0]
    for place, row in enumerate(rows):
        part, step = (mixture.parts[1], row - 120) if row >= 120 else (mixture.parts[0], row)
        alone = part.window(np.array([step]), CPU)
        for field in fields(alone):
            assert torch.equal(getattr(batch, field.name)[place], getattr(alone, field.name)[0]), field.name


def test_frames_and_instructions_too(mixture: Mixture) -> None:
    text = InstructionTokens(word_tokenizer(INSTRUCTIONS), INSTRUCTIONS, 8)
    rows = np.array([200, 10, 130])
    seen = mixture.observation(rows, text, CPU)
    assert isinstance(seen.frames, torch.Tensor)
    for place, row in enumerate(rows):
        part, step = (mixture.parts[1], row - 120) if row >= 120 else (mixture.parts[0], row)
        alone = part.observation(np.array([step]), text, CPU)
        assert torch.equal(seen.frames[place], alone.frames[0]) and torch.equal(seen.tokens[place], alone.tokens[0])
    assert np.array_equal(mixture.frames(rows), seen.frames.numpy())


def test_episodes_and_whole_windows_are_counted_through(mixture: Mixture) -> None:
    assert len(mixture) == 240
    assert np.array_equal(mixture.episode, np.repeat([0, 1, 2, 3], 60))
    assert mixture.window(mixture.whole(), CPU).valid.all()
    assert len(mixture.whole()) == 2 * len(mixture.parts[0].whole())


def test_weights_say_how_often_a_dataset_is_drawn(mixture: Mixture) -> None:
    everything = np.arange(240)
    settings = Settings(seed=0, weights=(3.0, 1.0))
    drawn = sampler_of(mixture, everything, 4000, settings)(5)
    assert 0.72 < (drawn < 120).mean() < 0.78
    assert len(np.unique(drawn)) == 240
    assert np.array_equal(drawn, sampler_of(mixture, everything, 4000, settings)(5))
    evenly = sampler_of(mixture, everything, 8, Settings(seed=0))(5)
    assert np.array_equal(evenly, np.random.default_rng([0, 5]).choice(240, 8)), "as of one dataset"
    held_out = everything[mixture.episode != 2]
    assert np.isin(sampler_of(mixture, held_out, 1000, settings)(0), held_out).all()
    for weights in ((1.0,), (1.0, -1.0), (0.0, 0.0)):
        with pytest.raises(TrainingError, match="weight"):
            sampler_of(mixture, everything, 8, replace(settings, weights=weights))


def test_a_prior_is_trained_on_two_arms(tmp_path: Path, other_arm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = write_dataset(tmp_path / "one", frames=128)
    two = write_dataset(tmp_path / "two", robot="arm", seed=1)
    few = ["--steps", "2", "--batch", "4", "--mapping", str(other_arm)]
    data = ["--data", str(one), str(two), "--weights", "1", "2"]
    assert main(["prior", *data, "--out", str(tmp_path / "a"), *few]) == 0
    prior = tmp_path / "a" / "checkpoint.pt"
    assert [arm.name for arm in load_checkpoint(prior).embodiments] == ["fr3", "arm"]
    assert main(["vla", "--prior", str(prior), "--data", str(one), "--out", str(tmp_path / "b"), *few]) == 0
    assert main(["vla", "--prior", str(prior), *data, "--out", str(tmp_path / "c"), *few]) == 2
    assert "which the policy sees; it has none" in capsys.readouterr().err
    assert main(["prior", "--data", str(one), "--weights", "1", "2", "--out", str(tmp_path / "d"), *few]) == 2
    assert "give each one" in capsys.readouterr().err
    assert main(["prior", "--data", str(tmp_path / "nothing"), "--out", str(tmp_path / "e"), *few]) == 2
    assert "no meta/info.json there" in capsys.readouterr().err
