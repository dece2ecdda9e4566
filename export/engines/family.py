"""The project's own policy family: from a checkpoint, or from sizes and random weights, to what makes the bundle."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tokenizers import Tokenizer

from edge.bundle import ACTION_PRIOR, PUNCTUATION, TOKENIZER, sha256
from edge.cli.parser import MADE_BY
from export.engines.observations import Recorded, draw_samples, recorded_samples
from export.engines.package import Origin, Recipe, export_bundle
from export.families.action_prior.checkpoint import Checkpoint, is_checkpoint, load_checkpoint
from export.families.action_prior.config import PolicyConfig
from export.families.action_prior.folder import PretrainedParts, fingerprint
from export.families.action_prior.parts import PolicyParts
from export.families.base import CheckpointError, Exporter, Family, Given, Stage
from firmware_bridge.reading import shown

CALIBRATION_SAMPLES, UNTRAINED_CALIBRATION = 256, 8


@dataclass(frozen=True)
class Parts:
    """Parts of a policy with what to make of them."""

    parts: PolicyParts
    recipe: Recipe
    origin: Origin

    @property
    def summary(self) -> str:
        return f"{self.recipe.precision}, {self.recipe.steps} flow steps"

    @property
    def table(self) -> list[tuple[str, str]]:
        config = self.parts.config
        arms = [f"{arm.name}, {len(arm.joints)} axes, {1 / arm.step_s:g} Hz" for arm in self.origin.embodiments]
        return [
            ("family", ACTION_PRIOR),
            ("arms", "; ".join(arms) or "none: random weights"),
            ("cameras", f"{config.cameras} of {config.frame_px[0]} x {config.frame_px[1]}"),
            ("chunk", f"{config.horizon} increments"),
        ]

    def write(self, out: Path, stage: Stage) -> dict[str, Any]:
        return export_bundle(self.parts, self.recipe, self.origin, out, stage)


@dataclass(frozen=True)
class ActionPrior(Family):
    """A VLA with an action prior. `name` is what its bundles call the policy that runs them."""

    name: ClassVar[str] = ACTION_PRIOR

    @classmethod
    def recognises(cls, checkpoint: Path) -> bool:
        return is_checkpoint(checkpoint)

    def open(self, checkpoint: Path) -> Exporter:
        parts = load_checkpoint(checkpoint)
        if self.given != Given():
            raise CheckpointError(
                f"{checkpoint}: a checkpoint of edge-train says itself which arm, rate and units; leave out "
                "--dataset, --arm, --rate, --units, --base, --tokenizer and --vlm"
            )
        text = parts.tokenizer or ""
        if self.task:
            _check_task(self.task, text)
        origin = Origin(sha256(checkpoint), MADE_BY, parts.embodiments, text, cameras=parts.cameras, task=self.task)
        return Parts(parts, self._recipe(parts.config, self._trained(parts)), origin)

    def untrained(self, config: PolicyConfig, vlm: Path | None, prior: Path | None) -> Exporter:
        """A policy of these sizes with random weights, under those of the folders. Its bundle belongs to no arm."""
        if self.task:
            raise CheckpointError("--task belongs to a trained checkpoint; random weights follow nothing")
        if self.observations is not None:
            raise CheckpointError("--observations belong to a trained checkpoint; random weights see synthetic ones")
        folders = [folder for folder in (vlm, prior) if folder is not None]
        tokenizer = vlm / TOKENIZER if vlm is not None else None
        text = tokenizer.read_text(encoding="utf-8") if tokenizer is not None and tokenizer.is_file() else ""
        origin = Origin(fingerprint(config, self.seed, folders), MADE_BY, (), text)
        count = UNTRAINED_CALIBRATION if self.precision == "int8" else 0
        drawn = draw_samples(config, self.samples + count, self.seed)
        samples = Recorded(drawn[self.samples :], drawn[: self.samples])
        return Parts(PretrainedParts(config, self.seed, vlm, prior), self._recipe(config, samples), origin)

    def _trained(self, parts: Checkpoint) -> Recorded:
        """What to verify on, and for int8 what to calibrate on."""
        if self.observations is not None:
            count = CALIBRATION_SAMPLES if self.precision == "int8" else 0
            return recorded_samples(parts, self.observations, count, self.samples, self.seed)
        if self.precision == "int8":
            raise CheckpointError(
                "int8 is calibrated on real observations: add --observations DIR "
                "(python -m lab.experts.demonstrations --episodes 16 --seed 7 --out DIR records some)"
            )
        return Recorded([], draw_samples(parts.config, self.samples, self.seed, parts.embodiments))

    def _recipe(self, config: PolicyConfig, samples: Recorded) -> Recipe:
        steps = config.flow_steps if self.flow_steps is None else self.flow_steps
        source = "synthetic" if self.observations is None else f"recorded, {self.observations.name}"
        return Recipe(self.precision, steps, self.seed, samples.verification, samples.calibration, source)


def _check_task(task: str, document: str) -> None:
    """Raises `CheckpointError` for a task that the policy would refuse in every run."""
    known = Tokenizer.from_str(document)
    words = [word.strip(PUNCTUATION) for word in task.split()]
    if not any(words):
        raise CheckpointError("--task: the task is empty")
    unknown = str(json.loads(document)["model"].get("unk_token"))
    strange = [word for word in words if unknown in known.encode(word, add_special_tokens=False).tokens]
    if strange:
        raise CheckpointError(f"--task: the policy never learned the word {shown(strange[0])}")
