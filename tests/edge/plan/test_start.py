"""A run begins only where the policy's first goals are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge.arms import available_arms, load_arm
from edge.errors import InputError
from edge.plan.start import far_from_start


@pytest.mark.parametrize("name", available_arms())
def test_each_joint_has_its_own_bound(name: str) -> None:
    arm = load_arm(name)
    assert arm.goals is not None
    home = np.array(arm.home_rad)
    for joint, bound in enumerate(arm.goals.start_rad):
        for side in (-1.0, 1.0):
            away = side * (np.arange(arm.dof) == joint)
            assert far_from_start(home + 0.999 * bound * away, home, arm) is None
            far = far_from_start(home + 1.001 * bound * away, home, arm)
            assert far is not None and far.joint == arm.joints[joint]
            assert far.distance_rad == pytest.approx(1.001 * bound)


def test_the_sentence_names_joint_distance_and_bound() -> None:
    arm = load_arm("so101")
    home = np.array(arm.home_rad)
    far = far_from_start(home + np.array([0.1, 0, -0.9, 0.3, 0, 0]), home, arm)
    assert str(far) == (
        "elbow_flex stands at 0.900 rad and the policy's first goal is 0.000: 0.900 rad away, "
        "and at most 0.2 is allowed"
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_no_distance(bad: float) -> None:
    arm = load_arm("so101")
    home = np.array(arm.home_rad)
    goals, measured = home.copy(), home.copy()
    goals[2] = bad
    with pytest.raises(InputError, match="elbow_flex"):
        far_from_start(goals, home, arm)
    measured[2] = bad
    with pytest.raises(InputError, match="elbow_flex"):
        far_from_start(goals, measured, arm)


def test_an_arm_without_bounds_is_refused() -> None:
    arm = replace(load_arm("so101"), goals=None)
    with pytest.raises(InputError, match=r"\[goals\]"):
        far_from_start(np.zeros(6), np.zeros(6), arm)
