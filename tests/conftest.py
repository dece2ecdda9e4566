"""What many tests share: the shipped checkpoint, exported once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import edge.sim  # noqa: F401  # before a test imports mujoco: it chooses how that draws
from tests.real_time import RealTimeLane
from tests.shared import made_once

# A shell that starts a job in the background has it ignore Ctrl-C, and so would every command that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples everywhere, so that a failure is one that anybody can see; VLA_EDGE_RANDOM=1 looks for new ones.
settings.register_profile("same", derandomize=True)
settings.register_profile("new")
settings.load_profile("new" if os.environ.get("VLA_EDGE_RANDOM") else "same")

ROOT = Path(__file__).resolve().parents[1]
COMPUTING = [ROOT / "tests" / name for name in ("bench", "export", "lab")]
WITH_PROGRAMS = [
    ROOT / "tests" / name
    for name in (
        *("edge/cli/test_calibrate.py", "edge/cli/test_progress.py", "firmware_bridge/test_native.py"),
        *(f"firmware_bridge/adapters/test_{name}.py" for name in ("contract", "fci_sim", "franka_hand", "franka_sim")),
    )
]
TASK = "reach the red cube"
"""What the shared bundle does when nobody says it."""
SHIPPED = ROOT / "checkpoints" / "reach.pt"


@pytest.fixture(autouse=True, scope="module")
def faults_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What an arm's adapter keeps of a fault is no other file's, and not this user's."""
    before = os.environ.get("XDG_STATE_HOME")
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))
    yield
    os.environ.pop("XDG_STATE_HOME")
    if before is not None:
        os.environ["XDG_STATE_HOME"] = before


@pytest.fixture(autouse=True)
def priority_of_its_own() -> Iterator[None]:
    """Some code raises the thread that calls it; later tests would start all their programs so."""
    before, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    yield
    if os.sched_getscheduler(0) != before:
        os.sched_setscheduler(0, before, parameters)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(RealTimeLane(), "real-time lane")


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What exports the shipped checkpoint takes long, and so does what stands in these folders and files."""
    for item in items:
        exports = "bundle_path" in getattr(item, "fixturenames", ())
        if exports or item.path in WITH_PROGRAMS or any(folder in item.path.parents for folder in COMPUTING):
            item.add_marker(pytest.mark.long)
    # The real-time lane imports only files that name its markers.
    for name in ("real_time", "side_by_side"):
        assert all(name in path.read_text() for path in {item.path for item in items if item.get_closest_marker(name)})
    # Processes share the files: what takes long comes first, so that none waits for another in the end.
    long_files = {item.path for item in items if item.get_closest_marker("long")}
    items.sort(key=lambda item: item.path not in long_files)


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped checkpoint as a bundle, made by the command that users call. Do not change it in place.

    VLA_EDGE_BUNDLE names one that was exported elsewhere, for a robot that has no torch.
    """
    if exported := os.environ.get("VLA_EDGE_BUNDLE"):
        return Path(exported)
    from export.commands.export import main

    def export(path: Path) -> None:
        assert main([str(SHIPPED), "-o", str(path), "--task", TASK]) == 0

    return made_once(tmp_path_factory, "bundle", export)
