"""Step distillation: the decoder learns to reach the chunk in one flow step (SnapFlow, arXiv:2604.05656).

The decoder is told where a step ends (`target_time`). It starts as its teacher, and every batch is mixed half and half.
One half goes on with plain flow matching, the step of size zero. The other starts at noise and learns the mean velocity
of the whole way, which `teacher_steps` Euler steps of the decoder's own velocity lead, without a gradient: two of them,
as in the paper, give `F(eps, 0 -> 1) = (v_0 + v_half) / 2`. Committed actions are free of noise at r = 1 in all of it,
and perturbed as in the other stages.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from export.families.action_prior.action_decoder import ActionDecoder
from export.families.action_prior.batch import (
    Draw,
    NoisedChunk,
    Totals,
    Window,
    draw_batch,
    noised_chunk,
    rows_of,
    totals,
)
from export.families.action_prior.checkpoint import Checkpoint
from export.families.action_prior.flow import integrate
from export.families.action_prior.policy import ActionPrior, Losses, VlaPolicy
from export.training.instructions import InstructionTokens
from export.training.latents import Latents
from export.training.loop import Batch, Task, fingerprint, run
from export.training.numerics import device_of
from export.training.processes import ALONE, Processes
from export.training.schedule import Schedule, Settings, TrainingError
from export.training.source import Rows, Source, identity_of, sampler_of, split
from export.training.validation import held_out_validation

SILENT = "decoder.step."
"""What a teacher that was never distilled does not have: the embedding of a step's size, zero at first."""


def distil(
    teacher: Checkpoint,
    windows: Source,
    text: InstructionTokens | None,
    schedule: Schedule,
    teacher_steps: int,
    settings: Settings,
    folder: Path,
    processes: Processes = ALONE,
) -> Checkpoint:
    """Trains the decoder alone. z comes from the teacher: z' of its VLM, or of a stage-1 checkpoint z of its encoder.

    The checkpoint says `flow_steps` 1; more steps are still there for an export that asks. Raises `TrainingError` and
    `Stopped`.
    """
    torch.manual_seed(settings.seed)
    device = device_of(settings, processes)
    policy = student(teacher).to(device)
    config = policy.config
    latent = Latents(policy, windows, text, device)
    rows = split(np.arange(len(windows)), windows.episode, settings)

    def batch_at(step: int, rows: Rows) -> Batch:
        window = windows.window(rows, device)
        draw = draw_batch(config, len(rows), (settings.seed, step, 1), device)
        whole = totals(config, window, draw)

        def losses(part: slice) -> Losses:
            mine = rows_of(draw, part)
            return distillation_losses(
                policy.decoder,
                rows_of(window, part),
                latent.of(rows[part], mine.with_history),
                mine,
                whole,
                teacher_steps,
            )

        return losses

    task = Task(
        name="distil",
        module=policy.decoder,
        sampler=sampler_of(windows, rows.training, schedule.batch, settings),
        batch_at=batch_at,
        about={
            "config": config.to_plain(),
            **identity_of(windows, rows.training),
            "teacher_steps": teacher_steps,
            "teacher": fingerprint(policy),
        },
        validation=held_out_validation(
            policy, windows, rows.held_out, teacher.embodiments, settings, device, lambda rows, _: latent.of(rows)
        ),
    )
    run(task, schedule, settings, folder, processes)
    return Checkpoint(config, policy.state_dict(), teacher.embodiments, teacher.tokenizer)


def student(teacher: Checkpoint) -> ActionPrior:
    """The teacher's policy with a decoder that knows where steps end, and computes the same as before; only the decoder
    is trained. Raises `TrainingError`."""
    config = replace(teacher.config, target_time=True, flow_steps=1)
    held = {name.split(".")[0] for name in teacher.state_dict}
    if not {"encoder", "decoder"} <= held:
        raise TrainingError("the teacher has no decoder; give a checkpoint of edge-train vla, or prior")
    policy = VlaPolicy(config) if "backbone" in held else ActionPrior(config)
    missing, unexpected = policy.load_state_dict(teacher.state_dict, strict=False)
    wrong = [*(name for name in missing if not name.startswith(SILENT)), *unexpected]
    if wrong:
        raise TrainingError(f"the teacher's weights do not fit its configuration: {wrong[0]}")
    policy.requires_grad_(False).eval()
    policy.decoder.requires_grad_(True)
    return policy


def distillation_losses(
    decoder: ActionDecoder, window: Window, z: torch.Tensor, draw: Draw, whole: Totals, teacher_steps: int
) -> Losses:
    """Both halves of a batch, in one pass of the decoder: "flow" and "one_step", and their sum.

    The one step starts from noise as the robot's does, scaled by `noise_scale`: with 0 it is learnt where alone it will
    be asked, in the middle. Flow matching sees the noise at full size.
    """
    noised = noised_chunk(decoder.config, window, draw)
    one = draw.one_step
    start = torch.where(noised.committed[..., None], noised.prefix, decoder.config.noise_scale * noised.noise)
    goal = noised.velocity.clone()
    if one.any():
        goal[one] = mean_velocity(decoder, window, z, start, noised, one, teacher_steps)
    x = torch.where(one[:, None, None], start, noised.x)
    r = torch.where(one[:, None], noised.committed.float(), noised.r)
    target = torch.where(one[:, None], 1.0, noised.r)
    away = (decoder(x, r, z, target) - goal).square() * noised.counts
    flow = (away * ~one[:, None, None]).sum() / whole.actions
    one_step = (away * one[:, None, None]).sum() / whole.actions
    return {"flow": flow, "one_step": one_step, "loss": flow + one_step}


@torch.no_grad()
def mean_velocity(
    decoder: ActionDecoder,
    window: Window,
    z: torch.Tensor,
    start: torch.Tensor,
    noised: NoisedChunk,
    rows: torch.Tensor,
    steps: int,
) -> torch.Tensor:
    """The mean velocity of the way that so many Euler steps take from `start`, for these rows."""
    used = torch.ones_like(window.slots) if decoder.config.loss_on_unused_slots else window.slots
    latent = z[rows]
    begin = start[rows] * used[rows][:, None]
    end = integrate(
        lambda x, r: decoder(x, r, latent, r),
        begin,
        noised.prefix[rows],
        noised.committed[rows],
        used[rows].float(),
        steps,
    )
    return end - begin
