"""The shipped policy, runtime and firmware on the simulated clock: a minute takes seconds and depends on no machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge.bundle import load_bundle
from edge.inference.process import open_policy
from edge.log.trace import read_trace
from edge.sim.lockstep import LockstepSettings, run_lockstep
from edge.sim.scenes import open_scene
from tests.support import FRANKA, broken_limits, states_in_order

TASK = "reach the red cube"


def test_a_minute_of_motion_breaks_no_limit(bundle_path: Path, tmp_path: Path) -> None:
    bundle = load_bundle(bundle_path)
    policy = open_policy(bundle, FRANKA.name, TASK, 1)
    settings = LockstepSettings(TASK, 60.0, jitter=0.3, seed=4, trace=tmp_path / "trace.csv")
    outcome = run_lockstep(bundle, FRANKA, policy, open_scene(FRANKA, 2026), settings)
    trace, counters = read_trace(tmp_path / "trace.csv"), outcome.controller.counters
    assert outcome.stop is None and broken_limits(trace, FRANKA) == []
    moving = np.array(trace.state) == "STREAMING"
    assert moving.sum() > 55_000
    assert set(trace.chunk[moving]) <= set(counters.committed_ids), "only whole chunks were executed"
    assert counters.interventions == 0 == trace.limited.sum()
    assert states_in_order(trace)[-3:] == ["STREAMING", "DECEL", "HOLD"]
