"""The committed prefix is perturbed where the decoder sees it, in every stage, and nowhere else."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from export.commands.train import main
from export.families.action_prior.batch import Draw, NoisedChunk, Window, draw_batch, noised_chunk, totals
from export.families.action_prior.checkpoint import load_checkpoint
from export.families.action_prior.config import PRESETS, ConfigError, PolicyConfig, PrefixPerturbation, lift
from export.families.action_prior.policy import VlaPolicy
from export.training.distil import distillation_losses
from export.training.instructions import InstructionTokens, word_tokenizer
from lab.lift.memory import Memory
from tests.export.small import INSTRUCTIONS, read_windows, small, write_dataset

DEVICE = torch.device("cpu")
ROWS = 48
PERTURBED = PrefixPerturbation(share=0.5)


class Drawn:
    """Windows of a dataset and what chance decides for them."""

    def __init__(self, folder: Path, how: PrefixPerturbation) -> None:
        self.config: PolicyConfig = small(prefix_perturbation=how, target_time=True)
        self.windows, _ = read_windows(write_dataset(folder, frames=64), self.config)
        self.rows = self.windows.whole()[:ROWS]
        self.window: Window = self.windows.window(self.rows, DEVICE)
        self.draw: Draw = draw_batch(self.config, ROWS, (2,), DEVICE)
        self.noised: NoisedChunk = noised_chunk(self.config, self.window, self.draw)


@pytest.fixture
def perturbed(tmp_path: Path) -> Drawn:
    return Drawn(tmp_path / "perturbed", PERTURBED)


def test_the_prefix_is_perturbed_and_the_target_is_not(perturbed: Drawn, tmp_path: Path) -> None:
    clean = Drawn(tmp_path / "clean", PrefixPerturbation())
    one, other, actions = perturbed.noised, clean.noised, perturbed.window.actions
    for name in ("r", "noise", "velocity", "committed", "counts"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    committed = one.committed
    assert torch.equal(other.x[committed], actions[committed]), "without a share the prefix is as demonstrated"
    assert torch.equal(one.x[~committed], other.x[~committed])
    moved = ((one.x - actions).abs().amax(2) * committed).amax(1) > 0
    share = float(moved.sum() / committed.any(1).sum())
    assert 0.25 < share < 0.75, "about its share of the windows that have a prefix"
    unused = ~perturbed.window.slots[:, None].expand_as(one.x)
    assert torch.all(one.x[unused] == other.x[unused]), "and only slots of this arm"


@pytest.mark.parametrize("field", ["gain", "offset", "step_noise"])
def test_each_part_of_the_perturbation_does_what_it_says(field: str, tmp_path: Path) -> None:
    still = PrefixPerturbation(share=1.0, gain=(1.0, 1.0), offset=0.0, step_noise=0.0)
    chosen = {"gain": {"gain": (0.2, 0.4)}, "offset": {"offset": 0.6}, "step_noise": {"offset": 0.6, "step_noise": 0.3}}
    drawn = Drawn(tmp_path, dataclasses.replace(still, **chosen[field]))
    actions, used = drawn.window.actions, drawn.window.slots[0]
    away = (drawn.noised.prefix - actions)[..., used]
    along_steps = (away[:, 1:] - away[:, :-1]).abs().max()
    if field == "gain":
        ratio = (drawn.noised.prefix / actions)[..., used][actions[..., used].abs() > 1e-3]
        assert 0.2 <= float(ratio.min()) < 0.25 and 0.35 < float(ratio.max()) <= 0.4 + 1e-6
    elif field == "offset":
        assert along_steps < 1e-5 and 0.1 < float(away.abs().mean()) < 0.4
    else:
        assert along_steps > 0.1


@pytest.mark.parametrize("stage", ["prior", "vla", "distil"])
def test_every_stage_shows_the_decoder_the_perturbed_prefix(stage: str, perturbed: Drawn) -> None:
    """Whatever it is asked for, at any flow time: committed actions in its input are the perturbed ones."""
    torch.manual_seed(0)
    policy, window, draw, noised = VlaPolicy(perturbed.config), perturbed.window, perturbed.draw, perturbed.noised
    seen = []
    policy.decoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    whole = totals(perturbed.config, window, draw)
    z = policy.encode_future(window).detach()
    if stage == "prior":
        policy.losses(window, z, draw, whole)
    elif stage == "vla":
        text = InstructionTokens(word_tokenizer(tuple(INSTRUCTIONS)), tuple(INSTRUCTIONS), 16)
        look = perturbed.windows.observation(perturbed.rows, text, DEVICE)
        policy.vla_losses(window, look, draw, whole, distillation=1.0)
    else:
        distillation_losses(policy.decoder, window, z, draw, whole, teacher_steps=2)
    assert seen
    for x in seen:
        rows = torch.ones(ROWS, dtype=torch.bool) if len(x) == ROWS else draw.one_step
        committed, wanted = noised.committed[rows], noised.prefix[rows]
        assert torch.equal(x[committed], wanted[committed])
        assert not torch.equal(x[committed], window.actions[rows][committed])


def test_lifting_draws_it_too() -> None:
    memory = Memory(lift(), ("franka_hand",), INSTRUCTIONS, word_tokenizer(tuple(INSTRUCTIONS)), DEVICE, 10, seed=0)
    draw = memory.draw(200)
    assert 0.4 < float((draw.prefix_gain != 1).float().mean()) < 0.8
    assert torch.equal(draw.prefix_gain != 1, draw.prefix_offset.abs().amax((1, 2)) > 0)


def test_every_preset_trains_with_it_and_an_older_checkpoint_did_not() -> None:
    for preset in PRESETS.values():
        plain = preset().to_plain()
        assert PolicyConfig.from_plain(plain).prefix_perturbation.share == 0.6
        del plain["prefix_perturbation"]
        assert PolicyConfig.from_plain(plain).prefix_perturbation.share == 0


def test_the_option_is_kept_by_the_checkpoint_of_every_stage(tmp_path: Path) -> None:
    data = str(write_dataset(tmp_path / "data", episodes=2, frames=128))
    few = ["--data", data, "--steps", "1", "--batch", "2", "--no-tensorboard"]
    start: list[str] = []
    for stage, share, option in (("prior", "0.1", "--prior"), ("vla", "0.2", "--teacher"), ("distil", "0.3", "")):
        out = tmp_path / stage
        assert main([stage, *start, *few, "--perturb-prefix", share, "--out", str(out)]) == 0
        found = load_checkpoint(out / "checkpoint.pt").config.prefix_perturbation
        assert found == PrefixPerturbation(share=float(share))
        start = [option, str(out / "checkpoint.pt")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"share": 1.5}, "prefix_perturbation.share"),
        ({"gain": (1.2, 0.0)}, "prefix_perturbation.gain"),
        ({"offset": -1.0}, "prefix_perturbation.offset"),
        ({"step_noise": float("nan")}, "prefix_perturbation.step_noise"),
    ],
)
def test_a_perturbation_that_is_none_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PrefixPerturbation(**change)  # type: ignore[arg-type]
