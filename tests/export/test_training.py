"""All stages learn, resume exactly, and refuse broken data with its row."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from export.commands.train import main
from export.policy.checkpoint import Checkpoint, CheckpointError, load_checkpoint
from export.policy.config import tiny
from export.policy.policy import VlaPolicy
from export.training.data import Windows, fit_embodiment, read_demonstrations
from export.training.instructions import word_tokenizer
from export.training.loop import Pretrained, Schedule, run
from export.training.mixture import Mixture
from export.training.pointing import Scenes, train_pointing
from export.training.prior import train_prior
from export.training.vla import SeenFrames, train_vla
from tests.recordings import write_dataset


def test_windows_stop_at_the_end_of_an_instruction_and_begin_at_rest(tmp_path: Path) -> None:
    data = read_demonstrations(write_dataset(tmp_path))
    config = tiny()
    windows = Windows(data, fit_embodiment(data, 0, 0.01), config)
    batch = windows.window(np.array([0, 55, 62, 85, 119]), torch.device("cpu"))
    assert batch.valid.sum(dim=1).tolist() == [15, 5, 15, 5, 1]
    assert batch.past_mask.all()
    assert torch.all(batch.past_actions[0] == 0)
    assert torch.equal(batch.past_states[0], batch.states[0, :1].expand(15, -1))
    assert torch.all(batch.past_actions[2, :13] == 0) and torch.all(batch.past_actions[2, 13:, 29:36] != 0)
    assert torch.equal(batch.past_states[2, 12], batch.past_states[2, 13]), "filled up with the episode's first state"


def test_whole_windows_end_before_the_next_instruction(tmp_path: Path) -> None:
    data = read_demonstrations(write_dataset(tmp_path))
    windows = Windows(data, fit_embodiment(data, 0, 0.01), tiny())
    everything = np.arange(len(windows))
    valid = windows.window(everything, torch.device("cpu")).valid.all(dim=1).numpy()
    assert 0 < valid.sum() < len(windows)
    assert np.array_equal(windows.whole(), everything[valid])


def test_statistics_ignore_outliers(tmp_path: Path) -> None:
    data = read_demonstrations(write_dataset(tmp_path))
    plain = fit_embodiment(data, 0, 0.02).states.scale
    spoilt = data.states.copy()
    spoilt[50] = 1e6
    robust = fit_embodiment(dataclasses.replace(data, states=spoilt), 0, 0.02).states.scale
    assert robust == pytest.approx(plain, rel=0.2)


def test_the_prior_learns_and_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    data = read_demonstrations(write_dataset(tmp_path / "data"))
    schedule = Schedule(steps=40, batch=16, warmup=5, peak_rate=2e-3, final_rate=1e-5, save_every=20)

    class Interrupted(Exception):
        pass

    def train(folder: Path, stop_at: int | None = None) -> dict[str, torch.Tensor]:
        folder.mkdir(exist_ok=True)
        original = Schedule.rate

        def rate(self: Schedule, step: int) -> float:
            if step == stop_at:
                raise Interrupted
            return original(self, step)

        Schedule.rate = rate  # type: ignore[method-assign]
        try:
            return train_prior(tiny(), [data], schedule, seed=3, folder=folder).state_dict
        finally:
            Schedule.rate = original  # type: ignore[method-assign]

    whole = train(tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(tmp_path / "halves", stop_at=27)
    resumed = train(tmp_path / "halves")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    losses = [
        json.loads(line)["loss"] for line in (tmp_path / "whole" / "prior.metrics.jsonl").read_text().splitlines()
    ]
    assert losses[-1] < 0.8 * losses[0]


def test_what_was_pretrained_moves_less(tmp_path: Path) -> None:
    """The same gradient on every weight: those that knew something move at a fraction of the rate, and warm up."""
    module = torch.nn.ParameterDict(
        {"new": torch.nn.Parameter(torch.ones(4)), "known": torch.nn.Parameter(torch.ones(4))}
    )
    schedule = Schedule(steps=1, batch=1, warmup=0, peak_rate=1e-2, final_rate=1e-2, weight_decay=0.0)
    pretrained = Pretrained((module["known"],), rate_factor=0.5, warmup=10)

    def losses_at(step: int, rows: np.ndarray) -> dict[str, torch.Tensor]:
        return {"loss": sum(weight.sum() for weight in module.values())}

    run(module, losses_at, np.arange(3), schedule, 0, tmp_path, "two", pretrained)
    moved = {name: float((1 - weight.detach()).mean()) for name, weight in module.items()}
    assert moved["known"] == pytest.approx(0.05 * moved["new"], rel=1e-4)
    assert pretrained.factor(9) == pretrained.factor(500) == 0.5


def test_the_latent_learns_where_the_arm_is(tmp_path: Path) -> None:
    data = read_demonstrations(write_dataset(tmp_path / "data"))
    (tmp_path / "x").mkdir()
    schedule = Schedule(steps=100, batch=16, warmup=5, peak_rate=2e-3, final_rate=1e-5)
    train_prior(tiny(), [data], schedule, 0, tmp_path)
    pose = [json.loads(line)["pose"] for line in (tmp_path / "prior.metrics.jsonl").read_text().splitlines()]
    assert pose[-1] < 0.2 * pose[0]
    without = train_prior(
        dataclasses.replace(tiny(), pose_weight=0.0), [data], Schedule(1, 4, 0, 1e-3, 1e-3), 0, tmp_path / "x"
    )
    assert not any(name.startswith("pose") for name in without.state_dict)


def write_scenes(folder: Path, instructions: tuple[str, ...]) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir()
    frames, xy_m = rng.integers(0, 255, (8, 128, 128, 3), dtype=np.uint8), rng.random((8, 3, 2), dtype=np.float32)
    np.savez(folder / "scenes.npz", frames=frames, xy_m=xy_m)
    (folder / "scenes.json").write_text(json.dumps({"format": 1, "instructions": instructions}))
    return folder


def test_all_stages_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(write_dataset(tmp_path / "data", frames=True))
    instructions = read_demonstrations(Path(data)).instructions
    scenes = write_scenes(tmp_path / "scenes", instructions)
    few = ["--steps", "2", "--batch", "4"]
    assert main(["point", "--data", str(scenes), "--out", str(tmp_path / "v"), *few]) == 0
    vlm = str(tmp_path / "v" / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="stage-0 checkpoint"):
        load_checkpoint(Path(vlm)).build()
    assert main(["prior", "--data", data, "--out", str(tmp_path / "a"), "--steps", "3", "--batch", "4"]) == 0
    prior = str(tmp_path / "a" / "checkpoint.pt")
    assert main(["vla", "--prior", prior, "--vlm", vlm, "--data", data, "--out", str(tmp_path / "b"), *few]) == 0
    checkpoint = load_checkpoint(tmp_path / "b" / "checkpoint.pt")
    assert checkpoint.embodiments[0].name == "fr3"
    checkpoint.build()
    assert "seed 0" in capsys.readouterr().out
    other = write_scenes(tmp_path / "other", ("reach the mauve cube",))
    assert main(["point", "--data", str(other), "--out", str(tmp_path / "w"), *few]) == 0
    words = ["--prior", prior, "--vlm", str(tmp_path / "w" / "checkpoint.pt"), "--data", data]
    assert main(["vla", *words, "--out", str(tmp_path / "c"), *few]) == 2
    assert "other instructions" in capsys.readouterr().err
    assert main(["point", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "d"), *few]) == 2
    assert "rendered scenes" in capsys.readouterr().err


def test_what_is_frozen_stays_and_is_computed_once(tmp_path: Path) -> None:
    data = read_demonstrations(write_dataset(tmp_path / "data", frames=True), config=tiny())
    tokenizer = word_tokenizer(data.instructions)
    few = Schedule(steps=2, batch=4, warmup=1, peak_rate=1e-3, final_rate=1e-3)
    prior = train_prior(tiny(), [data], few, 0, tmp_path)
    vlm = Checkpoint(tiny(), VlaPolicy(tiny()).state_dict(), (), tokenizer.to_str())
    (tmp_path / "vla").mkdir()
    after = train_vla(prior, vlm, tokenizer, [data], few, 1, 0, tmp_path / "vla", freeze_prior=True)
    moved = {name for name, value in after.state_dict.items() if not torch.equal(value, whole_before(prior, vlm)[name])}
    assert moved and all(name.startswith("backbone.") and ".visual." not in name for name in moved)
    records = (tmp_path / "vla" / "vla.metrics.jsonl").read_text().splitlines()
    assert "align" in json.loads(records[0]) and "reconstruct" not in json.loads(records[0])

    backbone, rows = after.build().backbone, np.array([5, 0, 17])
    assert data.frames is not None
    with torch.no_grad():
        direct = backbone.see(torch.from_numpy(data.frames[rows]))
    cached = SeenFrames(backbone, Mixture([data], prior.embodiments, tiny()), batch=7).of(rows)
    for one, other in zip((direct.tokens, *direct.deepstack), (cached.tokens, *cached.deepstack)):
        assert torch.allclose(one, other, rtol=2e-3, atol=2e-3)


def whole_before(prior: Checkpoint, vlm: Checkpoint) -> dict[str, torch.Tensor]:
    return {**vlm.state_dict, **prior.state_dict}


def test_the_backbone_learns_to_point(tmp_path: Path) -> None:
    """One bright patch per scene: a few steps must say where it is much better than its mean place would."""
    rng = np.random.default_rng(1)
    cells = rng.integers(0, 4, (64, 2))
    frames = np.zeros((64, 128, 128, 3), dtype=np.uint8)
    for frame, (row, column) in zip(frames, cells):
        frame[32 * row : 32 * row + 32, 32 * column : 32 * column + 32] = 255
    scenes = Scenes(("go",), frames, cells[:, None].astype(np.float32))
    schedule = Schedule(steps=120, batch=16, warmup=10, peak_rate=1e-3, final_rate=1e-4)
    train_pointing(tiny(), word_tokenizer(("go",)), scenes, schedule, 0, tmp_path)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "pointing.metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.5 * losses[0]
