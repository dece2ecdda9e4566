"""`edge-export CHECKPOINT -o BUNDLE`: three verified engines from a checkpoint."""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tqdm import tqdm

from edge.bundle import MANIFEST
from edge.bundle.signature import KeyRefused, SigningKey
from edge.cli.parser import add_version, complain, count, described
from export.engines.family import ActionPrior
from export.engines.precision import PRECISIONS
from export.families.action_prior.config import PRESETS, ConfigError
from export.families.action_prior.folder import with_folders
from export.families.base import CheckpointError, Exporter, Given, family_of
from export.training.readings import UNITS

MOST_TASK = 256
TOLD = "--dataset, --arm, --rate, --units, --base, --tokenizer and --calibration"
SHAPES = {
    "cameras": ("N", "how many"),
    "frame_px": ("H,W", "height and width of raw frames"),
    "image_px": ("H,W", "height and width after the resize, multiples of patch times merge"),
    "horizon": ("N", "actions per chunk"),
    "history": ("N", "state-action pairs in the history"),
    "token_budget": ("N", "tokens of an instruction"),
}


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="edge-export",
        **described(
            "Turns a checkpoint, or a folder that LeRobot trained, into static ONNX engines, and proves that they "
            "compute the same.",
            """
            edge-export checkpoints/reach.pt -o bundle
            edge-export outputs/train/act/checkpoints/last/pretrained_model -o bundle --dataset DIR
            edge-export pretrained_model -o bundle --arm so101 --rate 30 --units degrees
            edge-export checkpoints/reach.pt -o bundle8 --precision int8 --observations DIR
            edge-export checkpoints/reach.pt -o bundle --task "reach the red cube" --sign key.pem
            edge-export --preset paper -o bundle-paper        # random weights, to measure with
            """,
            "Exit codes: 0 exported and verified, 1 an engine does not match the policy (the bundle is written "
            "for inspection and will not drive an arm), 2 bad input.",
        ),
    )
    add_version(root)
    add = root.add_argument
    add("checkpoint", type=Path, nargs="?", metavar="CHECKPOINT",
        help="checkpoint.pt of edge-train vla, or a pretrained_model folder of LeRobot's; without one, --preset: "
        "random weights, to measure with")  # fmt: skip
    add("-o", "--out", type=Path, required=True, metavar="BUNDLE",
        help="folder to write; an older bundle there is replaced")  # fmt: skip
    add("--precision", choices=PRECISIONS, default="fp32",
        help="of the large products; flow state, time, norms and softmax stay FP32 (default %(default)s)")  # fmt: skip
    add("--observations", type=Path, metavar="DIR",
        help="recorded demonstrations to calibrate and verify on; int8 needs them, the others do not")  # fmt: skip
    add("--task", default="", metavar="TEXT",
        help="what the policy does when nobody says it, kept in the bundle (default: the task of a --dataset that has "
        "one alone)")  # fmt: skip
    add("--sign", type=Path, metavar="KEY",
        help="private key (PEM, P-256, P-384 or P-521) to sign the bundle with, for edge-run --trust (needs the 'sign' "
        "extra)")  # fmt: skip
    add("--flow-steps", type=int, metavar="N", help="Euler steps in the decoder (default: the checkpoint's)")
    add("--samples", type=int, default=64, metavar="N", help="observations to verify on (default %(default)d)")
    add("--seed", type=int, default=0, help="seed of those observations (default %(default)d)")
    unnamed = root.add_argument_group("what a LeRobot folder does not name")
    add = unnamed.add_argument
    add("--dataset", type=Path, metavar="DIR",
        help="the dataset it was trained on: rate, robot and names of the axes")  # fmt: skip
    add("--arm", metavar="NAME", help="the arm instead, a profile's name or file")
    add("--rate", type=float, metavar="HZ", help="steps a second of the recordings")
    add("--units", choices=UNITS, help="of states and actions; needed where the training data fit several")
    add("--calibration", type=Path, metavar="FILE",
        help="of the SO arm that has recorded, ours or LeRobot's: what -100 to 100 are of (default: the profile's "
        "travel)")  # fmt: skip
    add(
        "--base",
        type=Path,
        metavar="DIR",
        help="the folder of the policy that an adapter (LoRA) was trained on, or of a GR00T's base model",
    )
    add("--tokenizer", type=Path, metavar="DIR", help="the tokenizer that the folder names and does not hold")
    untrained = root.add_argument_group("without a checkpoint")
    add = untrained.add_argument
    add("--preset", choices=sorted(PRESETS), help="sizes of the policy; its weights are random")
    add(
        "--vlm",
        type=Path,
        metavar="DIR",
        help="Hugging Face folder of a Qwen3-VL, the backbone; of a LeRobot folder, the vision-language model it names",
    )
    add("--prior", type=Path, metavar="DIR", help="Hugging Face folder of a Qwen3, the other two")
    for name, (form, what) in SHAPES.items():
        kind = _size if form == "H,W" else count
        add(f"--{name.replace('_', '-')}", type=kind, metavar=form, help=f"{what} (the preset's)")
    return root


