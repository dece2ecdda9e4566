"""Stage 2: the VLM learns to speak the prior's latent; the decoder is reused, the encoder becomes the history token."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import nn

from export.families.action_prior.batch import Window, draw_batch, rows_of, totals
from export.families.action_prior.checkpoint import Checkpoint, CheckpointError
from export.families.action_prior.config import PolicyConfig, seen_by
from export.families.action_prior.folder import RENAMES, load_into
from export.families.action_prior.policy import Losses, Observation, VlaPolicy
from export.training.instructions import InstructionTokens
from export.training.latents import Latents
from export.training.loop import Batch, Task, run
from export.training.numerics import device_of
from export.training.processes import ALONE, Processes
from export.training.schedule import Pretrained, Schedule, Settings
from export.training.seen import Looks
from export.training.source import Rows, Source, fewer_at_rest, identity_of, sampler_of, sha256_of, split
from export.training.validation import held_out_validation


@dataclass(frozen=True)
class Start:
    """What stage 2 starts from. Its configuration is the prior's, whose weights may be none.

    At most one of the two VLMs is there; without one, and without a folder, weights are random.
    """

    prior: Checkpoint
    tokenizer: Tokenizer
    vlm: Checkpoint | None = None
    vlm_folder: Path | None = None
    action_folder: Path | None = None


@dataclass(frozen=True)
class Plan:
    """What stage 2 does with it.

    lambda(k) falls from 1 to 0 over `distillation_steps`; `never_let_go` leaves it at 1. With `whole_windows`, chunks
    that a new instruction cuts short are left out: when it will come is in no observation, and z of such a chunk is no
    target that can be hit. With `decoder_alone`, VLM and encoder stay as they were, z' of every window is computed
    once, and the decoder learns at the full rate what to do with it. Of the windows in which the arm rests and goes on
    resting, a share of `resting` is drawn from: where most pictures near a goal say "stay", a policy that sees a
    centimetre poorly stays a few centimetres off.
    """

    distillation_steps: int = 2000
    never_let_go: bool = False
    freeze_prior: bool = False
    whole_windows: bool = False
    decoder_alone: bool = False
    resting: float = 1.0

    def weight(self, step: int) -> float:
        """lambda at a step, counted from 0."""
        if self.never_let_go:
            return 1.0
        return max(0.0, 1.0 - step / self.distillation_steps) if self.distillation_steps else 0.0


def train_vla(
    start: Start,
    windows: Source,
    text: InstructionTokens,
    schedule: Schedule,
    plan: Plan,
    settings: Settings,
    folder: Path,
    processes: Processes = ALONE,
) -> Checkpoint:
    """Trains the whole policy. Whatever has been trained before learns at a lower rate.

    The eyes of a VLM of ours stay as they are, and so do encoder and decoder if the plan says so. Raises
    `CheckpointError`, `TrainingError` and `Stopped`.
    """
    torch.manual_seed(settings.seed)
    config, device = start.prior.config, device_of(settings, processes)
    policy, known = _policy(start, plan)
    policy.to(device)
    pretrained = Pretrained(tuple(parameter for part in known for parameter in part.parameters()))
    looks = Looks(policy.backbone, windows, text, device, frozen=start.vlm is not None and not plan.decoder_alone)
    given = Latents(policy, windows, text, device) if plan.decoder_alone else None
    candidates = windows.whole() if plan.whole_windows else windows.demonstrated()
    candidates = fewer_at_rest(windows, candidates, plan.resting, settings.seed)
    rows = split(candidates, windows.episode, settings)

    def batch_at(step: int, rows: Rows) -> Batch:
        window = windows.window(rows, device)
        draw = draw_batch(config, len(rows), (settings.seed, step, 1), device)
        whole = totals(config, window, draw)

        def losses(part: slice) -> Losses:
            mine, dice = rows_of(window, part), rows_of(draw, part)
            if given is not None:
                z_prime = given.of(rows[part], dice.with_history)
                return {"loss": policy.flow_loss(mine, z_prime, dice, whole)}
            return policy.vla_losses(mine, looks.of(rows[part]), dice, whole, plan.weight(step))

        return losses

    def latents(rows: Rows, window: Window) -> torch.Tensor:
        return given.of(rows) if given is not None else latent_with_history(policy, window, looks.of(rows))

    said = {"tokenizer": sha256_of([start.tokenizer.to_str()])}
    task = Task(
        name="vla",
        module=policy,
        sampler=sampler_of(windows, rows.training, schedule.batch, settings),
        batch_at=batch_at,
        about={"config": config.to_plain(), **identity_of(windows, rows.training), **said, **asdict(plan)},
        pretrained=pretrained,
        validation=held_out_validation(
            policy, windows, rows.held_out, start.prior.embodiments, settings, device, latents
        ),
        notes=lambda step: {"lambda": plan.weight(step)},
    )
    run(task, schedule, settings, folder, processes)
    return Checkpoint(config, policy.state_dict(), start.prior.embodiments, start.tokenizer.to_str())


def check_vlm(vlm: Checkpoint, config: PolicyConfig) -> None:
    """Raises `CheckpointError` where the VLM of a checkpoint does not fit a run of this configuration."""
    if seen_by(vlm.config) != seen_by(config):
        raise CheckpointError("the VLM was trained with another configuration than this run's")


def latent_with_history(policy: VlaPolicy, window: Window, observation: Observation) -> torch.Tensor:
    """z' as the robot computes it: with the history token wherever there is a history, if the policy has one at all."""
    everywhere = torch.full_like(window.past_mask[:, 0], policy.config.history_compressor != "none")
    return policy.latents(window, observation, [everywhere])[0]


def _policy(start: Start, plan: Plan) -> tuple[VlaPolicy, list[nn.Module]]:
    """The policy with the weights it starts from, and its parts that know something already."""
    config, vlm = start.prior.config, start.vlm
    if vlm is not None:
        check_vlm(vlm, config)
        if vlm.tokenizer != start.tokenizer.to_str():
            raise CheckpointError("the VLM was trained with other instructions than this run's")
    policy = VlaPolicy(config)
    known: list[nn.Module] = []
    if start.vlm_folder is not None:
        load_into(policy.backbone, start.vlm_folder, RENAMES["backbone"])
        known.append(policy.backbone.vlm)
    if start.action_folder is not None:
        load_into(policy.encoder, start.action_folder, RENAMES["encoder"])
        load_into(policy.decoder, start.action_folder, RENAMES["decoder"])
    policy.load_state_dict(start.prior.state_dict, strict=False)
    if start.prior.state_dict or start.action_folder is not None:
        known += [policy.encoder, policy.decoder]
    if plan.freeze_prior:
        policy.requires_grad_(False).backbone.requires_grad_(True)
    if vlm is not None:
        weights = {name: value for name, value in vlm.state_dict.items() if name.startswith("backbone.")}
        policy.backbone.load_state_dict({name.removeprefix("backbone."): value for name, value in weights.items()})
        policy.backbone.vlm.visual.requires_grad_(False)
        known.append(policy.backbone.vlm.language_model)
    if plan.decoder_alone:
        policy.requires_grad_(False).decoder.requires_grad_(True)
        known = []
    return policy, known
