"""Exports a committed folder of LeRobot's and runs its engines on the observations that LeRobot answered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from edge.engines import OnnxRuntimeEngine
from export.engines.chain import Values, draw_observations
from export.engines.lerobot import read_policy
from export.engines.verify import run_engine
from export.engines.wired import Maker, Samples
from export.families.lerobot.policy import Policy
from tools.lerobot.inputs import Inputs, Observation, observations, read

FOLDERS = Path(__file__).parent / "lerobot"


class Exported:
    """Engines of one folder, and what they answer."""

    def __init__(self, name: str, precision: str, out: Path, samples: int = 4) -> None:
        self.policy = read_policy(FOLDERS / name)
        self.inputs, self.wanted = read(FOLDERS / name)
        drawn = draw_observations(self.policy, samples, seed=0)
        calibration = draw_observations(self.policy, 32, seed=1) if precision == "int8" else []
        scratch = out / "scratch"
        scratch.mkdir()
        self.maker = Maker(
            self.policy, precision, Samples(drawn, calibration, "drawn"), 0, out, scratch, lambda *_: lambda *_: None
        )
        for part in self.policy.parts:
            self.maker.make(part)
        opened = scratch if precision == "bf16" else out
        self.engines = {
            name: OnnxRuntimeEngine(opened / spec.file, spec, threads=1) for name, spec in self.maker.specs.items()
        }

    def chunks(self) -> NDArray[np.float32]:
        """(observations, rows, axes)."""
        return np.stack([self.chunk(values_of(self.policy, self.inputs, seen)) for seen in observations(self.inputs)])

    def chunk(self, values: Values) -> NDArray[np.float32]:
        sources = {target: source for source, target in self.policy.links}
        for part in self.policy.parts:
            ports = {name: f"{part.name}.{name}" for name in part.inputs}
            taken = {name: values[sources.get(port, port)] for name, port in ports.items()}
            made = run_engine(self.engines[part.name], taken)
            values.update({f"{part.name}.{name}": torch.from_numpy(array) for name, array in made.items()})
        return values[self.policy.result].numpy()


def values_of(policy: Policy, inputs: Inputs, seen: Observation) -> Values:
    """What an observation is to a policy's ports."""
    values: Values = {}
    for port, feed in policy.feeds.items():
        if feed["kind"] == "frame":
            frames = seen.frames[f"observation.images.{feed['camera']}"]
            values[port] = torch.from_numpy(frames if inputs.history > 1 else frames[-1])
        elif feed["kind"] == "state":
            values[port] = torch.from_numpy(seen.states if inputs.history > 1 else seen.states[-1])
        else:
            values[port] = torch.from_numpy(seen.noise[port.partition(".")[2]])
    return values
