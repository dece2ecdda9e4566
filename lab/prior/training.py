"""One training run: stage 0, stage 1, or stage 2 of one variant at one seed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tokenizers import Tokenizer

from export.commands.train_options import SCHEDULES
from export.families.action_prior.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from export.families.action_prior.config import PolicyConfig, tiny
from export.training.instructions import InstructionTokens, word_tokenizer
from export.training.mixture import Mixture
from export.training.pointing import read_scenes, train_pointing
from export.training.prior import train_prior
from export.training.records import read_records
from export.training.schedule import Schedule, Settings
from export.training.vla import Plan, Start, train_vla
from lab.experts.demonstrations import INSTRUCTIONS
from lab.prior import data
from lab.prior.scale import Scale
from lab.prior.variants import PRIORS, Stage1, Variant

CHECKPOINT = "checkpoint.pt"
VALIDATION_SEED = 77
SAVE_EVERY = 100


@dataclass(frozen=True)
class Place:
    """Where an experiment lies, what it trains on, and what plays its policies."""

    out: Path
    scale: Scale
    device: Literal["cpu", "cuda"]
    engines: Literal["exported", "torch"] = "exported"

    @property
    def data(self) -> Path:
        return self.out / "data"

    @property
    def vlm(self) -> Path:
        return self.out / "vlm"

    def prior(self, stage1: Stage1, seed: int) -> Path:
        return self.out / "priors" / f"{stage1.name}-{seed}"

    def run(self, variant: Variant, seed: int) -> Path:
        return self.out / "runs" / f"{variant.name}-{seed}"


def base_config() -> PolicyConfig:
    """The tiny preset with the paper's losses: no readout of the pose from z, which is ours."""
    return replace(tiny(), pose_weight=0.0)


def tokenizer() -> Tokenizer:
    """Of all instructions of the reaching task, whichever a data set holds."""
    return word_tokenizer(INSTRUCTIONS)


def settings_of(place: Place, seed: int) -> Settings:
    return Settings(seed=seed, device=place.device, tensorboard=False, log_every=10)


def schedule_of(stage: str, steps: int, batch: int) -> Schedule:
    """The stage's own rates with a warm-up of a tenth."""
    return replace(
        SCHEDULES[stage], steps=steps, batch=batch, warmup=max(1, steps // 10), save_every=min(SAVE_EVERY, steps)
    )


def train_eyes(place: Place) -> None:
    """Stage 0, once for all runs: what a pretrained VLM brings along."""
    from lab.experts.pointing import main as render

    scale, scenes = place.scale, place.data / "scenes"
    if not (scenes / "scenes.json").is_file():
        render(["--scenes", str(scale.scenes), "--seed", str(data.SCENES_SEED), "--out", str(scenes)])
    schedule = schedule_of("point", scale.pointing_steps, scale.pointing_batch)
    settings = settings_of(place, 0)
    place.vlm.mkdir(parents=True, exist_ok=True)
    eyes = train_pointing(base_config(), tokenizer(), read_scenes(scenes), schedule, settings, place.vlm)
    save_checkpoint(place.vlm / CHECKPOINT, eyes)


def train_stage1(place: Place, stage1: Stage1, seed: int) -> None:
    """A prior, from its share of the trajectories."""
    config = replace(base_config(), **stage1.config())
    sets = data.stage1_sets(place.data)
    arms = data.embodiments_of(sets, data.kept(place.data / f"{data.DEMONSTRATIONS}.npz"), config)
    windows = Mixture(data.chosen_sets(sets, stage1), arms, config)
    schedule = schedule_of("prior", place.scale.prior_steps, place.scale.prior_batch)
    folder = place.prior(stage1, seed)
    folder.mkdir(parents=True, exist_ok=True)
    prior = train_prior(config, windows, arms, schedule, settings_of(place, seed), folder)
    save_checkpoint(folder / CHECKPOINT, prior)


def train_stage2(place: Place, variant: Variant, seed: int) -> Checkpoint:
    """The policy of one variant, beginning with the eyes of stage 0 and its prior, if it has one."""
    scale, folder = place.scale, place.run(variant, seed)
    config = replace(base_config(), **variant.config())
    everything = data.kept(place.data / f"{data.DEMONSTRATIONS}.npz")
    arms = data.embodiments_of(data.stage1_sets(place.data), everything, config)
    weights: dict[str, Any] = {}
    if variant.prior is not None:
        weights = load_checkpoint(place.prior(PRIORS[variant.prior], seed) / CHECKPOINT).state_dict
    start = Start(Checkpoint(config, weights, arms, None), tokenizer(), load_checkpoint(place.vlm / CHECKPOINT))
    parts = data.demonstrations_for(everything, variant.demonstrations, seed, scale)
    text = InstructionTokens(start.tokenizer, everything.instructions, config.token_budget)
    settings = replace(
        settings_of(place, seed),
        validate_every=scale.validate_every,
        validation_windows=scale.validation_windows,
        held_out_last=scale.held_out_episodes,
        validation_seed=VALIDATION_SEED,
    )
    never = variant.decay is None
    plan = Plan(0 if variant.decay is None else round(variant.decay * scale.steps), never_let_go=never)
    folder.mkdir(parents=True, exist_ok=True)
    schedule = schedule_of("vla", scale.steps, scale.batch)
    policy = train_vla(start, Mixture(parts, arms, config), text, schedule, plan, settings, folder)
    save_checkpoint(folder / CHECKPOINT, policy)
    return policy


def learning(folder: Path) -> dict[str, Any]:
    """How stage 2 began, and its curve: pairs of steps done and validation error, normalised and in radians."""
    records = read_records(folder / "vla.metrics.jsonl")
    first = records[0]
    judged = [record for record in records if "validation_mae" in record]
    return {
        "initial_loss": first["loss"],
        "initial_predict": first["predict"],
        "initial_gradient_norm": first["gradient_norm"],
        "curve": [[int(record["step"]) + 1, record["validation_mae"]] for record in judged],
        "final_error": judged[-1]["validation_mae"],
        "final_error_rad": judged[-1]["validation_mae_rad"],
    }
