"""Engines made of LeRobot's folders give what LeRobot's own code gave for the same observations and noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from export.engines.lerobot import read_policy
from tests.export.families.lerobot_engines import FOLDERS, Exported, values_of
from tools.lerobot.inputs import observations, read

OF_RANGE = 1e-4
"""Of each axis's range, FP32."""


@pytest.mark.long
@pytest.mark.parametrize("name", ["act", "diffusion"])
def test_engines_agree_with_lerobot(name: str, tmp_path: Path) -> None:
    made = Exported(name, "fp32", tmp_path)
    report = made.maker.report()
    assert report["passed"], report["agreement"]
    span = made.policy.action_range.numpy()
    found = made.chunks()
    assert found.shape == made.wanted.shape and len(found) == 64
    assert (np.abs(found - made.wanted).max(axis=(0, 1)) <= OF_RANGE * span).all()
    # The same comparison with the observations mixed up has to fail, on every axis.
    assert (np.abs(found - np.roll(made.wanted, 1, axis=0)).max(axis=(0, 1)) > 10 * OF_RANGE * span).all()


@pytest.mark.long
@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_a_rounded_act_keeps_to_its_gates(precision: str, tmp_path: Path) -> None:
    report = Exported("act", precision, tmp_path).maker.report()
    assert report["passed"] and report["negative_control"]["caught"], report["agreement"]


@pytest.mark.parametrize("name", ["act", "act_variant", "diffusion", "diffusion_variant"])
def test_the_restated_network_agrees_with_lerobot(name: str) -> None:
    """The reference of every verification, and what is traced, on a few observations."""
    policy, (inputs, wanted) = read_policy(FOLDERS / name), read(FOLDERS / name)
    allowed = OF_RANGE * policy.action_range.numpy()
    for build in ("reference", "static"):
        modules = {}
        for part in policy.parts:
            made = getattr(part, build)()
            modules[part.name] = made if build == "reference" else made.whole
        for seen, right in list(zip(observations(inputs), wanted))[:8]:
            values = values_of(policy, inputs, seen)
            sources = {target: source for source, target in policy.links}
            for part in policy.parts:
                ports = [f"{part.name}.{port}" for port in part.inputs]
                with torch.no_grad():
                    answer = modules[part.name](*(values[sources.get(port, port)] for port in ports))
                values[f"{part.name}.{part.outputs[0]}"] = answer
            assert (np.abs(values[policy.result].numpy() - right).max(axis=0) <= allowed).all(), build
