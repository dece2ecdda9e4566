"""The decoder learns to reach in one step what it reaches in many."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from export.families.action_prior.action_decoder import ActionDecoder
from export.families.action_prior.batch import Draw, Window, draw_batch, noised_chunk, totals
from export.families.action_prior.checkpoint import Checkpoint
from export.families.action_prior.policy import ActionPrior, VlaPolicy
from export.training.distil import distil, distillation_losses, mean_velocity, student
from export.training.instructions import InstructionTokens, word_tokenizer
from export.training.latents import Latents
from export.training.prior import train_prior
from export.training.schedule import TrainingError
from export.training.vla import latent_with_history
from tests.export.small import INSTRUCTIONS, QUIET, few, read_windows, records, small, write_dataset

DEVICE = torch.device("cpu")


def stirred(module: torch.nn.Module) -> torch.nn.Module:
    """Weights at random everywhere, so that nothing is zero because it has not learnt yet."""
    torch.manual_seed(7)
    with torch.no_grad():
        for weights in module.parameters():
            weights.add_(0.1 * torch.randn_like(weights))
    return module.eval()


def drawn(folder: Path, **changes: object) -> tuple[ActionDecoder, Window, Draw, torch.Tensor]:
    config = small(target_time=True, **changes)
    windows, _ = read_windows(write_dataset(folder), config)
    window, draw = windows.window(windows.whole()[:12], DEVICE), draw_batch(config, 12, (4,), DEVICE)
    z = torch.nn.functional.normalize(torch.randn(12, config.latent), dim=-1)
    return stirred(ActionDecoder(config)), window, draw, z  # type: ignore[return-value]


@torch.no_grad()
def test_the_student_starts_as_its_teacher(tmp_path: Path) -> None:
    config = small(noise_scale=1.0)
    _, arm = read_windows(write_dataset(tmp_path), config)
    before = stirred(VlaPolicy(config))
    after = student(Checkpoint(config, before.state_dict(), (arm,), None))
    assert (after.config.target_time, after.config.flow_steps) == (True, 1)
    noise, z = torch.randn(2, 15, 37), torch.nn.functional.normalize(torch.randn(2, config.latent), dim=-1)
    rest = (torch.randn(2, 15, 37), torch.arange(15).expand(2, -1) < 3, torch.ones(2, 37))
    for steps in (1, 2, 10):
        assert torch.equal(before.chunk(noise, z, *rest, steps), after.chunk(noise, z, *rest, steps))
    trained = {name for name, weight in after.named_parameters() if weight.requires_grad}
    assert trained == {name for name, _ in after.named_parameters() if name.startswith("decoder.")}
    with pytest.raises(TrainingError, match="the teacher has no decoder"):
        student(Checkpoint(config, {"backbone.query": before.backbone.query}, (arm,), None))


@torch.no_grad()
def test_the_target_of_the_step_is_the_papers(tmp_path: Path) -> None:
    """`(v_0 + v_half) / 2` with `v_half = F(eps + v_0 / 2, 1/2)`; committed actions are perturbed, at r = 1."""
    decoder, window, draw, z = drawn(tmp_path, noise_scale=1.0)
    noised = noised_chunk(decoder.config, window, draw)
    assert 0 < int(noised.committed.sum()) < noised.committed.numel()
    committed, used = noised.committed, window.slots[:, None].float()
    start = torch.where(committed[..., None], noised.prefix, noised.noise)
    found = mean_velocity(decoder, window, z, start, noised, torch.ones(12, dtype=torch.bool), 2)
    r = committed.float()
    v_0 = decoder(start, r, z, r) * used
    half = torch.where(committed[..., None], noised.prefix, start + v_0 / 2)
    r_half = torch.where(committed, 1.0, 0.5)
    v_half = decoder(half, r_half, z, r_half) * used
    free = ~committed[..., None].expand_as(found)
    assert torch.allclose(found[free], ((v_0 + v_half) / 2)[free], atol=1e-6)
    assert torch.all(found[~free] == 0)


def test_half_of_a_batch_is_flow_matching_and_half_the_step(tmp_path: Path) -> None:
    decoder, window, draw, z = drawn(tmp_path, noise_scale=1.0)
    noised, whole = noised_chunk(decoder.config, window, draw), totals(decoder.config, window, draw)
    found = distillation_losses(decoder, window, z, draw, whole, 2)
    assert int(draw.one_step.sum()) == 6
    flow = torch.zeros(())
    for row in (~draw.one_step).nonzero()[:, 0]:
        one = slice(int(row), int(row) + 1)
        velocity = decoder(noised.x[one], noised.r[one], z[one], noised.r[one])
        flow = flow + ((velocity - noised.velocity[one]).square() * noised.counts[one]).sum()
    assert found["flow"].item() == pytest.approx((flow / whole.actions).item(), rel=1e-5)
    assert found["loss"].item() == pytest.approx((found["flow"] + found["one_step"]).item())
    found["one_step"].backward()
    assert decoder.step.mlp[2].weight.grad.abs().sum() > 0, "the step's size is learnt"


def test_committed_actions_are_given_and_not_learnt(tmp_path: Path) -> None:
    decoder, window, draw, z = drawn(tmp_path, noise_scale=1.0)
    whole, committed = totals(decoder.config, window, draw), noised_chunk(decoder.config, window, draw).committed
    before = distillation_losses(decoder, window, z, draw, whole, 2)
    other = dataclasses.replace(draw, noise=torch.where(committed[..., None], 9.0, draw.noise))
    after = distillation_losses(decoder, window, z, other, whole, 2)
    assert before["loss"].item() == after["loss"].item(), "no noise where an action is known"
    moved = dataclasses.replace(window, actions=window.actions + 0.5 * committed[..., None] * window.slots[:, None])
    assert distillation_losses(decoder, moved, z, draw, whole, 2)["one_step"].item() != before["one_step"].item()


def test_without_noise_at_run_time_the_step_is_learnt_from_the_middle(tmp_path: Path) -> None:
    decoder, window, draw, z = drawn(tmp_path, noise_scale=0.0)
    whole = totals(decoder.config, window, draw)
    before = distillation_losses(decoder, window, z, draw, whole, 2)
    other = distillation_losses(decoder, window, z, dataclasses.replace(draw, noise=-draw.noise), whole, 2)
    assert before["one_step"].item() == other["one_step"].item()
    assert before["flow"].item() != other["flow"].item()


@pytest.mark.parametrize("noise_scale", [0.0, 1.0])
def test_one_step_comes_close_to_ten(noise_scale: float, tmp_path: Path) -> None:
    """Against its own ten steps, the distilled decoder errs far less in one than its teacher does."""
    config = small(noise_scale=noise_scale, pose_weight=0.0)
    windows, arm = read_windows(write_dataset(tmp_path / "data"), config)
    teacher = train_prior(config, windows, (arm,), few(80, batch=32, peak_rate=1e-2), QUIET, tmp_path)
    taught = distil(teacher, windows, None, few(60, batch=48, peak_rate=5e-3), 2, QUIET, tmp_path)
    rows = windows.whole()[::3]
    window, draw = windows.window(rows, DEVICE), draw_batch(config, len(rows), (99,), DEVICE)
    noise = noise_scale * draw.noise
    committed = torch.arange(15).expand(len(rows), -1) < draw.delay[:, None]

    @torch.no_grad()
    def error(checkpoint: Checkpoint) -> float:
        prior = ActionPrior(checkpoint.config)
        prior.load_state_dict(checkpoint.state_dict)
        rest = (noise, prior.encode_future(window), window.actions, committed, window.slots.float())
        away = prior.chunk(*rest, steps=1) - prior.chunk(*rest, steps=10)
        return float(away.square().mean().sqrt() / window.actions.square().mean().sqrt())

    before, after = error(teacher), error(taught)
    print(f"noise_scale {noise_scale:g}: 1 step against 10, relative RMS {before:.3f} before, {after:.3f} after")
    assert after < 0.75 * before


def test_latents_are_those_of_the_teacher(tmp_path: Path) -> None:
    config = small()
    windows, arm = read_windows(write_dataset(tmp_path, frames=64), config)
    tokenizer = word_tokenizer(tuple(INSTRUCTIONS))
    text = InstructionTokens(tokenizer, tuple(INSTRUCTIONS), config.token_budget)
    teacher = Checkpoint(config, stirred(VlaPolicy(config)).state_dict(), (arm,), tokenizer.to_str())
    policy = student(teacher)
    assert isinstance(policy, VlaPolicy)
    latents, rows = Latents(policy, windows, text, DEVICE), windows.whole()[5:9]
    window, observation = windows.window(rows, DEVICE), windows.observation(rows, text, DEVICE)
    with torch.no_grad():
        wanted = latent_with_history(policy, window, observation)
        without = policy.latents(window, observation, [torch.zeros(4, dtype=torch.bool)])[0]
    assert torch.allclose(latents.of(rows), wanted, atol=1e-6)
    mixed = latents.of(rows, torch.tensor([True, False, True, False]))
    assert torch.allclose(mixed[::2], wanted[::2], atol=1e-6)
    assert torch.allclose(mixed[1::2], without[1::2], atol=1e-6)
    assert not torch.allclose(wanted, without, atol=1e-3)
    with pytest.raises(TrainingError, match="this data has none"):
        Latents(policy, windows, None, DEVICE)


def test_a_distilled_policy_is_distilled_further(tmp_path: Path) -> None:
    config = small()
    windows, arm = read_windows(write_dataset(tmp_path / "data"), config)
    teacher = Checkpoint(config, stirred(ActionPrior(config)).state_dict(), (arm,), None)
    once = distil(teacher, windows, None, few(2), 2, QUIET, tmp_path)
    (tmp_path / "again").mkdir()
    twice = distil(once, windows, None, few(2), 4, QUIET, tmp_path / "again")
    assert twice.state_dict.keys() == once.state_dict.keys()
    assert {"flow", "one_step"} <= set(records(tmp_path, "distil")[0])
