"""Links of arms without a simulation here, beside what their makers publish; and those of two arms in one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from edge.arms import load_arm
from edge.arms.chain import chains_of
from edge.arms.frames import UNTURNED, Frame, Quaternion, Vector, composed, poses

YAM: list[tuple[list[float], list[float], list[float], list[float]]] = [
    ([0.0, 0.0, 0.0, 0.0, 0.0, 0.0], [0.001, 0.0339, 0.1735], [0.1106, 0.0, 0.1735], [1.0, 0.0, 0.0]),
    ([0.5, 1.0, 0.8, -0.3, 0.4, 1.2], [0.0973, 0.0918, 0.3458], [0.2024, 0.0948, 0.2946], [0.8961, 0.0458, -0.4416]),
    ([-1.2, 2.0, 1.5, 0.6, -0.7, -0.4], [0.167, -0.336, 0.2888], [0.1933, -0.4338, 0.2989], [0.8762, -0.4759, 0.0764]),
    ([2.0, 0.4, 2.5, -1.1, 1.0, 0.9], [0.1351, -0.3766, 0.3975], [0.1722, -0.3042, 0.476], [0.6437, 0.6156, 0.4547]),
]
"""Joints; where MuJoCo 4.0.0 puts link 4 and link 6 of the maker's yam.xml, m; and where the latter's flange looks."""


def places(frames: tuple[Frame, ...], q: Mapping[str, float]) -> dict[str, tuple[Vector, Quaternion]]:
    """Every link in the frame of the base."""
    found: dict[str, tuple[Vector, Quaternion]] = {frames[0].parent: ((0.0, 0.0, 0.0), UNTURNED)}
    for frame, position, rotation in poses(frames, q):
        found[frame.child] = composed(found[frame.parent], (position, rotation))
    return found


@pytest.mark.parametrize(("q", "link4", "link6", "looks"), YAM)
def test_a_yam_stands_where_its_maker_has_it(q: list[float], link4: Vector, link6: Vector, looks: Vector) -> None:
    arm = load_arm("yam")
    found = places(arm.frames, dict(zip(arm.joints, q)))
    for name, at in (("link4", link4), ("link6", link6), ("tip", link6)):
        np.testing.assert_allclose(found[name][0], at, atol=3e-4, err_msg=name)
    ahead = composed(found["tip"], ((0.0, 0.0, 1.0), UNTURNED))[0]
    np.testing.assert_allclose(np.subtract(ahead, found["tip"][0]), looks, atol=2e-4)


def test_a_piper_stands_where_its_makers_driver_has_it() -> None:
    driver = pytest.importorskip("piper_sdk", reason="pip install piper-sdk")
    arm, theirs, draw = load_arm("piper"), driver.C_PiperForwardKinematics(), np.random.default_rng(5)
    low, high = np.array(arm.operating.position_min_rad), np.array(arm.operating.position_max_rad)
    for _ in range(20):
        q = draw.uniform(low, high)
        found = places(arm.frames, dict(zip(arm.joints, q)))
        for link, (*at_mm, _, _, _) in enumerate(theirs.CalFK(list(q[:6])), 1):
            np.testing.assert_allclose(found[f"link{link}"][0], np.array(at_mm) / 1000, atol=2e-5)
        apart = np.subtract(found["finger_left"][0], found["finger_right"][0])
        assert np.linalg.norm(apart) == pytest.approx(q[6], abs=1e-9)
        np.testing.assert_allclose(found["tip"][0], np.add(found["finger_left"][0], found["finger_right"][0]) / 2)


def test_two_arms_have_the_links_of_each_from_a_base_of_its_own() -> None:
    both, single = load_arm("bi_so101"), load_arm("so101")
    draw = np.random.default_rng(6)
    q = dict(zip(both.joints, draw.uniform(*np.array(both.stops_rad).T)))
    for first, side in ((0, "left"), (6, "right")):
        own = {name: q[f"{side}_{name}"] for name in single.joints}
        found = [pose for pose in poses(both.frames, q) if pose[0].child.startswith(f"{side}_")]
        for (one, *pose), (other, *expected) in zip(found, poses(single.frames, own), strict=True):
            assert (one.parent, one.child) == (f"{side}_{other.parent}", f"{side}_{other.child}")
            assert pose == expected
        (chain,) = (one for one in chains_of(both) if one["name"] == side)
        assert chain == {**chains_of(single)[0], "name": side, "first": first}


@pytest.mark.parametrize("name", ["yam", "piper"])
def test_their_chain_ends_at_the_tip(name: str) -> None:
    arm = load_arm(name)
    (chain,) = chains_of(arm)
    assert len(chain["frames"]) == 6 and chain["first"] == 0
    at: tuple[Vector, Quaternion] = (0.0, 0.0, 0.0), UNTURNED
    for frame in chain["frames"]:
        at = composed(at, frame)
    at = composed(at, (chain["tip_m"], UNTURNED))
    np.testing.assert_allclose(at[0], places(arm.frames, dict.fromkeys(arm.joints, 0.0))["tip"][0], atol=1e-9)
