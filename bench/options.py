"""Options that several sub-benchmarks share, and what they mean."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.document import Recording, notify, write_document
from bench.harness import QUICK, Plan
from bench.policy_run import ARM, MADE_HERE, TASK
from edge.bundle import MANIFEST, VERIFICATION, Bundle, BundleError, load_bundle, read_manifest
from edge.cli.parser import count

PRESETS = ("tiny", "paper")
PRECISIONS = ("fp32", "int8")


def add_common(parser: argparse.ArgumentParser) -> None:
    """What every measurement takes."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure and every raw sample here")
    parser.add_argument(
        "--quick", action="store_true", help="a smoke run in seconds; its figures are not worth quoting"
    )
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn (default %(default)d)")


def add_plan(parser: argparse.ArgumentParser) -> None:
    """How much is timed."""
    plan = Plan()
    parser.add_argument("--calls", type=count, default=plan.calls, help="timed calls at least (default %(default)d)")
    parser.add_argument(
        "--seconds", type=float, default=plan.seconds, help="more calls, up to 1000, for so long (default %(default)g)"
    )


def add_models(parser: argparse.ArgumentParser) -> None:
    """What policy is measured."""
    what = parser.add_argument_group("what is measured (random weights of --preset tiny, when nothing is named)")
    what.add_argument(
        "--bundle", type=Path, action="append", default=[], metavar="DIR", help="made by edge-export; may be repeated"
    )
    what.add_argument("--checkpoint", type=Path, metavar="FILE", help="a checkpoint.pt, to compare with torch")
    what.add_argument("--preset", choices=PRESETS, help="random weights of this size")
    what.add_argument("--layers", type=count, metavar="N", help="with --preset: only so many layers of each stack")
    what.add_argument(
        "--precision", choices=PRECISIONS, nargs="+", default=list(PRECISIONS), help="engines made here (default: both)"
    )
    what.add_argument("--arm", default=ARM, help="of the bundle, for observations to chunks (default %(default)s)")
    what.add_argument("--task", default=TASK, help="in words that the policy knows (default '%(default)s')")
    parser.add_argument("--threads", type=count, default=1, help="per engine (default %(default)d)")


def plan_of(args: argparse.Namespace) -> Plan:
    return QUICK if args.quick else Plan(args.calls, args.seconds)


def finish(args: argparse.Namespace, recording: Recording) -> None:
    """Writes the JSON where one was asked for."""
    if args.json:
        write_document(args.json, recording.to_plain())
        notify(f"wrote {args.json}")


@contextmanager
def bundles(args: argparse.Namespace, recording: Recording) -> Iterator[dict[str, Bundle]]:
    """The bundles to measure by label: those that were named, else ones made here for the while."""
    with tempfile.TemporaryDirectory(prefix="vla-edge-bench-") as folder:
        paths = args.bundle or _made(args, Path(folder))
        found = {}
        for path in paths:
            bundle = bundle_to_time(path)
            label = bundle.manifest.precision
            label = label if label not in found else f"{label} ({path.name})"
            found[label] = bundle
            recording.used(label, bundle)
        yield found


def bundle_to_time(path: Path) -> Bundle:
    """A bundle for timing: one that drives arms, or one made here that its own verification keeps from doing so.

    Raises `BundleError` for any other.
    """
    try:
        return load_bundle(path)
    except BundleError:
        manifest, verification = path / MANIFEST, path / VERIFICATION
        if not (manifest.is_file() and verification.is_file()):
            raise
        found = read_manifest(manifest)
        if found.created_by != MADE_HERE or json.loads(verification.read_text()).get("passed") is not False:
            raise
        return Bundle(path, found)


def drives(bundle: Bundle) -> bool:
    """Whether the inference process will open it."""
    try:
        load_bundle(bundle.path)
    except BundleError:
        return False
    return True


def _made(args: argparse.Namespace, folder: Path) -> list[Path]:
    from bench.models import make_bundle

    parts = parts_of(args)
    return [make_bundle(parts, precision, folder / precision, args.seed, notify) for precision in args.precision]


def parts_of(args: argparse.Namespace):  # type: ignore[no-untyped-def]
    """The policy behind the bundles that are made here: a checkpoint, or random weights."""
    from bench.models import checkpoint_parts, random_parts

    if args.checkpoint is not None:
        return checkpoint_parts(args.checkpoint)
    return random_parts(args.preset or "tiny", args.layers)
