"""The same chunks judged by the host's checks and by the firmware: the verdicts must be equal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.plan.checks import check_knots, check_splice
from edge.plan.trajectory import Knots
from firmware_bridge.client import KnotChunk
from firmware_bridge.codes import Refusal
from tests.support import FRANKA, HOME, Rig

DOCUMENT = json.loads((Path(__file__).parent / "vectors" / "chunks.json").read_text())
CASES = [pytest.param(case, id=case["name"]) for case in DOCUMENT["cases"]]


@pytest.mark.parametrize("case", CASES)
def test_host(case: dict[str, Any]) -> None:
    knots = Knots(0, np.array(case["q_urad"]), np.array(case["dq_urad_s"]), case["spacing_us"])
    refusal = check_knots(knots, FRANKA.operating) or check_splice(knots, HOME, np.zeros(7))
    verdict = None if refusal is None else {"reason": refusal.reason, "joint": refusal.joint, "knot": refusal.knot}
    assert verdict == case["verdict"]


@pytest.mark.parametrize("case", CASES)
def test_firmware(case: dict[str, Any]) -> None:
    rig = Rig().armed()
    rows = [tuple(map(tuple, case[key])) for key in ("q_urad", "dq_urad_s")]
    nak = rig.commit(KnotChunk(1, rig.device.now_us + 50_000, case["spacing_us"], *rows))
    rig.close()
    verdict = None
    if nak is not None:
        reason = Refusal(nak.refusal).name.lower().replace("_", " ")
        verdict = {"reason": reason, "joint": nak.joint, "knot": nak.knot}
    assert verdict == case["verdict"]
