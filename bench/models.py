"""What is measured: bundles that exist, or bundles made here from a checkpoint or from random weights.

Imports torch: only the sub-benchmarks that make bundles or compare with torch import this module.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from bench.policy_run import ARM, MADE_HERE, STILL_RAD, TASK
from edge.arms import load_arm
from edge.errors import InputError
from export.engines.observations import Sample, draw_samples
from export.engines.package import Origin, Recipe, export_bundle
from export.families.action_prior.checkpoint import CheckpointError, load_checkpoint
from export.families.action_prior.config import PRESETS, PolicyConfig
from export.families.action_prior.embodiment import Embodiment, SlotStatistics
from export.families.action_prior.parts import PolicyParts, RandomParts
from export.training.instructions import word_tokenizer

STEP_S = 0.1
ACTION_JOINTS, STATE_JOINTS = 29, 8
"""First of the slots for joints and gripper, in actions and states (the paper's layout; export/training/mapping.py)."""
VERIFIED_ON, CALIBRATED_ON, TRAINED_CALIBRATED_ON = 1, 2, 8
"""Observations. A trained policy is to keep the gates in INT8 too: only then control lets it say anything."""


def sliced(config: PolicyConfig, layers: int) -> PolicyConfig:
    """The same widths with fewer layers, and a small table of tokens, which costs memory and no time."""
    if layers < 3:
        raise InputError("--layers takes 3 or more: the vision tower hands over what three of its layers see")
    return dataclasses.replace(
        config,
        vocabulary=1024,
        tied_image_tokens=(2, 3),
        vision=dataclasses.replace(config.vision, layers=layers, deepstack_layers=(0, 1, 2)),
        **{name: dataclasses.replace(getattr(config, name), layers=layers) for name in ("text", "encoder", "decoder")},
    )


def random_parts(preset: str, layers: int | None) -> PolicyParts:
    """Random weights of a preset's size, seeded; with `layers` only so many layers in every stack."""
    config = PRESETS[preset]()
    return RandomParts(sliced(config, layers) if layers else config, 0)


def checkpoint_parts(path: Path) -> PolicyParts:
    """A trained policy. Raises `InputError`."""
    try:
        return load_checkpoint(path)
    except (CheckpointError, OSError) as error:
        raise InputError(str(error)) from None


def samples_of(parts: PolicyParts, count: int, seed: int) -> list[Sample]:
    """Observations out of thin air: times do not depend on what is seen."""
    return draw_samples(parts.config, count, seed, parts.embodiments)


def make_bundle(parts: PolicyParts, precision: str, out: Path, seed: int, notify: Callable[[str], None]) -> Path:
    """A bundle of `parts`, calibrated and verified on drawn observations: good to measure, not to drive with.

    Random weights have outliers that INT8 does not keep within an export's gates. Such a bundle is written and says so,
    can be timed, and is refused by everything that drives an arm.
    """
    calibrated_on = TRAINED_CALIBRATED_ON if parts.embodiments else CALIBRATED_ON
    samples = samples_of(parts, VERIFIED_ON + calibrated_on, seed)
    recipe = Recipe(
        precision,
        parts.config.flow_steps,
        seed,
        samples[:VERIFIED_ON],
        samples[VERIFIED_ON:] if precision == "int8" else [],
        "synthetic, made by edge-bench",
    )

    def stage(name: str, size: int) -> Callable[[], object]:
        notify(f"{precision}: {name}")
        return lambda: None

    report = export_bundle(parts, recipe, _origin(parts), out, stage)
    if not report["passed"]:
        notify(f"{precision}: outside an export's gates on these weights; it can be timed and will drive nothing")
    return out


def _origin(parts: PolicyParts) -> Origin:
    tokenizer = getattr(parts, "tokenizer", None)
    return Origin(
        "0" * 64, MADE_HERE, parts.embodiments or (still_arm(),), tokenizer or word_tokenizer((TASK,)).to_str()
    )


def still_arm() -> Embodiment:
    """An arm for a policy that was trained for none: it stands still, whatever the policy says."""
    arm = load_arm(ARM)
    joints, zeros = range(arm.dof), (0.0,) * arm.dof
    return Embodiment(
        name=arm.embodiment,
        index=0,
        step_s=STEP_S,
        joints=arm.joints,
        actions=SlotStatistics(tuple(ACTION_JOINTS + joint for joint in joints), zeros, (STILL_RAD,) * arm.dof),
        states=SlotStatistics(tuple(STATE_JOINTS + joint for joint in joints), arm.home_rad, (0.5,) * arm.dof),
    )
