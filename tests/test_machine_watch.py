"""The watch that decides whether a failure in real time counts."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.machine_watch import STILL_MS, MachineWatch


@pytest.mark.real_time
def test_a_processor_that_stands_still_is_noticed() -> None:
    with MachineWatch() as watch:
        time.sleep(0.3)  # until the watchers run
        os.kill(watch.pids[0], signal.SIGSTOP)
        time.sleep(0.2)
        os.kill(watch.pids[0], signal.SIGCONT)
    assert watch.longest_ms > 150 > STILL_MS and watch.share > 0.1
    assert watch.stood_still
