"""What an arm is told to do when nobody said it: nothing that was guessed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from edge.bundle import ACTION_PRIOR
from edge.cli.run import _task
from edge.cli.run_options import DEFAULT_TASK
from edge.errors import InputError


def bundle(family: str, follows_text: bool) -> Any:
    return SimpleNamespace(manifest=SimpleNamespace(family=family, follows_text=follows_text))


def test_only_a_policy_of_ours_has_a_default_task() -> None:
    assert _task(None, bundle(ACTION_PRIOR, True)) == DEFAULT_TASK
    assert _task(None, bundle("act", False)) == ""
    for family in ("smolvla", "pi0", "pi05", "openpi"):
        with pytest.raises(InputError, match="give one with --task"):
            _task(None, bundle(family, True))
        assert _task("lift it", bundle(family, True)) == "lift it"
