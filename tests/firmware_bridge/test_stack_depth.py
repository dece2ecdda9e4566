"""The stack analysis of tools/microcontroller.py adds up the deepest call, and refuses what it cannot tell."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from firmware_bridge.errors import BridgeError

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
from microcontroller import Function, _function, deepest

LISTING = """00000100 <outer>:
     100:\te92d 4ff0 \tstmdb\tsp!, {r4, r5, r6, r7, r8, r9, sl, fp, lr}
     104:\tb08b      \tsub\tsp, #44\t@ 0x2c
     106:\tf000 f80b \tbl\t200 <inner>
     10a:\tf7ff bffe \tb.w\t300 <last>
     10e:\tb510      \tpush\t{r4, lr}
     110:\tdbf7      \tblt.n\t102 <outer+0x2>
"""


def test_a_listing_is_read() -> None:
    assert _function("outer", LISTING) == Function(9 * 4 + 44 + 2 * 4, frozenset({"inner", "last"}), False)
    assert _function("x", "\tpush\t{r4-r7, lr}\n\tblx\tr3\n") == Function(20, frozenset(), True)


def test_the_deepest_call_counts() -> None:
    functions = {
        "main": Function(16, frozenset({"shallow", "middle"}), False),
        "shallow": Function(100, frozenset(), False),
        "middle": Function(40, frozenset({"leaf"}), False),
        "leaf": Function(72, frozenset(), False),
    }
    assert deepest(functions, "main") == 16 + 40 + 72


def test_recursion_and_unknown_pointers_are_refused() -> None:
    looping = {"a": Function(8, frozenset({"b"}), False), "b": Function(8, frozenset({"a"}), False)}
    with pytest.raises(BridgeError, match="recursion: a -> b -> a"):
        deepest(looping, "a")
    with pytest.raises(BridgeError, match="a calls through a pointer"):
        deepest({"a": Function(8, frozenset(), True)}, "a")


def test_the_table_of_handlers_is_followed() -> None:
    functions = {"dispatch": Function(8, frozenset(), True), "on_stop": Function(64, frozenset(), False)}
    assert deepest(functions, "dispatch") == 72
