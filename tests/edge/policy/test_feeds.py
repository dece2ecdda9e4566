"""What is committed, as the numbers of policies of every kind; masks; and columns of no axis."""

from __future__ import annotations

import numpy as np
import pytest

from edge.arms import load_arm
from edge.bundle import ActionNumber, ArmSpec, AxisSpec, Feed, GraphSpec, Manifest, PolicySpec, StateNumber
from edge.bundle.manifest import ActionKind
from edge.policy.axes import Axes
from edge.policy.base import PolicyInput
from edge.policy.feeds import Surroundings, filler

SO101 = load_arm("so101")
HORIZON, WIDTH = 8, 32
OFFSET, SCALE = 3.0, 2.0


def around(kind: ActionKind, prefix: str) -> Surroundings:
    axes = tuple(
        AxisSpec(joint, StateNumber(n, "deg"), ActionNumber(2 * n, kind, "deg", OFFSET, SCALE))
        for n, joint in enumerate(SO101.joints)
    )
    arm = ArmSpec("so101", 0.05, axes, {"used": (1.0,) * 4})
    policy = PolicySpec("any", HORIZON, prefix=prefix)  # type: ignore[arg-type]
    manifest = Manifest(policy, GraphSpec({}, (), {}, ""), (), (arm,), "0" * 64, "tests", {})
    return Surroundings(manifest, arm, Axes(arm, SO101), None)


def filled(feed: Feed, shape: tuple[int, ...], kind: ActionKind, prefix: str, dtype: str = "float32") -> np.ndarray:
    buffer = np.full(shape, 77).astype(dtype)
    fill = filler(feed, buffer, around(kind, prefix))
    if fill is not None:
        fill(OBSERVED, np.random.default_rng(5))
    return buffer


COMMANDED = np.array(SO101.home_rad) + 0.01 * np.arange(6 * 6).reshape(6, 6) ** 1.5
MEASURED = COMMANDED[:1] + 0.02
OBSERVED = PolicyInput(
    [], np.zeros((0, 6)), np.zeros((0, 6)), np.zeros(0, np.bool_), np.diff(COMMANDED[:3], axis=0), (0, 1),
    measured_rad=MEASURED, commanded_rad=COMMANDED,
)  # fmt: skip
"""Two steps are committed until the chunk arrives, five are planned."""


@pytest.mark.parametrize("kind", ["position", "position_relative_to_state", "increment"])
@pytest.mark.parametrize(("prefix", "rows"), [("frozen", 2), ("guided", 5)])
def test_committed_goals_are_the_actions_that_the_policy_would_have_given(
    kind: ActionKind, prefix: str, rows: int
) -> None:
    values = {
        "position": np.degrees(COMMANDED[1:]),
        "position_relative_to_state": np.degrees(COMMANDED[1:] - MEASURED),
        "increment": np.degrees(np.diff(COMMANDED, axis=0)),
    }[kind]
    wanted = np.zeros((1, HORIZON, WIDTH))
    wanted[0, :rows, 0:12:2] = (values[:rows] - OFFSET) / SCALE
    found = filled(Feed("committed_goals"), (1, HORIZON, WIDTH), kind, prefix)
    assert found == pytest.approx(wanted, abs=1e-4)
    given_back = around(kind, prefix).axes
    assert given_back.goals_rad(found[0], OBSERVED)[:rows] == pytest.approx(COMMANDED[1 : rows + 1], abs=1e-5)


def test_masks_weights_and_constants() -> None:
    assert filled(Feed("committed_mask"), (1, HORIZON), "position", "guided", "bool").tolist() == [
        [True] * 2 + [False] * 6
    ]
    weights = filled(Feed("prefix_weights"), (HORIZON,), "position", "guided")
    assert weights == pytest.approx([1, 1, 0.75, 0.5, 0.25, 0, 0, 0])
    assert filled(Feed("constant", name="used"), (2, 2), "position", "none").tolist() == [[1, 1], [1, 1]]


def test_the_state_stands_in_its_columns_and_nothing_in_the_others() -> None:
    found = filled(Feed("state"), (1, WIDTH), "position", "none")
    assert found[0, :6] == pytest.approx(np.degrees(MEASURED[0]), abs=1e-4) and not found[0, 6:].any()


def test_noise_fills_all_columns_or_those_of_axes_alone() -> None:
    everywhere = filled(Feed("normal", scale=0.5), (3, HORIZON, WIDTH), "position", "none")
    drawn = np.random.default_rng(5).standard_normal((3, HORIZON, WIDTH), dtype=np.float32)
    assert np.array_equal(everywhere, 0.5 * drawn), "of any shape: one row for each step of a diffusion, say"
    alone = filled(Feed("normal", axes_only=True), (1, HORIZON, WIDTH), "position", "none")
    assert alone[0][:, 0:12:2].all() and np.count_nonzero(alone) == HORIZON * 6
