"""Stage 1: encoder and decoder from trajectories alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from export.families.action_prior.batch import Window, draw_batch, rows_of, totals
from export.families.action_prior.checkpoint import Checkpoint
from export.families.action_prior.config import PolicyConfig
from export.families.action_prior.embodiment import Embodiment
from export.families.action_prior.folder import RENAMES, load_into
from export.families.action_prior.policy import ActionPrior, Losses
from export.training.loop import Batch, Task, run
from export.training.numerics import device_of
from export.training.processes import ALONE, Processes
from export.training.schedule import Schedule, Settings
from export.training.source import Rows, Source, identity_of, sampler_of, split
from export.training.validation import held_out_validation


def train_prior(
    config: PolicyConfig,
    windows: Source,
    embodiments: tuple[Embodiment, ...],
    schedule: Schedule,
    settings: Settings,
    folder: Path,
    processes: Processes = ALONE,
    action_folder: Path | None = None,
) -> Checkpoint:
    """Trains a prior from random weights, or from those of a Qwen3 in `action_folder`.

    The statistics of the embodiments stay with the policy through stage 2. Raises `TrainingError` and `Stopped`.
    """
    torch.manual_seed(settings.seed)
    device = device_of(settings, processes)
    prior = ActionPrior(config)
    if action_folder is not None:
        load_into(prior.encoder, action_folder, RENAMES["encoder"])
        load_into(prior.decoder, action_folder, RENAMES["decoder"])
    prior.to(device)
    rows = split(np.arange(len(windows)), windows.episode, settings)

    def batch_at(step: int, rows: Rows) -> Batch:
        window = windows.window(rows, device)
        draw = draw_batch(config, len(rows), (settings.seed, step, 1), device)
        whole = totals(config, window, draw)

        def losses(part: slice) -> Losses:
            mine = rows_of(window, part)
            return prior.losses(mine, prior.encode_future(mine), rows_of(draw, part), whole)

        return losses

    def latents(rows: Rows, window: Window) -> torch.Tensor:
        return prior.encode_future(window)

    task = Task(
        name="prior",
        module=prior,
        sampler=sampler_of(windows, rows.training, schedule.batch, settings),
        batch_at=batch_at,
        about={"config": config.to_plain(), **identity_of(windows, rows.training)},
        validation=held_out_validation(prior, windows, rows.held_out, embodiments, settings, device, latents),
    )
    run(task, schedule, settings, folder, processes)
    return Checkpoint(config, prior.state_dict(), embodiments, tokenizer=None)
