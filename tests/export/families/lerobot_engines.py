"""Exports a committed folder of LeRobot's and runs its engines on the observations that LeRobot answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edge.engines import OnnxRuntimeEngine
from export.commands.export import main
from export.engines.chain import Values, draw_observations
from export.engines.lerobot import read_policy
from export.engines.verify import run_engine
from export.engines.wired import Maker, Samples
from export.families.lerobot.policy import Beside, Policy
from export.families.pi import config as pi_config
from export.families.vla.siglip import TowerShape
from export.families.vla.text import prompt_ids
from tests.shared import made_once
from tools.lerobot.inputs import Inputs, Observation, observations, read

FOLDERS = Path(__file__).parent / "lerobot"
BESIDE = {
    "smolvla": Beside(vlm=FOLDERS / "smolvla_vlm"),
    "smolvla_variant": Beside(vlm=FOLDERS / "smolvla_vlm"),
    "smolvla_waving": Beside(vlm=FOLDERS / "smolvla_vlm"),
    "pi05_waving": Beside(tokenizer=FOLDERS / "pi_tokenizer"),
    "pi0_waving": Beside(tokenizer=FOLDERS / "pi_tokenizer"),
    "pi05": Beside(tokenizer=FOLDERS / "pi_tokenizer"),
    "pi0": Beside(tokenizer=FOLDERS / "pi_tokenizer"),
    **{
        name: Beside(vlm=FOLDERS / "groot_vlm", base=FOLDERS / f"{name}_base")
        for name in ("groot", "groot_variant", "groot_area", "groot_waving")
    },
}
NARROW = pi_config.Sizes(
    {
        "gemma_2b": pi_config.Gemma(hidden=64, layers=3, ffn=96, heads=8, kv_heads=1, head_dim=16),
        "gemma_300m": pi_config.Gemma(hidden=48, layers=3, ffn=64, heads=8, kv_heads=1, head_dim=16),
    },
    TowerShape(hidden=64, ffn=80, layers=2, heads=16, side_px=56, patch_px=14, epsilon=1e-6),
    304,
)
"""Of the pi policies, as `narrow_gemma` of the fixtures makes them: LeRobot's code has the real sizes as literals."""


WAVE_RAD = np.array([*np.radians([8.0] * 5), 0.08 * 1.91986])
"""How far each axis of an SO-101 is to wave, as LeRobot's own loss has trained the fixtures that are named so; the
gripper's is a part of its travel."""


@contextmanager
def narrow_sizes() -> Iterator[None]:
    """While the pi policies have the sizes of the fixtures."""
    sizes, pi_config.SIZES = pi_config.SIZES, NARROW
    try:
        yield
    finally:
        pi_config.SIZES = sizes


def bundle_of(name: str, factory: pytest.TempPathFactory) -> Path:
    """The bundle that `edge-export` makes of a fixture, once in a session. Do not change it in place."""
    beside = BESIDE.get(name, Beside())
    named = [("--vlm", beside.vlm), ("--tokenizer", beside.tokenizer), ("--base", beside.base)]
    given = [str(part) for option, path in named if path is not None for part in (option, path)]
    arm = ["--arm", "so101", "--rate", "15", "--units", "degrees"]

    def make(path: Path) -> None:
        with narrow_sizes():
            assert main([str(FOLDERS / name), "-o", str(path), *arm, *given, "--samples", "4"]) == 0

    return made_once(factory, name, make)


def read_fixture(name: str, folder: Path | None = None) -> Policy:
    """The policy of a fixture, or of a changed copy of its folder."""
    with narrow_sizes():
        return read_policy(folder or FOLDERS / name, BESIDE.get(name, Beside()))


