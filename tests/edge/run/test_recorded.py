"""Logs recorded before the code was moved into rooms replay bit by bit: what is decided has not changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.cli.run import main

RECORDED = Path(__file__).with_name("recorded")


@pytest.mark.parametrize("name", ["reach", "lift", "stop", "stall", "operator"])
def test_a_recorded_run_is_decided_again(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--replay", str(RECORDED / f"{name}.mcap")]) == 0
    assert "verdict      identical" in capsys.readouterr().out
