"""The first thing that a Python child of `firmware_bridge.children` runs: its path, its parent's end, then its module.

A script, for `python -m` would look for the module in the current folder first. Its own folder, which takes that place,
is taken off the path before anything of ours is imported.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PR_SET_PDEATHSIG = 1


def die_with_parent(end: int) -> None:
    """From now on the system sends this process the signal `end` when its parent goes; 0 for none."""
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(end), 0, 0, 0)


def main() -> int:
    """`child.py PARENT SIGNAL MODULE ARGUMENTS...`: runs `main` of the module and returns its exit code."""
    sys.path[:] = [entry for entry in sys.path if entry and Path(entry).resolve() != HERE]
    if str(HERE.parent) not in sys.path:
        sys.path.append(str(HERE.parent))  # a checkout that is not installed
    parent, end, module, *arguments = sys.argv[1:]
    die_with_parent(int(end))
    if int(end) and os.getppid() != int(parent):  # gone already
        return 1
    import importlib

    sys.argv = [module, *arguments]
    return int(importlib.import_module(module).main() or 0)


if __name__ == "__main__":
    sys.exit(main())
