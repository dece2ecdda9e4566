"""`edge-export CHECKPOINT -o BUNDLE`: three verified engines from a checkpoint."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tqdm import tqdm

from edge.bundle import MANIFEST
from export import __version__
from export.engines.package import export_bundle
from export.policy.checkpoint import CheckpointError, load_checkpoint


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
        "--precision", choices=("fp32",), default="fp32", help="of weights and activations (default %(default)s)"
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
    with ExitStack() as bars:

        def stage(name: str, size: int) -> Callable[[], None]:
            bar = bars.enter_context(tqdm(total=size, desc=f"{name:<22}", disable=None, unit=""))
            return lambda: bar.update() and None

        created_by = f"vla-edge {__version__}"
        report = export_bundle(checkpoint, args.checkpoint, args.out, steps, args.samples, args.seed, created_by, stage)
    for name, agreement in report["agreement"].items():
        error = f"max abs {agreement['max_abs']:.1e} (limit {agreement['limit']:.0e})"
        print(f"{name:<32} {error}, cosine {agreement['cosine']:.8f}")
    caught = report["negative_control"]["caught"]
    print(
        f"{'negative control':<32} "
        + ("fails as it must" if caught else "was NOT noticed: the comparison proves nothing")
    )
    print(
        f"wrote {args.out}: {sum(path.stat().st_size for path in args.out.iterdir()) / 1e6:.1f} MB, {steps} flow steps"
    )
    if not report["passed"]:
        print(
            f"edge-export: parity failed, see {args.out / 'verification.json'}; this bundle must not drive an arm",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
