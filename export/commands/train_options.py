"""The options of `edge-train`."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from edge.cli.parser import add_version, count, described
from export.families.action_prior.config import PRESETS
from export.training.readings import UNITS
from export.training.schedule import Schedule, Settings

# Rates and lengths that fit the tiny preset on two CPU cores; the paper's own are in docs/howto/training.md.
SCHEDULES = {
    "point": Schedule(steps=1000, batch=64, warmup=100, peak_rate=1e-3, final_rate=1e-5),
    "prior": Schedule(steps=3600, batch=128, warmup=400, peak_rate=1e-3, final_rate=5e-6),
    "vla": Schedule(steps=3000, batch=64, warmup=300, peak_rate=6e-4, final_rate=3e-6),
    "distil": Schedule(steps=2000, batch=128, warmup=100, peak_rate=3e-4, final_rate=3e-6),
}
STAGES = {
    "point": "stage 0: a VLM without pretraining learns to find the cube that the instruction names",
    "prior": "stage 1: encoder and decoder from trajectories, no images, no text",
    "vla": "stage 2: the VLM, from a stage-1 checkpoint and demonstrations with images",
    "distil": "step distillation: the decoder of a checkpoint learns to reach the chunk in one flow step",
}
EXAMPLES = {
    "point": "edge-train point --data runs/scenes --out runs/point",
    "prior": "edge-train prior --data runs/prior-data/panda --out runs/prior",
    "vla": "edge-train vla --prior runs/prior/checkpoint.pt --data runs/demonstrations --out runs/vla",
    "distil": "edge-train distil --teacher runs/vla/checkpoint.pt --data runs/demonstrations --out runs/one-step",
}
PLAIN = Settings()


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="edge-train",
        **described(
            "Trains the policy: first the action prior from trajectories alone, then the VLA on top of it. "
            "A VLM that has not been pretrained learns to point before; one flow step is learnt after.",
            "\n".join(EXAMPLES.values()),
            "The same command resumes a run that was stopped. Several processes: torchrun --nproc-per-node N "
            "--no-python edge-train ... Exit codes: 0 trained, 1 the loss is not finite, 2 bad input, 130 stopped and "
            "saved.",
        ),
    )
    add_version(root)
    stages = root.add_subparsers(dest="stage", required=True)
    for name, what in STAGES.items():
        stage = stages.add_parser(name, help=what, **described(f"{what[0].upper()}{what[1:]}.", EXAMPLES[name]))
        _add_common(stage, SCHEDULES[name])
        {"point": _add_point, "prior": _add_prior, "vla": _add_vla, "distil": _add_distil}[name](stage)
        if name != "point":
            _add_data(stage)
            _add_validation(stage)
    return root


def schedule_of(args: argparse.Namespace) -> Schedule:
    """The stage's schedule with what the options change; the warm-up takes at most a tenth of the steps."""
    default = SCHEDULES[args.stage]
    return Schedule(
        steps=args.steps,
        batch=args.batch,
        warmup=min(default.warmup, max(1, args.steps // 10)) if args.warmup is None else args.warmup,
        peak_rate=args.rate,
        final_rate=args.final_rate,
        weight_decay=args.weight_decay,
        save_every=args.save_every,
    )


def settings_of(args: argparse.Namespace) -> Settings:
    names = {field.name for field in dataclasses.fields(Settings)}
    given = {name: value for name, value in vars(args).items() if name in names}
    if given.get("weights") is not None:
        given["weights"] = tuple(given["weights"])
    return Settings(**given)


def _add_common(stage: argparse.ArgumentParser, schedule: Schedule) -> None:
    add = stage.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder for checkpoint.pt, metrics and resume state")
    add("--steps", type=count, default=schedule.steps, help="optimiser steps (default %(default)s)")
    add("--batch", type=count, default=schedule.batch, help="windows per step, of all processes (default %(default)s)")
    add("--seed", type=int, default=0, help="seed of weights, batches and noise (default %(default)s)")
    add("--threads", type=int, default=0, help="CPU threads; 0 leaves the choice to torch")
    optimiser = stage.add_argument_group("optimiser: AdamW, warm-up, cosine")
    add = optimiser.add_argument
    add("--rate", type=_positive, default=schedule.peak_rate, help="learning rate at its peak (default %(default)g)")
    add("--final-rate", type=_positive, default=schedule.final_rate, help="at the last step (default %(default)g)")
    add("--warmup", type=count, help=f"steps to the peak (default {schedule.warmup}, a tenth of fewer steps)")
    add("--weight-decay", type=float, default=schedule.weight_decay, help="(default %(default)g)")
    add("--ema", dest="ema_decay", type=_share, default=PLAIN.ema_decay, metavar="DECAY",
        help="running average of the weights; 0 keeps none (default %(default)g)")  # fmt: skip
    add("--keep", choices=("average", "last"), default=PLAIN.keep,
        help="which weights checkpoint.pt gets (default %(default)s)")  # fmt: skip
    computing = stage.add_argument_group("computing and recording")
    add = computing.add_argument
    add("--device", choices=("cpu", "cuda"), default=PLAIN.device, help="(default %(default)s)")
    add("--precision", choices=("fp32", "bf16"), default=PLAIN.precision,
        help="of large products; flow, norms, softmax, losses, weights stay FP32 (default %(default)s)")  # fmt: skip
    add("--tf32", action="store_true", help="a GPU may round FP32 products to TF32; without it, it must not")
    add("--micro-batch", type=count, default=0, metavar="N", help="windows computed at a time (default: all)")
    add("--save-every", type=count, default=schedule.save_every, metavar="N", help="steps (default %(default)s)")
    add("--no-tensorboard", dest="tensorboard", action="store_false", help="metrics go to the .jsonl file only")


def _add_validation(stage: argparse.ArgumentParser) -> None:
    group = stage.add_argument_group("validation, on episodes that training never sees")
    add = group.add_argument
    add("--validate-every", type=count, default=0, metavar="N", help="steps; without it nothing is held out")
    add("--held-out", type=_share, default=PLAIN.held_out, metavar="SHARE", help="of episodes (default %(default)g)")
    add("--validation-windows", type=count, default=PLAIN.validation_windows, metavar="N", help="(default %(default)s)")
    add("--stop-at-error", type=_positive, metavar="X",
        help="end when the mean absolute error per action, in normalised units, is at most this")  # fmt: skip


def _add_data(stage: argparse.ArgumentParser) -> None:
    add = stage.add_argument
    add("--data", type=Path, required=True, nargs="+", metavar="DIR", help="LeRobot v3 datasets, one or several")
    add("--mapping", type=Path, nargs="+", default=[], metavar="FILE",
        help="which columns go to which slots, for robots that have no mapping yet (docs/howto/data.md)")  # fmt: skip
    add("--units", choices=UNITS,
        help="of the joints in the datasets of an SO arm, where their values fit more than one")  # fmt: skip
    add("--calibration", type=Path, metavar="FILE",
        help="of the SO arm that has recorded, ours or LeRobot's: what -100 to 100 are of (default: the profile's "
        "travel)")  # fmt: skip
    add("--weights", type=_positive, nargs="+", metavar="W",
        help="how often each dataset is drawn (default: every window is as likely as any other)")  # fmt: skip


def _add_point(stage: argparse.ArgumentParser) -> None:
    stage.add_argument("--data", type=Path, required=True, metavar="DIR", help="rendered scenes")
    stage.add_argument("--preset", choices=sorted(PRESETS), default="tiny")


def _add_prefix(stage: argparse.ArgumentParser) -> None:
    stage.add_argument("--perturb-prefix", type=_share, metavar="SHARE",
        help="of windows whose committed prefix is perturbed before the decoder sees it (default: that of the preset, "
        "or of the checkpoint it starts from)")  # fmt: skip


def _add_prior(stage: argparse.ArgumentParser) -> None:
    add = stage.add_argument
    add("--preset", choices=sorted(PRESETS), default="tiny")
    add("--init-action", type=Path, metavar="DIR", help="Hugging Face folder of a Qwen3, where both parts start from")
    _add_encoder(stage)
    _add_prefix(stage)


def _add_encoder(stage: argparse.ArgumentParser) -> None:
    add = stage.add_argument
    add("--encoder-sees", choices=("states and actions", "actions"), help="(default: the preset's, both)")
    add(
        "--pose-weight",
        type=float,
        metavar="W",
        help="of the readout of the newest state from z (default: the preset's)",
    )


def _add_vla(stage: argparse.ArgumentParser) -> None:
    add = stage.add_argument
    add(
        "--prior",
        type=Path,
        metavar="FILE",
        help="checkpoint.pt of stage 1; without it, encoder and decoder know nothing",
    )
    add("--preset", choices=sorted(PRESETS), help="without --prior: the sizes (default tiny)")
    add("--init-action", type=Path, metavar="DIR", help="without --prior: Hugging Face folder of a Qwen3 to start from")
    add(
        "--vlm",
        type=Path,
        metavar="FILE",
        help="checkpoint.pt of stage 0 or 2, where the VLM starts from; its eyes stay",
    )
    add("--init-vlm", type=Path, metavar="DIR",
        help="Hugging Face folder of a Qwen3-VL, where the VLM and its tokenizer come from")  # fmt: skip
    add("--distillation-steps", type=int, default=2000, metavar="N",
        help="N_decay: lambda reaches 0 here (default %(default)s; 0 without --prior)")  # fmt: skip
    add("--never-let-go", action="store_true", help="lambda stays 1")
    add("--freeze-prior", action="store_true", help="leave encoder and decoder as stage 1 made them")
    add("--decoder-alone", action="store_true",
        help="leave VLM and encoder as they were: a last stage on what --prior and --vlm name")  # fmt: skip
    add("--whole-windows", action="store_true", help="leave out chunks that the next instruction cuts short")
    add(
        "--resting",
        type=_share,
        default=1.0,
        metavar="SHARE",
        help="of the windows in which the arm rests before and after; fewer keep it closer to a goal (default 1, all)",
    )
    add("--history-compressor", choices=("encoder", "mlp", "none"), help="what makes z_hist (default: the prior's)")
    add("--history-passes", choices=("sampled", "both"),
        help="a share of every batch goes without the history token, or every window goes both ways, as in the paper, "
        "which takes twice as long (default: the prior's)")  # fmt: skip
    add("--without-history", type=_share, metavar="SHARE", help="that share (default: the prior's; 0.5 in the presets)")
    _add_encoder(stage)
    _add_prefix(stage)


def _add_distil(stage: argparse.ArgumentParser) -> None:
    add = stage.add_argument
    add("--teacher", type=Path, required=True, metavar="FILE", help="checkpoint.pt of stage 2, or 1")
    add("--teacher-steps", type=count, default=2, metavar="N",
        help="Euler steps whose way the one step learns (default %(default)s, as in the paper)")  # fmt: skip
    _add_prefix(stage)


def _share(text: str) -> float:
    value = float(text)
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _positive(text: str) -> float:
    value = float(text)
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value
