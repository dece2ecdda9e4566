"""One training loop for all stages: warm-up cosine AdamW, micro-batches, several processes, exact resume."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from export.families.action_prior.policy import Losses
from export.training.average import Average
from export.training.interrupts import Interrupts, Stopped, interrupts
from export.training.numerics import autocast, device_of
from export.training.processes import ALONE, Processes
from export.training.records import Record, Records
from export.training.schedule import Diverged, Pretrained, Schedule, Settings, identity
from export.training.source import Rows, Sampler
from export.training.state import Progress, ResumeState
from export.training.validation import Validation

Batch = Callable[[slice], Losses]
"""The losses of some rows of a batch, as their part of the whole batch's: the parts add up to it."""


@dataclass(frozen=True)
class Task:
    """What a stage trains, and on what.

    `batch_at(step, rows)` makes ready what all parts of a batch share. `about` says what else the weights follow from
    (configuration, data, checkpoints), so that a run is not resumed as another one. `notes(step)` is recorded.
    """

    name: str
    module: nn.Module
    sampler: Sampler
    batch_at: Callable[[int, Rows], Batch]
    about: dict[str, Any] = field(default_factory=dict)
    pretrained: Pretrained | None = None
    validation: Validation | None = None
    notes: Callable[[int], dict[str, float]] = lambda step: {}


@dataclass(frozen=True)
class StepResult:
    """What one step found: losses of the whole batch, the gradient's norm before clipping, whether to stop."""

    losses: dict[str, float]
    gradient_norm: float
    stop: bool


def run(task: Task, schedule: Schedule, settings: Settings, folder: Path, processes: Processes = ALONE) -> Progress:
    """Trains the task's module in place, from where an earlier run in `folder` stopped. Raises `TrainingError`, and
    `Stopped` after a signal, when the state is saved.

    Every step draws from its own seed, so a run that was stopped and resumed equals one that was not.
    """
    training = Training(task, schedule, settings, folder, processes)
    with interrupts(alone=processes.count == 1) as watch:
        try:
            return training.run(watch)
        finally:
            training.close()


