"""Folders of LeRobot's through export, runtime and firmware, on the simulated clock.

The policies were trained by LeRobot's own loss to wave (`tools/lerobot/fixtures/waving.py`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.arms import load_arm
from edge.bundle import load_bundle
from edge.log.trace import read_trace, violations
from edge.policy.base import open_policy
from edge.sim.lockstep import LockstepSettings, run_lockstep
from edge.sim.scenes import open_scene
from tests.export.families.lerobot_engines import WAVE_RAD, bundle_of

TASK = "reach the blue cube"
LEAST = {"groot_waving": 18}
"""Chunks of 20 s, where other than 20."""


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    [
        *("act_waving", "diffusion_waving", "smolvla_waving", "pi05_waving", "pi0_waving"),
        pytest.param("groot_waving", marks=pytest.mark.slow(reason="half a minute; make lerobot-groot")),
    ],
)
def test_a_policy_drives_the_arm(name: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Twenty seconds: nothing beyond a limit, nearly every chunk committed, and the arm goes where the goals do."""
    bundle, profile, trace = load_bundle(bundle_of(name, tmp_path_factory)), load_arm("so101"), tmp_path / "trace.csv"
    policy = open_policy(bundle, "so101", TASK, threads=1)
    settings = LockstepSettings(TASK, 20.0, bundle.manifest.policy.execute, trace=trace)
    outcome = run_lockstep(bundle, profile, policy, open_scene(profile, 0), settings)
    counters = outcome.controller.counters
    assert outcome.stop is None and list(counters.refused) == []
    rows = read_trace(trace)
    assert violations(rows, profile.limits, profile.edges) == []
    assert len(counters.committed_ids) >= 0.9 * counters.chunks >= LEAST.get(name, 20)
    travelled = np.ptp(rows.q, axis=0)
    assert (travelled >= WAVE_RAD / 2).all(), travelled
