"""`edge-train prior | vla`: trains one stage and writes `checkpoint.pt`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from export.policy.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from export.policy.config import PRESETS
from export.training.data import DatasetError, Demonstrations, read_demonstrations
from export.training.instructions import word_tokenizer
from export.training.loop import Schedule
from export.training.prior import train_prior
from export.training.vla import train_vla

# Rates and lengths that fit the tiny preset on two CPU cores; the paper's own are in docs/policy.md.
PRIOR_SCHEDULE = Schedule(steps=4000, batch=256, warmup=400, peak_rate=1e-3, final_rate=5e-6)
VLA_SCHEDULE = Schedule(steps=9000, batch=64, warmup=500, peak_rate=6e-4, final_rate=3e-6)


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="edge-train",
        description="Trains the policy: first the action prior from trajectories alone, then the VLA on top of it.",
        epilog="A run that was stopped goes on where it was when the same command is given again.",
    )
    stages = root.add_subparsers(dest="stage", required=True)
    prior = stages.add_parser("prior", help="stage 1: encoder and decoder from trajectories, no images, no text")
    vla = stages.add_parser("vla", help="stage 2: the VLM, from a stage-1 checkpoint and demonstrations with images")
    for stage, schedule in ((prior, PRIOR_SCHEDULE), (vla, VLA_SCHEDULE)):
        stage.add_argument("--data", type=Path, required=True, metavar="DIR", help="a recorded dataset")
        stage.add_argument(
            "--out", type=Path, required=True, metavar="DIR", help="folder for checkpoint.pt, metrics and resume state"
        )
        stage.add_argument("--steps", type=int, default=schedule.steps, help="optimiser steps (default %(default)s)")
        stage.add_argument("--batch", type=int, default=schedule.batch, help="windows per step (default %(default)s)")
        stage.add_argument(
            "--seed", type=int, default=0, help="seed of weights, batches and noise (default %(default)s)"
        )
        stage.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves the choice to torch")
    prior.add_argument("--preset", choices=sorted(PRESETS), default="tiny")
    vla.add_argument("--prior", type=Path, required=True, metavar="FILE", help="checkpoint.pt of stage 1")
    vla.add_argument(
        "--distillation-steps", type=int, default=900, help="N_decay: lambda reaches 0 here (default %(default)s)"
    )
    return root


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        data = read_demonstrations(args.data)
        args.out.mkdir(parents=True, exist_ok=True)
        checkpoint = _prior(args, data) if args.stage == "prior" else _vla(args, data)
    except (CheckpointError, DatasetError, OSError) as error:
        print(f"edge-train: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("edge-train: stopped; give the same command again to go on from the last saved step", file=sys.stderr)
        return 130
    path = args.out / "checkpoint.pt"
    save_checkpoint(path, checkpoint)
    print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB, seed {args.seed})")
    return 0


def _schedule(args: argparse.Namespace, default: Schedule) -> Schedule:
    warmup = min(default.warmup, max(1, args.steps // 10))
    return Schedule(args.steps, args.batch, warmup, default.peak_rate, default.final_rate)


def _prior(args: argparse.Namespace, data: Demonstrations) -> Checkpoint:
    return train_prior(PRESETS[args.preset](), data, _schedule(args, PRIOR_SCHEDULE), args.seed, args.out)


def _vla(args: argparse.Namespace, data: Demonstrations) -> Checkpoint:
    prior = load_checkpoint(args.prior)
    if data.frames is None:
        raise DatasetError(f"{args.data} has no frames; stage 2 needs images")
    tokenizer = word_tokenizer(data.instructions)
    if tokenizer.get_vocab_size() > prior.config.vocabulary:
        raise DatasetError(
            f"{args.data} needs {tokenizer.get_vocab_size()} tokens, the configuration has {prior.config.vocabulary}"
        )
    return train_vla(
        prior, tokenizer, data, _schedule(args, VLA_SCHEDULE), args.distillation_steps, args.seed, args.out
    )


if __name__ == "__main__":
    sys.exit(main())
