"""`edge-export CHECKPOINT -o BUNDLE`: three verified engines from a checkpoint."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tqdm import tqdm

from edge.bundle import MANIFEST, sha256
from export import __version__
from export.engines.observations import Recorded, draw_samples, recorded_samples
from export.engines.package import Origin, Recipe, export_bundle
from export.engines.precision import PRECISIONS
from export.policy.checkpoint import Checkpoint, CheckpointError, load_checkpoint

CALIBRATION_SAMPLES = 256


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="edge-export",
        description="Turns a checkpoint into three static ONNX engines, and proves that they compute the same.",
        epilog="Exit codes: 0 exported and verified, 1 an engine does not match the policy (the bundle is written "
        "for inspection and will not drive an arm), 2 bad input.",
    )
    root.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="checkpoint.pt of edge-train vla")
    root.add_argument(
        "-o",
        "--out",
        type=Path,
        required=True,
        metavar="BUNDLE",
        help="folder to write; an older bundle there is replaced",
    )
    root.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="of the large products; flow state, time, norms and softmax stay FP32 (default %(default)s)",
    )
    root.add_argument(
        "--observations",
        type=Path,
        metavar="DIR",
        help="recorded demonstrations to calibrate and verify on; int8 needs them, the others can do without",
    )
    root.add_argument(
        "--flow-steps", type=int, metavar="N", help="Euler steps in the decoder (default: the checkpoint's)"
    )
    root.add_argument(
        "--samples", type=int, default=64, metavar="N", help="observations to verify on (default %(default)d)"
    )
    root.add_argument("--seed", type=int, default=0, help="seed of those observations (default %(default)d)")
    return root


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        return _export(args)
    except (CheckpointError, OSError) as error:
        print(f"edge-export: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("edge-export: stopped; nothing was written", file=sys.stderr)
        return 130


def _export(args: argparse.Namespace) -> int:
    checkpoint = load_checkpoint(args.checkpoint)
    steps = checkpoint.config.flow_steps if args.flow_steps is None else args.flow_steps
    if not 1 <= steps <= 100 or args.samples < 1:
        raise CheckpointError("--flow-steps takes 1 to 100, --samples at least 1")
    if args.out.exists() and not (args.out / MANIFEST).is_file():
        raise CheckpointError(f"{args.out} exists and is not a bundle; name another folder")
    recipe = _recipe(args, checkpoint, steps)
    origin = Origin(
        sha256(args.checkpoint), f"vla-edge {__version__}", checkpoint.embodiments, checkpoint.tokenizer or ""
    )
    with ExitStack() as bars:

        def stage(name: str, size: int) -> Callable[[], None]:
            bar = bars.enter_context(tqdm(total=size, desc=f"{name:<28}", disable=None, unit=""))
            return lambda: bar.update() and None

        report = export_bundle(checkpoint, recipe, origin, args.out, stage)
    for name, agreement in report["agreement"].items():
        limits = ", ".join(f"{what} {limit:g}" for what, limit in agreement["gate"].items())
        found = f"max abs {agreement['max_abs']:.1e}, relative {agreement['relative_rms']:.1e}"
        print(f"{name:<32} {found}, cosine {agreement['cosine']:.8f} (gate: {limits})")
    caught = report["negative_control"]["caught"]
    print(
        f"{'negative control':<32} "
        + ("fails as it must" if caught else "was NOT noticed: the comparison proves nothing")
    )
    print(
        f"wrote {args.out}: {sum(path.stat().st_size for path in args.out.iterdir()) / 1e6:.1f} MB, "
        f"{args.precision}, {steps} flow steps"
    )
    if not report["passed"]:
        print(
            f"edge-export: parity failed, see {args.out / 'verification.json'}; this bundle must not drive an arm",
            file=sys.stderr,
        )
        return 1
    return 0


def _recipe(args: argparse.Namespace, checkpoint: Checkpoint, steps: int) -> Recipe:
    """What to verify on, and for int8 what to calibrate on."""
    if args.observations is None:
        if args.precision == "int8":
            raise CheckpointError(
                "int8 is calibrated on real observations: add --observations DIR "
                "(python -m edge.sim.demonstrations --episodes 16 --seed 7 --out DIR records some)"
            )
        samples = Recorded([], draw_samples(checkpoint.config, args.samples, args.seed))
    else:
        count = CALIBRATION_SAMPLES if args.precision == "int8" else 0
        samples = recorded_samples(checkpoint, args.observations, count, args.samples, args.seed)
    source = "synthetic" if args.observations is None else f"recorded, {args.observations.name}"
    return Recipe(args.precision, steps, args.seed, samples.verification, samples.calibration, source)


if __name__ == "__main__":
    sys.exit(main())
