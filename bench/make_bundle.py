"""Makes a bundle to measure with: from a checkpoint, or random weights of a preset's size.

It is verified against torch on a few synthetic observations, and INT8 is calibrated on others. That is enough for its
speed and not enough to drive an arm well; for that use edge-export with recorded observations.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bench import options
from bench.document import notify
from bench.models import make_bundle
from edge.cli.parser import count


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE")
    parser.add_argument("--preset", choices=options.PRESETS)
    parser.add_argument("--layers", type=count, metavar="N")
    parser.add_argument("--precision", choices=options.PRECISIONS, default="fp32")
    parser.add_argument("--seed", type=int, default=0)


def run(args: argparse.Namespace) -> int:
    make_bundle(options.parts_of(args), args.precision, args.out, args.seed, notify)
    notify(f"wrote {args.out}")
    return 0
