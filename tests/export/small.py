"""A policy and a dataset so small that a training step takes milliseconds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from export.families.action_prior.config import PolicyConfig, TransformerShape, tiny
from export.families.action_prior.embodiment import Embodiment
from export.training.data import Windows, fit_embodiment, read_demonstrations
from export.training.lerobot import read_info
from export.training.schedule import Schedule, Settings
from tests.recordings import INSTRUCTIONS, write_dataset

__all__ = ["INSTRUCTIONS", "QUIET", "few", "read_windows", "records", "small", "write_dataset"]

ACTION = TransformerShape(hidden=32, layers=1, heads=2, kv_heads=1, head_dim=16, ffn=48, rope_theta=1e4)


def small(**changes: object) -> PolicyConfig:
    """The tiny preset's classes, one layer each."""
    base = tiny()
    changes = {"frame_px": (64, 64), "image_px": (32, 32), **changes}
    return replace(
        base,
        vision=replace(base.vision, hidden=32, layers=1, heads=2, ffn=48, deepstack_layers=(0,)),
        text=replace(base.text, hidden=32, layers=1, heads=2, kv_heads=1, ffn=48),
        encoder=ACTION,
        decoder=ACTION,
        **changes,  # type: ignore[arg-type]
    )


def read_windows(folder: Path, config: PolicyConfig) -> tuple[Windows, Embodiment]:
    """Windows of a dataset, with its pictures where it has any."""
    data = read_demonstrations(folder, config=config if read_info(folder).cameras() else None)
    arm = fit_embodiment(data, 0, config.normalisation_quantile)
    return Windows(data, arm, config), arm


def few(steps: int, batch: int = 8, **changes: object) -> Schedule:
    rates = {"warmup": 3, "peak_rate": 2e-3, "final_rate": 1e-4, **changes}
    return Schedule(steps=steps, batch=batch, **rates)  # type: ignore[arg-type]


QUIET = Settings(seed=3, tensorboard=False, log_every=1)


def records(folder: Path, name: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / f"{name}.metrics.jsonl").read_text().splitlines()]
