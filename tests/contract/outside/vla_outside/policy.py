"""Bundles of the family `table` on the robot: every chunk is the table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge.arms import ArmProfile
from edge.bundle import Bundle
from edge.engines import Engine, open_engines
from edge.errors import InputError
from edge.policy.base import BundlePolicy, PolicyDriver, PolicyInput, PolicyOutput


@dataclass(frozen=True)
class TablePolicy(PolicyDriver):
    def check(self, bundle: Bundle, arm: ArmProfile) -> None:
        if self.task != "wait":
            raise InputError(f"a table knows no task '{self.task}'; give --task wait")

    def open(self, bundle: Bundle, arm: ArmProfile) -> BundlePolicy:
        return Table(bundle, arm, open_engines(bundle, "table", self.threads)["table"])


class Table:
    def __init__(self, bundle: Bundle, arm: ArmProfile, engine: Engine) -> None:
        manifest = bundle.manifest
        self.shape, self.cameras, self.parts = manifest.shape, manifest.cameras, tuple(manifest.engines)
        self.observations, self.execute_steps = manifest.policy.observations, manifest.policy.execute
        self.arm, self._engine = bundle.arm(arm.embodiment, arm.joints), engine
        self.step_s = self.arm.step_s

    @property
    def joints(self) -> int:
        return len(self.arm.axes)

    def describe(self) -> tuple[str, ...]:
        return (self._engine.describe(),)

    def infer(self, observed: PolicyInput) -> PolicyOutput:
        self._engine.run()
        return PolicyOutput(np.array(self._engine.outputs["rows"]), (0,))
