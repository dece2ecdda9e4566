"""A stop while a process of the run has not said its first word: that process has ended before the stop goes on."""

from __future__ import annotations

import json
import select
from collections.abc import Callable

import pytest

from edge.arms.adapter_process import AdapterProcess
from edge.doors.view.launch import LiveView
from edge.inference.helper import Helper
from firmware_bridge.simulator import SimulatedArm, SimulatorProcess
from tests.firmware_bridge.test_children import children
from tests.support import FRANKA

STARTS: dict[str, Callable[[], object]] = {
    "the simulated device": lambda: SimulatorProcess(SimulatedArm("franka", FRANKA.home_rad)),
    "an adapter": lambda: AdapterProcess("so101", "feetech:/dev/none", None),
    "a helper": lambda: Helper("edge.inference.filming", ["--help"], [], 30, "nothing was said"),
    "the page": lambda: LiveView(7, {}),
}


@pytest.mark.parametrize("name", STARTS)
def test_what_had_begun_has_ended(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        assert children() > before
        raise KeyboardInterrupt

    before = children()
    monkeypatch.setattr(*((json, "loads") if name == "the page" else (select, "select")), interrupted)
    with pytest.raises(KeyboardInterrupt):
        STARTS[name]()
    monkeypatch.undo()
    assert children() == before