def _size(text: str) -> tuple[int, ...]:
    height, _, width = text.partition(",")
    return count(height), count(width)


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        return _export(args)
    except (CheckpointError, KeyRefused, OSError) as error:
        complain("edge-export", error)
        return 2
    except KeyboardInterrupt:
        print("edge-export: stopped; nothing was written", file=sys.stderr)
        return 130


def _export(args: argparse.Namespace) -> int:
    if not 1 <= (1 if args.flow_steps is None else args.flow_steps) <= 100 or args.samples < 1:
        raise CheckpointError("--flow-steps takes 1 to 100, --samples at least 1")
    if args.out.exists() and not (args.out / MANIFEST).is_file():
        raise CheckpointError(f"{args.out} exists and is not a bundle; name another folder")
    if len(args.task) > MOST_TASK or not args.task.isprintable():
        raise CheckpointError(f"--task takes one line of at most {MOST_TASK} characters")
    _check_place(args.out)
    signing = SigningKey(args.sign) if args.sign is not None else None
    exporter = _exporter(args)
    for name, content in exporter.table:
        print(f"{name:<14}{content}")
    with ExitStack() as bars:

        def stage(name: str, size: int) -> Callable[[], object]:
            bar = bars.enter_context(tqdm(total=size, desc=f"{name:<28}", disable=None, unit=""))
            return bar.update

        report = exporter.write(args.out, stage)
    for name, agreement in report["agreement"].items():
        limits = ", ".join(f"{what} {limit:g}" for what, limit in agreement["gate"].items())
        number = {key: math.nan if value is None else value for key, value in agreement.items() if key != "gate"}
        found = f"max abs {number['max_abs']:.1e}, relative {number['relative_rms']:.1e}"
        if "of_range" in number:
            found = f"{number['of_range']:.1e} of an axis's range, relative {number['relative_rms']:.1e}"
        print(f"{name:<32} {found}, cosine {number['cosine']:.8f} (gate: {limits})")
    caught = report["negative_control"]["caught"]
    print(
        f"{'negative control':<32} "
        + ("fails as it must" if caught else "was NOT noticed: the comparison proves nothing")
    )
    print(
        f"wrote {args.out}: {sum(path.stat().st_size for path in args.out.iterdir()) / 1e6:.1f} MB, {exporter.summary}"
    )
    if not report["passed"]:
        print(
            f"edge-export: parity failed, see {args.out / 'verification.json'}; this bundle must not drive an arm",
            file=sys.stderr,
        )
        return 1
    if signing is not None:
        print(f"signed: {signing.sign(args.out)}")
    return 0


def _check_place(out: Path) -> None:
    """Before anything is computed: a folder can be made there."""
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    try:
        with tempfile.TemporaryDirectory(prefix=".edge-export-", dir=parent):
            return
    except OSError as error:
        raise CheckpointError(
            f"-o {out}: nothing can be made in {parent} ({error.strerror}); name another folder"
        ) from None


def _exporter(args: argparse.Namespace) -> Exporter:
    """The trained policy, of the family that recognises it, or one of the size asked for with random weights."""
    given = Given(
        args.dataset, args.arm, args.rate, args.units, args.base, args.tokenizer, calibration=args.calibration
    )
    options = (args.precision, args.flow_steps, args.samples, args.seed, args.observations)
    shapes = {name: getattr(args, name) for name in SHAPES if getattr(args, name) is not None}
    if args.checkpoint is not None:
        if args.preset or args.prior or shapes:
            raise CheckpointError("a checkpoint has its own sizes and weights; leave out the other options")
        given = dataclasses.replace(given, vlm=args.vlm)
        return family_of(args.checkpoint)(*options, given, args.task).open(args.checkpoint)
    if args.preset is None:
        raise CheckpointError("name a checkpoint, or --preset for random weights")
    if given != Given():
        raise CheckpointError(f"{TOLD} belong to a LeRobot folder; leave them out")
    try:
        config = dataclasses.replace(with_folders(PRESETS[args.preset](), args.vlm, args.prior), **shapes).checked()
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    return ActionPrior(*options, given, args.task).untrained(config, args.vlm, args.prior)


if __name__ == "__main__":
    sys.exit(main())
