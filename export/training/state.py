"""The resume state of a run: one file, whole or not there, of tensors and plain data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from export.families.action_prior.archive import read_document, save_whole
from export.families.base import CheckpointError
from export.training.average import Average
from export.training.schedule import TrainingError
from firmware_bridge.reading import ReadError, one_line, parse_json

FORMAT = 3


@dataclass(frozen=True)
class Progress:
    """How far a run is: steps done, and after how many the wanted error was reached (0: not yet)."""

    steps: int
    reached: int = 0


@dataclass(frozen=True)
class ResumeState:
    """Everything that the next step depends on, and the file it is kept in."""

    path: Path
    run: dict[str, Any]
    """What both halves must have in common."""
    module: nn.Module
    optimiser: torch.optim.Optimizer
    average: Average | None

    def save(self, progress: Progress) -> None:
        save_whole(
            self.path,
            {
                "format": FORMAT,
                "run": self._run,
                "steps": progress.steps,
                "reached": progress.reached,
                "module": self.module.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "average": self.average.state() if self.average is not None else {},
            },
        )

    def load(self) -> Progress:
        """Takes the file's state over, if there is one. Raises `TrainingError` if it is another run's, or damaged."""
        if not self.path.exists():
            return Progress(0)
        try:
            document = read_document(self.path)
        except CheckpointError as error:
            raise TrainingError(f"{error}; or delete it to begin anew") from None
        if type(document.get("format")) is not int or document["format"] != FORMAT:
            raise TrainingError(f"{self.path} was written by another version; delete it to begin anew")
        try:
            self._compare(parse_json(document["run"]))
            self.module.load_state_dict(document["module"])
            self.optimiser.load_state_dict(document["optimiser"])
            if self.average is not None:
                self.average.load(document["average"])
            return Progress(int(document["steps"]), int(document["reached"]))
        except (ReadError, KeyError, TypeError, ValueError, AttributeError, RuntimeError, IndexError) as error:
            told = one_line(f"{type(error).__name__}: {error}", 120)
            raise TrainingError(f"{self.path} is damaged ({told}); delete it to begin anew") from None

    @property
    def _run(self) -> str:
        return json.dumps(self.run, sort_keys=True)

    def _compare(self, before: dict[str, Any]) -> None:
        now = json.loads(self._run)
        for name in sorted({*before, *now}):
            if before.get(name) != now.get(name):
                raise TrainingError(
                    f"{self.path} belongs to a run with {name} {before.get(name)}, this one has {now.get(name)}; "
                    "give the same command, or another --out"
                )
