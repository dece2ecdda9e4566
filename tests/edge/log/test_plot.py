"""The plot of a run: what is drawn, and why there is none."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from edge.log.plot import plot_run
from edge.log.recorder import Samples
from tests.support import FRANKA

TITLE = "a swing"


def swing(periods: int) -> Samples:
    """The first joint swings, and is measured 10 mrad behind."""
    at_us = 4000 * np.arange(periods, dtype=np.int64)
    commanded = np.zeros((periods, FRANKA.dof))
    commanded[:, 0] = 0.3 * np.sin(2e-6 * at_us)
    buffered_ms = np.full(periods, 500, np.int64)
    return Samples(at_us, commanded, commanded - 0.01, buffered_ms, np.zeros(periods, np.int64), at_us[::100])


def test_commanded_and_measured_are_drawn_and_an_older_plot_is_replaced(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / "run.png"
    path.write_bytes(b"of the run before")
    assert plot_run(path, swing(500), FRANKA, TITLE) == ""
    picture = cv2.imread(str(path))[:, :, ::-1].astype(int)
    assert picture[:, :3].min() == 255, "a label is cut off"
    for color in ((31, 119, 180), (255, 127, 14), (214, 39, 40)):  # tab:blue, tab:orange, tab:red
        drawn = np.abs(picture - color).max(axis=2) < 60
        assert np.ptp(np.nonzero(drawn.any(axis=0))[0]) > 0.7 * picture.shape[1], "over the whole width"


def test_why_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.png"
    assert plot_run(path, swing(0), FRANKA, TITLE) == "the arm was never heard"
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "vla-edge[plot]" in plot_run(path, swing(500), FRANKA, TITLE)
    assert not path.exists()
