"""Random chunks of goals, on every arm, from every state: what is sent is accepted by the compiled core and beyond no
limit, as near to the goals as another solver finds possible, and no slower than need be; the rest is refused by name.

A few hundred with every run; `make goals` draws 10,000 and 1,000, and prints what became of them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bench.goal_kinds import COUNT_RAD, Situation, at_rest, minimum_jerk
from edge.arms import ArmProfile
from edge.plan.checks import ChunkRefusal
from edge.plan.nearest import JointBounds, JointStart
from edge.plan.shaping import PACES, ShapedChunk
from edge.plan.trajectory import from_micro
from tests.goal_chunks import ARMS, SHAPERS, Core
from tests.goal_oracle import least_deviation

pytestmark = pytest.mark.long  # hundreds of chunks, each beside another solver

REASONS = {"deviation", "goal beyond limit", "no way"}
NEAR, LATE = 1.05, 1.05
"""How much further than the optimum, and slower than the least that is feasible, a chunk may be."""
ROUNDING_RAD = 5e-5
"""Below it a deviation is that of whole microradians, and of what is kept back at the limits: a thousandth of the
bound of a joint."""


@dataclass(frozen=True)
class Drawn:
    """An arm, what is committed to its core, and the goals of the next chunk."""

    arm: ArmProfile
    core: Core
    situation: Situation

    def shape(self) -> ShapedChunk | ChunkRefusal:
        at = self.situation
        return SHAPERS[self.arm.name].shape(at.timeline, at.splice, at.goals_rad, at.spacing_us)


@st.composite
def situations(draw: Callable[..., object]) -> Drawn:
    """An arm at rest or under way, and goals: a motion, fast or slow, away from what is committed, with noise,
    on whole counts, up to and beyond the limits, of any length."""
    arm = ARMS[draw(st.sampled_from(sorted(ARMS)))]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    spacing_us = round(1e6 / draw(st.floats(10.0, 50.0)))
    splice = draw(st.integers(0, 48))
    disagree, noise = (np.radians(10.0 ** draw(st.floats(-3.0, most))) for most in (1.0, 0.0))
    duration_s, reach = draw(st.floats(0.3, 4.0)), draw(st.floats(0.0, 1.0))
    counts, steps = draw(st.booleans()), draw(st.integers(1, 60))
    timeline, core = at_rest(arm, spacing_us), Core(arm)
    low, high = np.array(arm.operating.position_min_rad), np.array(arm.operating.position_max_rad)
    home, step_s = np.array(arm.home_rad), spacing_us * 1e-6
    there = reach * (rng.uniform(low, high) - home)
    path = home + minimum_jerk(splice + steps, step_s, there, duration_s)
    if splice:
        first = SHAPERS[arm.name].shape(timeline, 0, path[: max(splice, 2)], spacing_us)
        if isinstance(first, ShapedChunk):
            assert core.refusal(timeline, first.knots) is None
            timeline.accept(first.knots)
        splice = min(splice, timeline.last)
    goals = path[-steps:] + disagree * rng.uniform(-1, 1, arm.dof)
    if rng.random() < 0.3:  # on to somewhere else, in the middle of the motion
        goals += minimum_jerk(steps, step_s, 0.3 * rng.uniform(low - home, high - home), duration_s)
    goals += noise * rng.standard_normal(goals.shape)
    goals = np.rint(goals / COUNT_RAD) * COUNT_RAD if counts else goals
    if rng.random() < 0.9:  # else beyond a limit, more or less
        goals = np.clip(goals, low - 0.03, high + 0.03)
    for axis in arm.grippers if arm.grippers and rng.random() < 0.5 else ():
        goals[:, axis] = rng.choice([low[axis] - 0.1, high[axis] + 0.1])
    return Drawn(arm, core, Situation(timeline, (), splice, goals, spacing_us))


def holds(at: Drawn) -> str:
    """What became of the chunk, in a word; fails where core or limits were not kept to."""
    chunk = at.shape()
    if isinstance(chunk, ChunkRefusal):
        assert chunk.reason in REASONS, str(chunk)
        return f"refused: {chunk.reason}"
    assert isinstance(chunk, ShapedChunk)
    refusal = at.core.refusal(at.situation.timeline, chunk.knots)
    assert refusal is None, refusal
    assert at.arm.goals is not None
    assert (chunk.deviation.rms_rad <= np.array(at.arm.goals.deviation_rad) + ROUNDING_RAD).all()
    return "slowed" if chunk.slowed > 1.0 else "changed" if chunk.changed else "as they are"


def is_nearest(at: Drawn) -> str:
    """The same, and fails where another solver finds something nearer, or something that is sooner near enough."""
    chunk, wanted_s = at.shape(), at.situation.spacing_us * 1e-6
    bounds, starts = oracle_of(at)
    low, high = np.array(at.arm.operating.position_min_rad), np.array(at.arm.operating.position_max_rad)
    goals = np.clip(at.situation.goals_rad[:49], low, high)
    if isinstance(chunk, ChunkRefusal):
        if chunk.reason != "goal beyond limit":
            for pace in PACES[:: len(PACES) // 6]:
                assert too_far(goals, starts, bounds, pace * wanted_s), f"{chunk}, and yet at {pace}"
        return f"refused: {chunk.reason}"
    assert isinstance(chunk, ShapedChunk)
    for joint, rms in enumerate(chunk.deviation.rms_rad):
        if rms > ROUNDING_RAD:
            least = least_deviation(goals[:, joint], starts[joint], bounds[joint], chunk.knots.spacing_s)
            assert rms <= NEAR * least + ROUNDING_RAD, f"{rms} of joint {joint + 1}, and {least} is possible"
    sooner = 1.0
    while sooner < chunk.slowed / LATE:
        assert too_far(goals, starts, bounds, sooner * wanted_s), f"{chunk.slowed}, and {sooner} does"
        sooner *= 1.1
    return "slowed" if chunk.slowed > 1.0 else "changed" if chunk.changed else "as they are"


def oracle_of(at: Drawn) -> tuple[list[JointBounds], list[JointStart]]:
    assert at.arm.goals is not None
    bounds = [JointBounds(*row) for row in zip(*at.arm.operating.rows(), at.arm.goals.deviation_rad)]
    timeline, splice = at.situation.timeline, at.situation.splice
    rows = (
        from_micro(timeline.q_urad(splice)),
        from_micro(timeline.dq_urad_s(splice)),
        timeline.acceleration_rad_s2(splice),
    )
    return bounds, [JointStart(*row) for row in zip(*(row.tolist() for row in rows))]


def too_far(goals: np.ndarray, starts: list[JointStart], bounds: list[JointBounds], step_s: float) -> bool:
    """Whether some joint cannot stay within its bound in steps of `step_s`, by the oracle."""
    return any(
        least_deviation(goals[:, joint], start, bound, step_s) > bound.deviation / 1.002  # 0.2 %: what is kept back
        for joint, (start, bound) in enumerate(zip(starts, bounds))
    )


def drawn(examples: int, judge: Callable[[Drawn], str]) -> Counter[str]:
    """What became of so many chunks."""
    became: Counter[str] = Counter()

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(situations())
    def each(at: Drawn) -> None:
        became[judge(at)] += 1

    each()
    print(f"{examples} chunks: " + ", ".join(f"{count} {word}" for word, count in became.most_common()))
    return became


def test_random_chunks_are_accepted_or_refused_by_name() -> None:
    became = drawn(300, holds)
    assert became["changed"] > 50 and became["slowed"] > 5 and became["refused: deviation"] > 0, became


def test_random_chunks_are_as_near_and_as_soon_as_possible() -> None:
    became = drawn(15, is_nearest)
    assert became["changed"] > 3, became


@pytest.mark.slow  # half a minute; `make goals`
def test_ten_thousand_random_chunks() -> None:
    drawn(10_000, holds)


@pytest.mark.slow  # minutes: ten thousands of programs by the oracle; `make goals`
def test_a_thousand_random_chunks_beside_the_optimum() -> None:
    drawn(1_000, is_nearest)


def test_the_oracle_can_tell_a_worse_path_from_the_best() -> None:
    """Else it would prove nothing."""
    goals = np.radians(1.0) * np.random.default_rng(0).standard_normal(49)
    bounds, start = JointBounds(-2, 2, 2.0, 10.0, 2000.0, 0.05), JointStart(0.0, 0.0, 0.0)
    least = least_deviation(goals, start, bounds, 1 / 30)
    weaker = least_deviation(goals, start, JointBounds(-2, 2, 2.0, 5.0, 2000.0, 0.05), 1 / 30)
    assert 0 < least < weaker / 1.05
    assert math.isinf(least_deviation(goals, JointStart(1.99, 2.0, 0.0), bounds, 1 / 30))