class Training:
    """One run of the loop."""

    def __init__(
        self, task: Task, schedule: Schedule, settings: Settings, folder: Path, processes: Processes = ALONE
    ) -> None:
        self.task, self.schedule, self.settings, self.processes = task, schedule, settings, processes
        self.share = processes.share(schedule.batch)
        self.device = device_of(settings, processes)
        self.trained = [weight for weight in task.module.parameters() if weight.requires_grad]
        self.optimiser = self._optimiser()
        self.average = Average(task.module, settings.ema_decay) if settings.ema_decay > 0 else None
        about = identity(schedule, settings, {**task.about, "start": fingerprint(task.module)})
        self.state = ResumeState(folder / f"{task.name}.training.pt", about, task.module, self.optimiser, self.average)
        self.progress = self.state.load()
        processes.agree("the run", [self.state.run, self.progress])
        self.records: Records | None = None
        if processes.first:
            self.records = Records(folder, task.name, self.progress.steps, settings.tensorboard)

    def close(self) -> None:
        if self.records is not None:
            self.records.close()

    def run(self, watch: Interrupts) -> Progress:
        first, schedule = self.progress.steps, self.schedule
        steps = range(first, first if self.progress.reached else schedule.steps)
        smooth = 0.0
        judged: dict[str, str] = {}
        self.task.module.train()
        with self._bar(first) as bar:
            for step in steps:
                found = self.step(step, lambda: watch.requested)
                loss = found.losses["loss"]
                smooth = loss if step == first else 0.98 * smooth + 0.02 * loss
                bar.set_postfix({"loss": f"{smooth:.4f}", **judged}, refresh=False)
                bar.update()
                judged = self._record(step, found, bar) or judged
                last = step + 1 == schedule.steps or self.progress.reached or found.stop
                if last or (step + 1) % schedule.save_every == 0:
                    self._save()
                if found.stop and not self.progress.reached and step + 1 < schedule.steps:
                    raise Stopped(step + 1)
                if self.progress.reached:
                    break
        self._report_error()
        if self.average is not None and self.settings.keep == "average":
            self.average.swap()
        self.task.module.eval()
        return self.progress

    def step(self, step: int, stop: Callable[[], bool] = lambda: False) -> StepResult:
        """One step of the optimiser. `stop` asks for this process's wish; the result has everybody's."""
        torch.manual_seed(self.settings.seed * 1_000_003 + step)
        self.optimiser.zero_grad(set_to_none=True)
        losses = self._gradients(step)
        names = sorted(losses)
        *values, stops = self.processes.add([*(losses[name] for name in names), float(stop())])
        losses = dict(zip(names, values))
        if not math.isfinite(losses["loss"]):
            raise Diverged(f"the loss is {losses['loss']} at step {step}: lower --rate, or look at the data")
        self.processes.add_gradients(self.trained)
        norm = nn.utils.clip_grad_norm_(self.trained, self.schedule.gradient_clip)
        self._set_rates(step)
        self.optimiser.step()
        if self.average is not None:
            self.average.update(step)
        self.progress = Progress(step + 1)
        return StepResult(losses, float(norm), stops > 0)

    def _gradients(self, step: int) -> dict[str, float]:
        """Adds up gradients over this process's share, micro-batch by micro-batch; returns its part of the losses."""
        batch = self.task.batch_at(step, self.task.sampler(step))
        sums: dict[str, torch.Tensor] = {}
        size = self.settings.micro_batch or self.share.stop - self.share.start
        for start in range(self.share.start, self.share.stop, size):
            with autocast(self.settings, self.device):
                losses = batch(slice(start, min(start + size, self.share.stop)))
            losses["loss"].backward()
            for name, value in losses.items():
                sums[name] = sums[name] + value.detach() if name in sums else value.detach()
        return {name: float(value) for name, value in sums.items()}

    def _record(self, step: int, found: StepResult, bar: tqdm[Any]) -> dict[str, str]:
        """Records a step that is due; returns what its validation found, for the bar."""
        judged = self._validate(step)
        if step % self.settings.log_every and not judged:
            return {}
        record: Record = {"step": step, "gradient_norm": found.gradient_norm, "rate": self.schedule.rate(step)}
        if self.task.pretrained is not None:
            record["rate_pretrained"] = self.schedule.rate(step) * self.task.pretrained.factor(step)
        record.update({**self.task.notes(step), **found.losses, **judged})
        if self.records is not None:
            elapsed_s = bar.format_dict["elapsed"]
            self.records.write(record, (bar.n - bar.initial) / elapsed_s if elapsed_s else None)
        return {name.removeprefix("validation_"): f"{value:.4f}" for name, value in judged.items()}

    def _validate(self, step: int) -> dict[str, float]:
        validation = self.task.validation
        if validation is None or not (validation.due(step) or step + 1 == self.schedule.steps):
            return {}
        self.task.module.eval()
        averaged = self.average is not None and self.settings.keep == "average"
        if averaged and self.average is not None:
            with self.average.applied():
                judged = validation.judge(self.processes)
        else:
            judged = validation.judge(self.processes)
        self.task.module.train()
        if validation.reached(judged["validation_mae"]):
            self.progress = Progress(step + 1, reached=step + 1)
        return judged

    def _report_error(self) -> None:
        wanted = self.task.validation.stop_at if self.task.validation is not None else None
        if wanted is not None and self.processes.first:
            reached = self.progress.reached
            how = f"after {reached} steps" if reached else f"not within {self.progress.steps} steps"
            print(f"{self.task.name}: a validation error of {wanted:g} was reached {how}")

    def _save(self) -> None:
        if self.records is not None:
            self.records.settle()
            self.state.save(self.progress)
        self.processes.wait()  # whoever goes on, or ends, would have the others ended too

    def _optimiser(self) -> torch.optim.AdamW:
        pretrained = self.task.pretrained.parameters if self.task.pretrained is not None else ()
        slow = {id(parameter) for parameter in pretrained}
        groups = [
            {"params": [weight for weight in self.trained if id(weight) not in slow], "slow": False},
            {"params": [weight for weight in self.trained if id(weight) in slow], "slow": True},
        ]
        return torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=self.schedule.peak_rate,
            weight_decay=self.schedule.weight_decay,
            betas=(0.9, 0.95),
        )

    def _set_rates(self, step: int) -> None:
        pretrained = self.task.pretrained
        for group in self.optimiser.param_groups:
            factor = pretrained.factor(step) if pretrained is not None and group["slow"] else 1.0
            group["lr"] = self.schedule.rate(step) * factor

    def _bar(self, first: int) -> tqdm[Any]:
        return tqdm(
            total=self.schedule.steps,
            initial=first,
            desc=self.task.name,
            unit="step",
            mininterval=1.0 if sys.stderr.isatty() else 30.0,
            disable=not self.processes.first,
        )


def fingerprint(module: nn.Module) -> str:
    """SHA-256 of all weights: a run goes on only from the start it had, and the same one in every process."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
