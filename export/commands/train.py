"""`edge-train point | prior | vla | distil`: trains one stage and writes `checkpoint.pt`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from edge.cli.parser import complain
from export.commands.train_options import parser, schedule_of, settings_of
from export.families.action_prior.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from export.families.action_prior.config import PRESETS, ConfigError, PolicyConfig
from export.families.action_prior.folder import with_folders
from export.training.data import DISTURBED, DatasetError, Demonstrations, fit_embodiments
from export.training.distil import distil
from export.training.instructions import UNKNOWN, InstructionTokens, word_tokenizer
from export.training.interrupts import Stopped
from export.training.mapping import read_mapping
from export.training.mixture import Mixture, read_all
from export.training.pointing import read_scenes, train_pointing
from export.training.prior import train_prior
from export.training.processes import Processes, join
from export.training.schedule import Diverged, TrainingError
from export.training.vla import Plan, Start, check_vlm, train_vla
from firmware_bridge.reading import one_line

TOKENIZER = "tokenizer.json"


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        processes = join(args.device)
        args.out.mkdir(parents=True, exist_ok=True)
        checkpoint = {"point": _point, "prior": _prior, "vla": _vla, "distil": _distil}[args.stage](args, processes)
        if processes.first:
            path = args.out / "checkpoint.pt"
            save_checkpoint(path, checkpoint)
            print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB, seed {args.seed})")
        processes.wait()
        processes.leave()
    except (CheckpointError, ConfigError, DatasetError, OSError, TrainingError) as error:
        complain("edge-train", error)
        return 1 if isinstance(error, Diverged) else 2
    except Stopped as stopped:
        complain("edge-train", stopped)
        return 130
    except KeyboardInterrupt:
        print("edge-train: stopped; give the same command again to go on from the last saved step", file=sys.stderr)
        return 130
    return 0


def _point(args: argparse.Namespace, processes: Processes) -> Checkpoint:
    scenes = read_scenes(args.data)
    config = PRESETS[args.preset]()
    tokenizer = _words(args.data, scenes.instructions, config)
    return train_pointing(config, tokenizer, scenes, schedule_of(args), settings_of(args), args.out, processes)


def _prior(args: argparse.Namespace, processes: Processes) -> Checkpoint:
    config = _changed(with_folders(PRESETS[args.preset](), None, args.init_action), args)
    datasets = _read(args, None)
    arms = fit_embodiments(datasets, config.normalisation_quantile)
    windows, schedule, settings = Mixture(datasets, arms, config), schedule_of(args), settings_of(args)
    return train_prior(config, windows, arms, schedule, settings, args.out, processes, args.init_action)


def _vla(args: argparse.Namespace, processes: Processes) -> Checkpoint:
    start, datasets = _start(args)
    windows = Mixture(datasets, start.prior.embodiments, start.prior.config)
    text = _tokens(start.tokenizer, datasets, start.prior.config)
    plan = Plan(
        distillation_steps=args.distillation_steps if args.prior is not None else 0,
        never_let_go=args.never_let_go,
        freeze_prior=args.freeze_prior,
        whole_windows=args.whole_windows,
        resting=args.resting,
        decoder_alone=args.decoder_alone,
    )
    trained = train_vla(start, windows, text, schedule_of(args), plan, settings_of(args), args.out, processes)
    return replace(trained, cameras=datasets[0].cameras)


def _read(args: argparse.Namespace, config: PolicyConfig | None, cameras: tuple[str, ...] = ()) -> list[Demonstrations]:
    """The datasets of --data; with the frames that a policy of `config` sees, from the cameras that it knows."""
    mappings = [read_mapping(file) for file in args.mapping]
    datasets = read_all(args.data, mappings, config, args.units, cameras, args.calibration)
    for data in datasets:
        if data.remark:
            print(f"edge-train: {one_line(data.remark)}")
    return datasets


def _start(args: argparse.Namespace) -> tuple[Start, list[Demonstrations]]:
    """What stage 2 starts from and learns from, by its options. Raises `CheckpointError` where they do not fit."""
    if args.prior is not None and (args.preset or args.init_action):
        raise CheckpointError("--preset and --init-action are for a run without --prior, which has sizes and weights")
    if args.prior is None and (args.freeze_prior or args.never_let_go):
        raise CheckpointError("--freeze-prior and --never-let-go need a --prior")
    if args.decoder_alone and (args.prior is None or args.vlm is None or args.freeze_prior or args.distillation_steps):
        raise CheckpointError(
            "--decoder-alone trains the decoder of a whole policy: give its checkpoint as --prior and as --vlm, "
            "with --distillation-steps 0 and without --freeze-prior"
        )
    if args.vlm is not None and args.init_vlm is not None:
        raise CheckpointError("--vlm and --init-vlm both say where the VLM starts from; give one")
    if args.prior is not None:
        prior = load_checkpoint(args.prior)
    else:
        prior = Checkpoint(with_folders(PRESETS[args.preset or "tiny"](), None, args.init_action), {}, (), None)
    prior = replace(prior, config=_changed(with_folders(prior.config, args.init_vlm, None), args))
    vlm = load_checkpoint(args.vlm) if args.vlm is not None else None
    if vlm is not None:
        check_vlm(vlm, prior.config)  # before the data is read, which takes minutes
    datasets = _read(args, prior.config)
    if args.prior is None:
        prior = replace(prior, embodiments=fit_embodiments(datasets, prior.config.normalisation_quantile))
    if args.init_vlm is not None:
        tokenizer = _tokenizer_of(args.init_vlm)
    elif vlm is not None:
        tokenizer = _words_of(vlm, args.vlm, datasets[0].instructions)
    else:
        tokenizer = _words(args.data[0], datasets[0].instructions, prior.config)
    return Start(prior, tokenizer, vlm, args.init_vlm, args.init_action), datasets


def _distil(args: argparse.Namespace, processes: Processes) -> Checkpoint:
    teacher = load_checkpoint(args.teacher)
    teacher = replace(teacher, config=_changed(teacher.config, args))
    tokenizer = Tokenizer.from_str(teacher.tokenizer) if teacher.tokenizer is not None else None
    datasets = _read(args, teacher.config if tokenizer is not None else None, teacher.cameras)
    windows = Mixture(datasets, teacher.embodiments, teacher.config)
    text = _tokens(tokenizer, datasets, teacher.config) if tokenizer is not None else None
    schedule, settings = schedule_of(args), settings_of(args)
    student = distil(teacher, windows, text, schedule, args.teacher_steps, settings, args.out, processes)
    return replace(student, cameras=teacher.cameras)


def _tokens(tokenizer: Tokenizer, datasets: list[Demonstrations], config: PolicyConfig) -> InstructionTokens:
    """The instructions of the data. Raises `DatasetError` where one has more tokens than the policy sees."""
    try:
        return InstructionTokens(tokenizer, datasets[0].instructions, config.token_budget)
    except ValueError as error:
        raise DatasetError(str(error)) from None


def _changed(config: PolicyConfig, args: argparse.Namespace) -> PolicyConfig:
    """The configuration with the fields that options name. Raises `ConfigError`."""
    names = ("without_history", "history_passes", "history_compressor", "encoder_sees", "pose_weight")
    changes: dict[str, Any] = {name: getattr(args, name, None) for name in names}
    if args.perturb_prefix is not None:
        changes["prefix_perturbation"] = replace(config.prefix_perturbation, share=args.perturb_prefix)
    return replace(config, **{name: value for name, value in changes.items() if value is not None}).checked()


def _words(folder: Path, instructions: tuple[str, ...], config: PolicyConfig) -> Tokenizer:
    tokenizer = word_tokenizer(tuple(text for text in instructions if text != DISTURBED))  # nobody is told that
    if tokenizer.get_vocab_size() > config.vocabulary:
        raise DatasetError(
            f"{folder} needs {tokenizer.get_vocab_size()} tokens, the configuration has {config.vocabulary}"
        )
    return tokenizer


def _words_of(vlm: Checkpoint, file: Path, instructions: tuple[str, ...]) -> Tokenizer:
    """The tokenizer that a VLM learnt with. Raises `CheckpointError` where it lacks a word of the instructions."""
    if vlm.tokenizer is None:
        raise CheckpointError(f"{file}: has no tokenizer, so no VLM; give the checkpoint.pt of stage 0 or 2 as --vlm")
    tokenizer = Tokenizer.from_str(vlm.tokenizer)
    for text in instructions:
        if text != DISTURBED and UNKNOWN in tokenizer.encode(text, add_special_tokens=False).tokens:
            raise CheckpointError(f"{file}: the VLM has not learnt all words of the instruction '{text}' of the data")
    return tokenizer


def _tokenizer_of(folder: Path) -> Tokenizer:
    path = folder / TOKENIZER
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception, also for a missing file
        raise CheckpointError(f"{path}: the tokenizer cannot be read: {str(error)[:120]}") from None


if __name__ == "__main__":
    sys.exit(main())
