"""The MISRA check sees what it should: violations seeded into the core are caught, one rule at a time."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from firmware_bridge.native import FIRMWARE

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
from misra import DEVIATIONS, check

CORE = FIRMWARE / "core"
SEEDED = {
    "7.1": "static uint8_t seeded(void) { return (uint8_t)017; }",
    "10.3": "static uint8_t seeded(uint32_t wide) { uint8_t narrow = wide; return narrow; }",
    "12.2": "static uint32_t seeded(uint32_t x) { return x << 40u; }",
    "13.5": "static bool seeded(uint8_t *x) { return (*x > 1u) && ((*x)++ > 2u); }",
    "14.4": "static uint8_t seeded(uint8_t x) { uint8_t y = 0u; if (x) { y = 1u; } return y; }",
    "15.1": "static void seeded(void) { goto out; out: return; }",
    "15.6": "static uint8_t seeded(uint8_t x) { uint8_t y = 0u; if (x > 1u) y = 1u; return y; }",
    "16.4": "static void seeded(uint8_t x) { switch (x) { case 1u: break; case 2u: break; } }",
    "17.2": "static uint32_t seeded(uint32_t x) { return (x > 1u) ? seeded(x - 1u) : x; }",
    "17.7": "static uint32_t other(uint32_t x) { return x; }\nstatic void seeded(void) { other(1u); }",
    "21.3": "#include <stdlib.h>\nstatic void *seeded(void) { return malloc(8u); }",
}

pytestmark = [pytest.mark.long, pytest.mark.skipif(shutil.which("cppcheck") is None, reason="needs cppcheck")]


def test_the_core_keeps_every_rule_but_the_deviations() -> None:
    rules = {finding.rule for finding in check(sorted(CORE.glob("*.c")), CORE)}
    assert rules == set(DEVIATIONS)


@pytest.mark.parametrize("rule", SEEDED)
def test_a_seeded_violation_is_caught(rule: str, tmp_path: Path) -> None:
    clean = (CORE / "window.c").read_text()
    file = tmp_path / "window.c"
    file.write_text(clean + "\n" + SEEDED[rule] + "\n")
    lines = len(clean.splitlines())
    assert rule in {finding.rule for finding in check([file], CORE) if finding.line > lines}
    assert rule not in {finding.rule for finding in check([CORE / "window.c"], CORE)}
