"""Calls between the units of the firmware core go one way."""

from __future__ import annotations

import re
from graphlib import TopologicalSorter

from firmware_bridge.native import FIRMWARE


def test_calls_in_the_core_run_in_no_circle() -> None:
    text = {path.name: path.read_text() for path in (FIRMWARE / "core").glob("*.c")}
    defined = {name: unit for unit, code in text.items() for name in re.findall(r"^\w.*?\b(ve_\w+)\(.*\{$", code, re.M)}
    calls = {
        unit: {defined[name] for name in re.findall(r"\b(ve_\w+)\(", code) if name in defined} - {unit}
        for unit, code in text.items()
    }
    assert "states.c" in calls["reports.c"]
    TopologicalSorter(calls).prepare()  # raises CycleError
