"""A policy and a dataset so small that a training step takes milliseconds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from export.policy.config import PolicyConfig, TransformerShape, tiny
from export.policy.embodiment import Embodiment
from export.training.data import Windows, fit_embodiment, read_demonstrations
from export.training.schedule import Schedule, Settings

INSTRUCTIONS = ["reach the red cube", "reach the blue cube"]
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


def write_dataset(folder: Path, frames: int = 0, episodes: int = 2) -> Path:
    """Short episodes of a smooth swing, every second one with a change of mind at its middle; 60 steps each."""
    rng = np.random.default_rng(0)
    steps = np.arange(60 * episodes + 1)[:, None]
    command = 0.3 * np.sin(0.08 * steps + rng.uniform(0, 6, 7))
    arrays = {
        "state_rad": command[:-1].astype(np.float32),
        "action_rad": np.diff(command, axis=0).astype(np.float32),
        "instruction": np.tile(np.repeat([0, 0, 1, 0], 30), episodes // 2).astype(np.int16),
        "segment": np.tile(np.repeat([0, 0, 0, 1], 30), episodes // 2).astype(np.int16),
        "episode": np.repeat(np.arange(episodes), 60).astype(np.int32),
    }
    if frames:
        arrays["frames"] = rng.integers(0, 256, (60 * episodes, frames, frames, 3), dtype=np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "episodes.npz", **arrays)
    description = {
        "format": 1,
        "embodiment": "fr3",
        "step_s": 0.1,
        "joints": [f"j{joint}" for joint in range(7)],
        "instructions": INSTRUCTIONS,
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def read_windows(folder: Path, config: PolicyConfig) -> tuple[Windows, Embodiment]:
    data = read_demonstrations(folder)
    arm = fit_embodiment(data, 0, config.normalisation_quantile)
    return Windows(data, arm, config), arm


def few(steps: int, batch: int = 8, **changes: object) -> Schedule:
    rates = {"warmup": 3, "peak_rate": 2e-3, "final_rate": 1e-4, **changes}
    return Schedule(steps=steps, batch=batch, **rates)  # type: ignore[arg-type]


QUIET = Settings(seed=3, tensorboard=False, log_every=1)


def records(folder: Path, name: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / f"{name}.metrics.jsonl").read_text().splitlines()]