class Exported:
    """Engines of one folder, and what they answer."""

    def __init__(self, name: str, precision: str, out: Path, samples: int = 4) -> None:
        self.policy = read_fixture(name)
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

    def chunks(self, goals: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """(observations, rows, axes); guided by the goals that are committed, (observations, rows, axes), if any."""
        several = zip(observations(self.inputs), goals if goals is not None else [None] * self.inputs.count)
        return np.stack([self.chunk(values_of(self.policy, self.inputs, seen, plan)) for seen, plan in several])

    def chunk(self, values: Values) -> NDArray[np.float32]:
        """Goals in the robot's units; relative ones are added to the state, as the robot's computer does."""
        sources = {target: source for source, target in self.policy.links}
        for part in self.policy.parts:
            ports = {name: f"{part.name}.{name}" for name in part.inputs}
            taken = {name: values[sources.get(port, port)] for name, port in ports.items()}
            made = run_engine(self.engines[part.name], taken)
            values.update({f"{part.name}.{name}": torch.from_numpy(array) for name, array in made.items()})
        chunk: NDArray[np.float32] = values[self.policy.result].numpy()
        return chunk + offset_of(self.policy, values)


def restated(policy: Policy) -> Callable[[Values], NDArray[np.float32]]:
    """Goals by the networks that are traced, as torch computes them."""
    networks = {part.name: part.static().whole for part in policy.parts}
    sources = {target: source for source, target in policy.links}

    def answer(values: Values) -> NDArray[np.float32]:
        values = dict(values)
        for part in policy.parts:
            ports = [f"{part.name}.{name}" for name in part.inputs]
            with torch.no_grad():
                made = networks[part.name](*(values[sources.get(port, port)] for port in ports))
            values |= zip((f"{part.name}.{name}" for name in part.outputs), made if len(part.outputs) > 1 else (made,))
        chunk: NDArray[np.float32] = values[policy.result].numpy()
        return chunk + offset_of(policy, values)

    return answer


STATE_PORT = "state"
"""In the values beside those of ports: the newest state in the robot's units."""


def offset_of(policy: Policy, values: Values) -> NDArray[np.float32]:
    """What the policy's goals are relative to, (axes,)."""
    relative = np.array(policy.relative or [False] * policy.folder.action_width, np.float32)
    state: NDArray[np.float32] = values[STATE_PORT].numpy()
    return state[: len(relative)] * relative


def values_of(policy: Policy, inputs: Inputs, seen: Observation, plan: NDArray[np.float32] | None = None) -> Values:
    """What an observation is to a policy's ports. The first two of the plan's goals are committed, the rest not yet."""
    values: Values = {STATE_PORT: torch.from_numpy(seen.states[-1])}
    goals = np.zeros((policy.horizon, policy.folder.action_width), np.float32)
    weights = np.zeros(policy.horizon, np.float32)
    if plan is not None:
        goals[: len(plan)] = plan - offset_of(policy, values)
        weights[:2], weights[2 : len(plan)] = 1, np.linspace(1, 0, len(plan))[1:-1]
    if policy.text is not None:
        ids, budget = prompt_ids(policy.text, seen.task, seen.states[-1]), policy.text["budget"]
        tokens = torch.tensor([*ids, *[0] * (budget - len(ids))])
        mask = torch.arange(budget) < len(ids)
    for port, feed in policy.feeds.items():
        if feed["kind"] == "frame":
            frames = seen.frames[f"observation.images.{feed['camera']}"]
            values[port] = torch.from_numpy(frames if inputs.history > 1 else frames[-1])
        elif feed["kind"] == "state":
            values[port] = torch.from_numpy(seen.states if inputs.history > 1 else seen.states[-1])
        elif feed["kind"] in ("tokens", "token_mask"):
            values[port] = tokens if feed["kind"] == "tokens" else mask
        elif feed["kind"] in ("committed_goals", "prefix_weights"):
            values[port] = torch.from_numpy(goals if feed["kind"] == "committed_goals" else weights)
        else:
            values[port] = torch.from_numpy(seen.noise[port.partition(".")[2]])
    return values
