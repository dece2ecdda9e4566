"""What the commands of simulated arms share: how they end, a share as an option, a trace that writes over nothing."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import TextIO

from firmware_bridge.reading import one_line


def leave_on_signals() -> None:
    """SIGTERM and Ctrl-C raise `SystemExit`, so that what is open is closed."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)


def _leave(number: int, frame: object) -> None:
    raise SystemExit(0)


def share(text: str) -> float:
    """An option from 0 to below 1."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share from 0 to 1")
    return value


def add_trace(root: argparse.ArgumentParser, what: str) -> None:
    """The options `--trace`, with what it holds, and `--overwrite`."""
    root.add_argument("--trace", type=Path, metavar="FILE.csv", help=what)
    root.add_argument("--overwrite", action="store_true", help="let --trace take the place of a file that is there")


def open_trace(prog: str, args: argparse.Namespace) -> TextIO | None:
    """The file of `--trace`, before anything else is opened; None without one.

    A new file, or in place of an older one where that is allowed, never of a bundle's. Raises `SystemExit` with code 2
    after one line on stderr.
    """
    path: Path | None = args.trace
    if path is None:
        return None
    older = args.overwrite and path.is_file() and not (path.resolve().parent / "manifest.json").exists()
    try:
        return path.open("w" if older else "x", buffering=1 << 16)
    except OSError as error:
        fix = "name another, or add --overwrite" if isinstance(error, FileExistsError) else "name another"
        print(one_line(f"{prog}: --trace {path}: {error.strerror}; {fix}"), file=sys.stderr)
        raise SystemExit(2) from None
