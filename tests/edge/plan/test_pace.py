"""The spacing of steps against what inference needs."""

from __future__ import annotations

import pytest

from edge.plan.pace import CHANGE, MARGIN, MOST_STRETCH, Pace

PACE = Pace(100_000)


@pytest.mark.parametrize(
    ("needed_us", "steps", "spacing_us"),
    [(0, 6, 100_000), (600_000, 6, 100_000), (600_006, 6, 100_001), (1_200_000, 6, 200_000), (10**8, 6, 800_000)],
)
def test_steps_are_as_long_as_the_latency_asks_for(needed_us: int, steps: int, spacing_us: int) -> None:
    assert PACE.wanted_us(needed_us, steps) == spacing_us


def test_braking_asks_for_a_little_more_than_is_wanted_and_gives_way() -> None:
    assert next(PACE.braked(100_000, 150_000)) == MARGIN * 150_000
    tried = list(PACE.braked(100_000, 1_000_000))
    assert tried[0] == CHANGE * 100_000 and tried == sorted(tried, reverse=True) and tried[-1] > 101_000
    assert list(PACE.braked(100_000, 100_000)) == []
    assert list(PACE.braked(round(MOST_STRETCH * 100_000), 10**7)) == []


def test_easing_goes_back_in_steps_and_never_past_the_trained_pace() -> None:
    spacing, seen = 500_000, []
    while spacing > 100_000:
        spacing = next(PACE.eased(spacing, 100_000))
        seen.append(spacing)
    assert seen == [250_000, 125_000, 100_000]
    assert list(PACE.eased(200_000, 300_000)) == [200_000], "a new chunk does not brake"
    assert list(PACE.eased(200_000, 100_000))[-1] == 200_000, "when limits forbid it, the pace stays"
