"""What many tests share: the shipped checkpoint, exported once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples everywhere, so that a failure is one that anybody can see; VLA_EDGE_RANDOM=1 looks for new ones.
settings.register_profile("same", derandomize=True)
settings.register_profile("new")
settings.load_profile("new" if os.environ.get("VLA_EDGE_RANDOM") else "same")

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "checkpoints" / "reach.pt"


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped checkpoint as a bundle, made by the command that users call. Do not change it in place.

    VLA_EDGE_BUNDLE names one that was exported elsewhere, for a robot that has no torch.
    """
    if exported := os.environ.get("VLA_EDGE_BUNDLE"):
        return Path(exported)
    from export.commands.export import main

    path = tmp_path_factory.mktemp("export") / "bundle"
    assert main([str(SHIPPED), "-o", str(path)]) == 0
    return path
