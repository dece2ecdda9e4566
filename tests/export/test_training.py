"""All stages learn, resume exactly, and refuse broken data with its row."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from export.commands.train import main
from export.families.action_prior.batch import draw_batch, totals
from export.families.action_prior.checkpoint import Checkpoint, CheckpointError, load_checkpoint
from export.families.action_prior.config import tiny
from export.families.action_prior.policy import VlaPolicy
from export.training.data import Windows, fit_embodiment, read_demonstrations
from export.training.instructions import InstructionTokens, word_tokenizer
from export.training.loop import Batch, Task, run
from export.training.pointing import Scenes, train_pointing
from export.training.prior import train_prior
from export.training.schedule import Diverged, Pretrained, Schedule
from export.training.seen import Looks
from export.training.source import fewer_at_rest, sampler_of, uniform
from export.training.vla import Plan, Start, train_vla
from tests.export.small import INSTRUCTIONS, QUIET, few, read_windows, records, small, write_dataset


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


def test_the_prior_learns(tmp_path: Path) -> None:
    config = small(pose_weight=0.0)
    windows, arm = read_windows(write_dataset(tmp_path / "data"), config)
    trained = train_prior(config, windows, (arm,), few(80, batch=32), QUIET, tmp_path)
    losses = [record["loss"] for record in records(tmp_path, "prior")]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    assert not any(name.startswith("pose") for name in trained.state_dict)


def test_what_was_pretrained_moves_less(tmp_path: Path) -> None:
    """The same gradient on every weight: those that knew something move at a fraction of the rate, and warm up."""
    module = torch.nn.ParameterDict(
        {"new": torch.nn.Parameter(torch.ones(4)), "known": torch.nn.Parameter(torch.ones(4))}
    )
    schedule = Schedule(steps=1, batch=1, warmup=0, peak_rate=1e-2, final_rate=1e-2, weight_decay=0.0)
    pretrained = Pretrained((module["known"],), rate_factor=0.5, warmup=10)

    def batch_at(step: int, rows: np.ndarray) -> Batch:
        return lambda part: {"loss": sum(weight.sum() for weight in module.values())}

    run(Task("two", module, uniform(np.arange(3), 1, 0), batch_at, pretrained=pretrained), schedule, QUIET, tmp_path)
    moved = {name: float((1 - weight.detach()).mean()) for name, weight in module.items()}
    assert moved["known"] == pytest.approx(0.05 * moved["new"], rel=1e-4)
    assert records(tmp_path, "two")[0]["rate_pretrained"] == pytest.approx(0.05 * 1e-2)
    assert pretrained.factor(9) == pretrained.factor(500) == 0.5


def test_the_latent_learns_where_the_arm_is(tmp_path: Path) -> None:
    config = small(pose_weight=1.0)
    windows, arm = read_windows(write_dataset(tmp_path / "data"), config)
    train_prior(config, windows, (arm,), few(60, batch=16, peak_rate=1e-2), QUIET, tmp_path)
    pose = [record["pose"] for record in records(tmp_path, "prior")]
    assert pose[-1] < 0.4 * pose[0]


def write_scenes(folder: Path, instructions: tuple[str, ...]) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir()
    frames, xy_m = rng.integers(0, 255, (8, 128, 128, 3), dtype=np.uint8), rng.random((8, 3, 2), dtype=np.float32)
    np.savez(folder / "scenes.npz", frames=frames, xy_m=xy_m)
    (folder / "scenes.json").write_text(json.dumps({"format": 1, "instructions": instructions}))
    return folder


def test_all_stages_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(write_dataset(tmp_path / "data", frames=128))
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
    arguments = ["--prior", prior, "--vlm", str(tmp_path / "w" / "checkpoint.pt"), "--data", data]
    assert main(["vla", *arguments, "--out", str(tmp_path / "c"), *few]) == 2
    assert "has not learnt all words of the instruction" in capsys.readouterr().err
    more = write_scenes(tmp_path / "more", ("reach the mauve cube", *instructions))
    assert main(["point", "--data", str(more), "--out", str(tmp_path / "m"), *few]) == 0
    arguments[3] = str(tmp_path / "m" / "checkpoint.pt")
    assert main(["vla", *arguments, "--out", str(tmp_path / "c"), *few]) == 0, "it knows these words, and another"
    assert main(["point", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "d"), *few]) == 2
    assert "rendered scenes" in capsys.readouterr().err


def test_what_is_frozen_stays_and_is_computed_once(tmp_path: Path) -> None:
    config, device = small(), torch.device("cpu")
    windows, arm = read_windows(write_dataset(tmp_path / "data", frames=64), config)
    tokenizer = word_tokenizer(tuple(INSTRUCTIONS))
    text = InstructionTokens(tokenizer, tuple(INSTRUCTIONS), config.token_budget)
    prior = train_prior(config, windows, (arm,), few(1), QUIET, tmp_path)
    vlm = Checkpoint(config, VlaPolicy(config).state_dict(), (), tokenizer.to_str())
    start = Start(prior, tokenizer, vlm=vlm)
    plan = Plan(distillation_steps=1, freeze_prior=True)
    after = train_vla(start, windows, text, few(2), plan, QUIET, tmp_path)
    before = {**vlm.state_dict, **prior.state_dict}
    moved = {name for name, value in after.state_dict.items() if not torch.equal(value, before[name])}
    assert moved and all(name.startswith("backbone.") and ".visual." not in name for name in moved)
    first, second = records(tmp_path, "vla")
    assert "align" in first and "reconstruct" not in first and "align" not in second
    assert (first["lambda"], second["lambda"]) == (1.0, 0.0)

    backbone, rows = after.build().backbone, np.array([5, 0, 17])
    direct = Looks(backbone, windows, text, device, frozen=False).of(rows)
    cached = Looks(backbone, windows, text, device, frozen=True).of(rows)
    assert torch.equal(direct.tokens, cached.tokens) and torch.equal(direct.token_mask, cached.token_mask)
    with torch.no_grad():
        seen = backbone.see(direct.frames)
    for one, other in zip((seen.tokens, *seen.deepstack), (cached.frames.tokens, *cached.frames.deepstack)):
        assert torch.allclose(one, other, rtol=2e-3, atol=2e-3)


def test_the_decoder_alone_learns_what_to_do_with_the_latents_there_are(tmp_path: Path) -> None:
    """A last stage on a whole checkpoint: nothing else moves, and its loss is that of the whole policy."""
    config, device = small(without_history=0.5), torch.device("cpu")
    windows, arm = read_windows(write_dataset(tmp_path / "data", frames=64), config)
    tokenizer = word_tokenizer(tuple(INSTRUCTIONS))
    text = InstructionTokens(tokenizer, tuple(INSTRUCTIONS), config.token_budget)
    torch.manual_seed(3)
    whole = Checkpoint(config, VlaPolicy(config).state_dict(), (arm,), tokenizer.to_str())
    start, plan = Start(whole, tokenizer, vlm=whole), Plan(distillation_steps=0, decoder_alone=True)
    after = train_vla(start, windows, text, few(2), plan, QUIET, tmp_path)
    moved = {name for name, value in after.state_dict.items() if not torch.equal(value, whole.state_dict[name])}
    assert moved and all(name.startswith("decoder.") for name in moved)
    (first, _), schedule = records(tmp_path, "vla"), few(2)
    rows = sampler_of(windows, windows.demonstrated(), schedule.batch, QUIET)(0)
    window, draw = windows.window(rows, device), draw_batch(config, len(rows), (QUIET.seed, 0, 1), device)
    look = windows.observation(rows, text, device)
    losses = whole.build().vla_losses(window, look, draw, totals(config, window, draw), distillation=0.0)
    assert first["loss"] == pytest.approx(float(losses["loss"].detach()), rel=1e-4)


def test_the_backbone_learns_to_point(tmp_path: Path) -> None:
    """One bright patch per scene: a few steps must say where it is much better than its mean place would."""
    rng = np.random.default_rng(1)
    cells = rng.integers(0, 2, (64, 2))
    frames = np.zeros((64, 64, 64, 3), dtype=np.uint8)
    for frame, (row, column) in zip(frames, cells):
        frame[32 * row : 32 * row + 32, 32 * column : 32 * column + 32] = 255
    scenes = Scenes(("go",), frames, cells[:, None].astype(np.float32))
    schedule = few(100, batch=16, peak_rate=5e-3)
    train_pointing(small(image_px=(64, 64)), word_tokenizer(("go",)), scenes, schedule, QUIET, tmp_path)
    losses = [record["loss"] for record in records(tmp_path, "pointing")]
    assert losses[-1] < 0.5 * losses[0]


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    module = torch.nn.Linear(1, 1)

    def batch_at(step: int, rows: np.ndarray) -> Batch:
        return lambda part: {"loss": module.weight.sum() * (float("nan") if step == 2 else 1.0)}

    with pytest.raises(Diverged, match="the loss is nan at step 2: lower --rate"):
        run(Task("nan", module, uniform(np.arange(3), 1, 0), batch_at), few(4, save_every=1), QUIET, tmp_path)
    saved = torch.load(tmp_path / "nan.training.pt", weights_only=True)
    assert saved["steps"] == 2 and saved["module"]["weight"].isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vla", "--freeze-prior"], "--freeze-prior and --never-let-go need a --prior"),
        (["vla", "--prior", "p.pt", "--preset", "tiny"], "are for a run without --prior"),
        (["vla", "--vlm", "v.pt", "--init-vlm", "d"], "both say where the VLM starts from; give one"),
        (["vla", "--decoder-alone", "--prior", "p.pt"], "give its checkpoint as --prior and as --vlm"),
        (["prior", "--encoder-sees", "actions"], "an encoder that sees only actions cannot know the pose"),
        (["prior", "--validate-every", "1", "--held-out", "1"], "2 episodes are too few to hold some out"),
        (["distil", "--teacher", "nowhere.pt"], "nowhere.pt: no such file"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_dataset(tmp_path / "data", frames=64)
    assert main([*arguments, "--data", str(data), "--out", str(tmp_path / "out"), "--steps", "1"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert message in said[-1] and said[-1].startswith("edge-train: ")


def test_a_run_without_a_prior_is_one_without_lambda(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", frames=128)
    few_steps = ["--data", str(data), "--steps", "2", "--batch", "2", "--no-tensorboard"]
    assert main(["vla", *few_steps, "--out", str(tmp_path / "a"), "--history-passes", "both"]) == 0
    found = load_checkpoint(tmp_path / "a" / "checkpoint.pt")
    assert found.config.history_passes == "both"
    assert {"lambda", "predict"} <= set(records(tmp_path / "a", "vla")[0])
    assert records(tmp_path / "a", "vla")[0]["lambda"] == 0.0 and "align" not in records(tmp_path / "a", "vla")[0]
    teacher = ["--teacher", str(tmp_path / "a" / "checkpoint.pt")]
    assert main(["distil", *teacher, *few_steps, "--out", str(tmp_path / "b")]) == 0
    taught = load_checkpoint(tmp_path / "b" / "checkpoint.pt")
    assert (taught.config.flow_steps, taught.config.target_time) == (1, True)
    taught.build()


def test_of_the_windows_at_rest_a_share_is_left_the_same_for_the_same_seed(tmp_path: Path) -> None:
    windows, _ = read_windows(write_dataset(tmp_path / "data"), small())
    rows = np.arange(len(windows))
    moves = windows._actions.copy()
    windows._actions[: len(rows) // 2] = 0.0  # what is before and after these, they show one rest
    window = windows.window(rows, torch.device("cpu"))
    still = ~(window.actions.any(dim=2).any(dim=1) | window.past_actions.any(dim=2).any(dim=1)).numpy()
    assert moves.any(axis=1).all() and 20 < still.sum() < len(rows)
    none, half = (fewer_at_rest(windows, rows, share, 3) for share in (0.0, 0.5))
    assert np.array_equal(none, rows[~still]) and set(none) < set(half) < set(rows)
    assert 0.2 < (len(half) - len(none)) / still.sum() < 0.8
    assert np.array_equal(half, fewer_at_rest(windows, rows, 0.5, 3))
    assert np.array_equal(rows, fewer_at_rest(windows, rows, 1.0, 3))
