"""What every command's `--help` holds: what it does, its options, `--version`, exit codes, examples."""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from typing import Any

from edge import __version__
from firmware_bridge.printing import print_line
from firmware_bridge.reading import one_line

PATIENCE_S = 2.0
"""How long a last word waits for a reader."""
TRUST = (
    "public key (PEM) of whoever signed the bundle with edge-export --sign; refuses one that is unsigned, signed by "
    "another key or altered since (needs the 'sign' extra)"
)
MADE_BY = f"vla-edge {__version__}"


def described(what: str, examples: str, notes: str = "") -> dict[str, Any]:
    """Keywords for an argument parser: `examples` has one command a line and stays as it is, the rest is filled."""
    width = min(shutil.get_terminal_size().columns - 2, 100)
    lines = textwrap.indent(textwrap.dedent(examples).strip(), "  ")
    return {
        "description": textwrap.fill(what, width),
        "epilog": "\n\n".join(filter(None, (textwrap.fill(notes, width), f"Examples:\n{lines}"))),
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }


def count(text: str) -> int:
    """The type of an option that takes a whole number above zero."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a positive number")
    return int(text)


def add_version(root: argparse.ArgumentParser) -> None:
    root.add_argument("--version", action="version", version=f"%(prog)s {__version__}", help="print the version")


def refused_by_system(error: OSError) -> str:
    """What the system refused a command: open files, processes, memory, a disk that is full."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}; this machine refuses it, see its limits (ulimit -a) and its disks (df)"


def complain(prog: str, error: object) -> None:
    """What went wrong, on stderr: one line of at most 300 printable characters, whatever stands in the message."""
    print_line(one_line(f"{prog}: {error}"), sys.stderr, PATIENCE_S)
