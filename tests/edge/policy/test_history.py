"""The history ring."""

from __future__ import annotations

import numpy as np

from edge.policy.history import HistoryRing


def read(ring: HistoryRing, length: int, joints: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    states, actions = np.full((length, joints), 9.0), np.full((length, joints), 9.0)
    mask = np.zeros(length, dtype=bool)
    ring.read(states, actions, mask)
    return states, actions, mask


def test_pairs_come_back_in_order_and_right_aligned() -> None:
    ring = HistoryRing(4, 2)
    for step in range(3):
        ring.push(np.array([step, -step]), np.array([10 * step, 0]))
    states, actions, mask = read(ring, 4, 2)
    assert mask.tolist() == [False, True, True, True]
    assert states[:, 0].tolist() == [0, 0, 1, 2]
    assert actions[:, 0].tolist() == [0, 0, 10, 20]


def test_the_oldest_falls_out() -> None:
    ring = HistoryRing(4, 1)
    for step in range(11):
        ring.push(np.array([step]), np.array([0.0]))
    assert read(ring, 4, 1)[0][:, 0].tolist() == [7, 8, 9, 10]
    assert len(ring) == 4


def test_rest_is_a_full_history_of_standing_still() -> None:
    ring = HistoryRing(3, 2)
    ring.rest(np.array([0.5, 0.7]))
    states, actions, mask = read(ring, 3, 2)
    assert mask.all()
    assert np.all(states == [0.5, 0.7])
    assert np.all(actions == 0)
