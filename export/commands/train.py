"""`edge-train point | prior | vla`: trains one stage and writes `checkpoint.pt`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer

from export.policy.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from export.policy.config import PRESETS, PolicyConfig
from export.training.data import DatasetError
from export.training.instructions import word_tokenizer
from export.training.loop import Schedule
from export.training.mapping import read_mapping
from export.training.mixture import read_all
from export.training.pointing import read_scenes, train_pointing
from export.training.prior import train_prior
from export.training.vla import train_vla

# Rates and lengths that fit the tiny preset on two CPU cores; the paper's own are in docs/policy.md.
PRIOR_SCHEDULE = Schedule(steps=3600, batch=128, warmup=400, peak_rate=1e-3, final_rate=5e-6)
POINT_SCHEDULE = Schedule(steps=1000, batch=64, warmup=100, peak_rate=1e-3, final_rate=1e-5)
VLA_SCHEDULE = Schedule(steps=3000, batch=64, warmup=300, peak_rate=6e-4, final_rate=3e-6)


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="edge-train",
        description="Trains the policy: first the action prior from trajectories alone, then the VLA on top of it. "
        "A VLM that has not been pretrained learns to point before.",
        epilog="A run that was stopped goes on where it was when the same command is given again.",
    )
    stages = root.add_subparsers(dest="stage", required=True)
    point = stages.add_parser("point", help="stage 0: a VLM without pretraining learns to find the cube it is told")
    prior = stages.add_parser("prior", help="stage 1: encoder and decoder from trajectories, no images, no text")
    vla = stages.add_parser("vla", help="stage 2: the VLM, from a stage-1 checkpoint and demonstrations with images")
    for stage, schedule in ((point, POINT_SCHEDULE), (prior, PRIOR_SCHEDULE), (vla, VLA_SCHEDULE)):
        stage.add_argument(
            "--out", type=Path, required=True, metavar="DIR", help="folder for checkpoint.pt, metrics and resume state"
        )
        stage.add_argument("--steps", type=int, default=schedule.steps, help="optimiser steps (default %(default)s)")
        stage.add_argument("--batch", type=int, default=schedule.batch, help="windows per step (default %(default)s)")
        stage.add_argument(
            "--seed", type=int, default=0, help="seed of weights, batches and noise (default %(default)s)"
        )
        stage.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves the choice to torch")
    point.add_argument("--data", type=Path, required=True, metavar="DIR", help="rendered scenes")
    for stage in (prior, vla):
        stage.add_argument(
            "--data", type=Path, required=True, nargs="+", metavar="DIR", help="LeRobot v3 datasets, one or several"
        )
        stage.add_argument(
            "--mapping",
            type=Path,
            nargs="+",
            default=[],
            metavar="FILE",
            help="which columns go to which slots, for robots that have no mapping yet (docs/data.md)",
        )
        stage.add_argument(
            "--weights",
            type=float,
            nargs="+",
            metavar="W",
            help="how often each dataset is drawn (default: every window is as likely as any other)",
        )
    for stage in (point, prior):
        stage.add_argument("--preset", choices=sorted(PRESETS), default="tiny")
    vla.add_argument(
        "--vlm",
        type=Path,
        metavar="FILE",
        help="checkpoint.pt of stage 0 or 2, where the VLM starts from; its eyes stay",
    )
    vla.add_argument(
        "--without-history",
        type=_share,
        metavar="SHARE",
        help="share of a batch that goes without the history token (default: the configuration's, 0.5 in the paper)",
    )
    vla.add_argument(
        "--whole-windows", action="store_true", help="leave out chunks that the next instruction cuts short"
    )
    vla.add_argument("--freeze-prior", action="store_true", help="leave encoder and decoder as stage 1 made them")
    vla.add_argument("--prior", type=Path, required=True, metavar="FILE", help="checkpoint.pt of stage 1")
    vla.add_argument(
        "--distillation-steps", type=int, default=2000, help="N_decay: lambda reaches 0 here (default %(default)s)"
    )
    return root


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        checkpoint = {"point": _point, "prior": _prior, "vla": _vla}[args.stage](args)
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


def _share(text: str) -> float:
    value = float(text)
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _schedule(args: argparse.Namespace, default: Schedule) -> Schedule:
    warmup = min(default.warmup, max(1, args.steps // 10))
    return Schedule(args.steps, args.batch, warmup, default.peak_rate, default.final_rate)


def _point(args: argparse.Namespace) -> Checkpoint:
    scenes = read_scenes(args.data)
    config = PRESETS[args.preset]()
    tokenizer = _tokenizer(args.data, scenes.instructions, config)
    args.out.mkdir(parents=True, exist_ok=True)
    return train_pointing(config, tokenizer, scenes, _schedule(args, POINT_SCHEDULE), args.seed, args.out)


def _prior(args: argparse.Namespace) -> Checkpoint:
    _check_weights(args)
    datasets = read_all(args.data, [read_mapping(file) for file in args.mapping])
    config, schedule = PRESETS[args.preset](), _schedule(args, PRIOR_SCHEDULE)
    args.out.mkdir(parents=True, exist_ok=True)
    return train_prior(config, datasets, schedule, args.seed, args.out, args.weights)


def _vla(args: argparse.Namespace) -> Checkpoint:
    _check_weights(args)
    prior = load_checkpoint(args.prior)
    datasets = read_all(args.data, [read_mapping(file) for file in args.mapping], prior.config)
    vlm = load_checkpoint(args.vlm) if args.vlm is not None else None
    tokenizer = _tokenizer(args.data[0], datasets[0].instructions, prior.config)
    schedule = _schedule(args, VLA_SCHEDULE)
    args.out.mkdir(parents=True, exist_ok=True)
    return train_vla(
        prior,
        vlm,
        tokenizer,
        datasets,
        schedule,
        args.distillation_steps,
        args.seed,
        args.out,
        args.freeze_prior,
        args.without_history,
        args.whole_windows,
        args.weights,
    )


def _check_weights(args: argparse.Namespace) -> None:
    if args.weights is not None and (len(args.weights) != len(args.data) or not all(w > 0 for w in args.weights)):
        raise DatasetError(f"--weights {args.weights} for {len(args.data)} datasets; give each one, above 0")


def _tokenizer(folder: Path, instructions: tuple[str, ...], config: PolicyConfig) -> Tokenizer:
    tokenizer = word_tokenizer(instructions)
    if tokenizer.get_vocab_size() > config.vocabulary:
        raise DatasetError(
            f"{folder} needs {tokenizer.get_vocab_size()} tokens, the configuration has {config.vocabulary}"
        )
    return tokenizer


if __name__ == "__main__":
    sys.exit(main())
