"""The mutation tester itself: which changes it makes, which it leaves out, and that its verdicts are right."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[1] / "tools"
sys.path.insert(0, str(TOOLS))
import mutate_core  # noqa: E402

SMALL = """\
#include "small.h"
/* a + b in a comment */
static uint8_t sum(const uint8_t *at, ve_thing_t *thing) {
  (void)thing;
  uint8_t total = 0x10u;
  if ((at[0] < 2u) && !thing->off) {
    total += at[1];
  }
  call(total, "1 + 1");
  return total;
}
"""
JUDGE = """\
import json, sys
sys.path.insert(0, "tools")
import mutate_core
mutate_core.TESTS, mutate_core.MORE_TESTS = {"window.c": mutate_core.TESTS["window.c"]}, ()
mutate_core.GUARD_TESTS = mutate_core.TESTS["window.c"]
mutants = [mutant for mutant in mutate_core.mutants_of("window.c") if mutant.name in sys.argv[1:]]
print(json.dumps({verdict: [m.name for m in found] for verdict, found in mutate_core.judge(mutants, 1).items()}))
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str, str]]:
    """Line, old and new text of every mutant of `SMALL`."""
    (tmp_path / "small.c").write_text(SMALL)
    monkeypatch.setattr(mutate_core, "CORE", tmp_path)
    return [(mutant.line, mutant.old, mutant.new) for mutant in mutate_core.mutants_of("small.c")]


def test_operators_constants_and_statements_are_changed(small: list[tuple[int, str, str]]) -> None:
    assert sorted(small) == sorted(
        [
            (5, "0x10u", "0x11u"),
            (6, "0", "1"),
            (6, "<", "<="),
            (6, "<", ">="),
            (6, "2u", "3u"),
            (6, "2u", "1u"),
            (6, "&&", "||"),
            (6, "!", ""),
            (7, "+=", "-="),
            (7, "+=", "="),
            (7, "1", "2"),
            (7, "1", "0"),
            (7, "total += at[1]", ""),
            (9, 'call(total, "1 + 1")', ""),
        ]
    )


def test_comments_strings_pointers_and_casts_to_void_are_not(small: list[tuple[int, str, str]]) -> None:
    assert not {line for line, _, _ in small} & {1, 2, 3, 4}


def test_every_excused_mutant_is_one_mutant_and_has_a_reason() -> None:
    names = [mutant.name for unit in mutate_core.TESTS for mutant in mutate_core.mutants_of(unit)]
    assert [name for name in mutate_core.equivalent() if names.count(name) != 1] == []
    assert all(len(reason.split()) >= 4 for reason in mutate_core.equivalent().values())


def test_a_change_that_matters_is_killed_and_one_that_does_not_survives() -> None:
    clear = "window.c: `window->count = 0u;`: `window->count = 0u` -> `` #2"
    same = "window.c: `const uint64_t since_us = (now_us > window->time_us[i]) ? (now_us - window->time_us[i]) : 0u;`"
    same += ": `>` -> `>=` #38"
    command = [sys.executable, "-c", JUDGE, clear, same]
    result = subprocess.run(command, cwd=TOOLS.parent, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == {"killed": [clear], "survived": [same], "timeout": [], "not C": []}
