"""What a person reads of an error is one short line, whatever stands in it."""

from __future__ import annotations

import pytest

import edge.errors
import firmware_bridge.errors
from edge.errors import InputError, SafetyStop
from edge.log.mcap_log import LogError
from export.families.base import CheckpointError
from export.training.lerobot.errors import DatasetError
from export.training.schedule import TrainingError
from firmware_bridge.errors import BridgeError, LinkLost, Refused
from firmware_bridge.reading import OneLine, told

OURS = (BridgeError, LinkLost, InputError, LogError, SafetyStop, CheckpointError, DatasetError, TrainingError)
HOSTILE = ("x" * 5000, "two\nlines\x1b[2J", "\u202e" * 400, "a word " * 1000)


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize("inside", HOSTILE)
def test_whatever_is_quoted_the_line_is_short_and_keeps_its_ends(kind: type[OneLine], inside: str) -> None:
    text = str(kind(f"config.json: 'name' is '{inside}'; copy the folder again"))
    assert len(text) <= 1000 and text.isprintable()
    assert text.startswith("config.json: 'name' is") and text.endswith("copy the folder again")


def test_a_refusal_keeps_its_reason() -> None:
    error = Refused("x" * 5000, 7)
    assert len(str(error)) <= 1000 and error.refusal == 7


def test_what_a_library_says_leaves_room_for_the_fix() -> None:
    try:
        float("y" * 5000)
    except ValueError as error:
        assert len(told(error)) <= 100 and told(error).startswith("could not convert string to float: 'yyy")


def test_every_error_of_a_command_is_one() -> None:
    for module in (edge.errors, firmware_bridge.errors):
        for kind in vars(module).values():
            assert not (isinstance(kind, type) and issubclass(kind, Exception)) or issubclass(kind, OneLine), kind
