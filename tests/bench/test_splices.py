"""Where chunks of goals join: below one step of motion, beside what naive switching asks for."""

from __future__ import annotations

import pytest

splices = pytest.importorskip("bench.splices", reason="needs the sim extra")


@pytest.mark.parametrize("name", splices.STYLES)
def test_no_splice_jumps_by_more_than_a_step_where_naive_switching_asks_for_several(name: str) -> None:
    style = splices.STYLES[name]
    ours = splices.summary([splices.episode(style, "goals to knots", 100.0, 4.0, 0)])
    assert ours["refused"] == ours["stopped"] == 0 and ours["exceeded"] == []
    assert ours["splices"] >= 3 and 0 < ours["jump_mrad"] < ours["step_mrad"] < ours["asked_mrad"]


def test_ensembling_asks_the_arm_for_less_at_a_splice() -> None:
    """On the device's trace: averaged goals deviate less from the plan in force, and so do the knots made of them."""
    style = splices.STYLES["like ACT"]
    plain, averaged = (
        splices.summary([splices.episode(style, way, 100.0, 6.0, 1)])
        for way in ("goals to knots", "temporal ensembling")
    )
    assert averaged["refused"] == averaged["stopped"] == 0 and averaged["exceeded"] == []
    assert averaged["splices"] == plain["splices"] >= 4
    assert averaged["asked_mrad"] < 0.6 * plain["asked_mrad"]
    assert 0 < averaged["jump_mrad"] < 0.95 * plain["jump_mrad"]


def test_naive_switching_is_refused_where_chunks_disagree() -> None:
    naive = splices.summary([splices.episode(splices.STYLES["like SmolVLA"], "naive switching", 100.0, 4.0, 0)])
    assert naive["refused"] == naive["chunks"] - 1 > 0
