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


def test_naive_switching_is_refused_where_chunks_disagree() -> None:
    naive = splices.summary([splices.episode(splices.STYLES["like SmolVLA"], "naive switching", 100.0, 4.0, 0)])
    assert naive["refused"] == naive["chunks"] - 1 > 0
