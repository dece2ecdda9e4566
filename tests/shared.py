"""What costs much is made once in a session, whatever the number of its processes."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """The folder `name` of this session, which the first test that needs it has made. Do not change it in place.

    VLA_EDGE_SHARED names the folder that several sessions share, as those of `make test` do.
    `make` must leave a folder that is whole, or none.
    """
    root = factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    path = Path(os.environ.get("VLA_EDGE_SHARED", root / "shared")) / name
    path.parent.mkdir(exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            make(path)
    return path
