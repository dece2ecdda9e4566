"""Entry points of the workstation's commands: without the export extra they say what to install."""

from __future__ import annotations

import sys


def train() -> int:
    """`edge-train`."""
    try:
        from export.commands.train import main
    except ModuleNotFoundError as error:
        return _missing("edge-train", error)
    return main()


def export() -> int:
    """`edge-export`."""
    try:
        from export.commands.export import main
    except ModuleNotFoundError as error:
        return _missing("edge-export", error)
    return main()


def _missing(command: str, error: ModuleNotFoundError) -> int:
    print(f"{command} runs on the workstation and needs {error.name}: pip install 'vla-edge[export]'", file=sys.stderr)
    return 2
