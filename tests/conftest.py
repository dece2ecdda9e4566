"""What many tests share: the shipped checkpoint, exported once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol
from hypothesis import settings

from tests.machine_watch import MachineWatch

# A shell that starts a job in the background has it ignore Ctrl-C, and so would every command that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples everywhere, so that a failure is one that anybody can see; VLA_EDGE_RANDOM=1 looks for new ones.
settings.register_profile("same", derandomize=True)
settings.register_profile("new")
settings.load_profile("new" if os.environ.get("VLA_EDGE_RANDOM") else "same")

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "checkpoints" / "reach.pt"
TRIES_IN_REAL_TIME = 3


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """A `real_time` test that fails while the machine stands still is made again, and skipped if it always does."""
    if item.get_closest_marker("real_time") is None:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for _ in range(TRIES_IN_REAL_TIME):
        with MachineWatch() as watch:
            reports = runtestprotocol(item, log=False, nextitem=nextitem)
        failed = [report for report in reports if report.failed]
        if not failed or not watch.stood_still:
            break
    else:
        why = f"this machine stood still for {watch.longest_ms:.0f} ms, {watch.share:.0%} of the time, and before"
        for report in failed:
            report.outcome, report.longrepr = "skipped", (*item.location[:2], f"Skipped: {why}")
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


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
