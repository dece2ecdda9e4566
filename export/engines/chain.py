"""Compares the engines of a policy with its network, on the worst of many observations, whatever its parts are.

One part of the policy is in memory at a time: its answers are kept, the part is let go, and then its engine is asked
the same. Goals are judged axis by axis, each in its own unit and against the range it had in training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edge.engines import Engine
from export.engines.verify import ACTION, LATENT, STILL, Agreement, Gate, Pair, compare, perturb, run_engine, verdict
from export.families.lerobot.folder import ACTION as ACTIONS
from export.families.lerobot.folder import STATE
from export.families.lerobot.policy import Part, Policy, training_range

Values = dict[str, torch.Tensor]
"""By port, `PART.NAME`."""
WHOLE = "whole_chunk"


@dataclass(frozen=True)
class GoalGates:
    """Of one precision: a part's latents; goals, in the network's own units; and each axis's error of its range.

    `perturbation` is the noise on the weights, relative to their spread, that the negative control must notice.
    """

    latent: Gate
    goals: Gate
    of_range: float | None
    perturbation: float


SAME = Gate(max_abs=0.0)
ROUNDED = GoalGates(LATENT, ACTION, None, 0.5)
GOAL_GATES = {
    "fp32": GoalGates(Gate(relative_rms=1e-4), Gate(relative_rms=1e-3), 1e-4, 1e-2),
    "bf16": ROUNDED,
    "int8": ROUNDED,
}


@dataclass(frozen=True)
class GoalAgreement:
    """Of goals: the worst sample in the network's units, the worst error of each axis in its own, and the largest of
    them as a part of the axis's range."""

    normalised: Agreement
    axes: tuple[float, ...]
    of_range: float
    allowed: float | None

    @property
    def passed(self) -> bool:
        return self.normalised.passed and (self.allowed is None or self.of_range <= self.allowed)

    def to_plain(self) -> dict[str, Any]:
        plain = self.normalised.to_plain()
        gate = plain["gate"] | ({} if self.allowed is None else {"of_range": self.allowed})
        found = {"of_range": self.of_range, "axes_max_abs": list(self.axes), "passed": self.passed}
        return {**plain, **found, "gate": gate}


class Chain:
    """Collects the answers of the network and of the engines, part by part in the order in which they run."""

    def __init__(self, policy: Policy, samples: list[Values], gates: GoalGates, seed: int) -> None:
        self._policy, self._gates, self._seed = policy, gates, seed
        self._sources = {target: source for source, target in policy.links}
        controls = samples[: max(1, len(samples) // 4)]
        self._right, self._found, self._wrong = ([dict(one) for one in many] for many in (samples, samples, controls))
        self._pairs: dict[str, list[Pair]] = {}
        self._control: dict[str, list[Pair]] = {}
        self._off: list[Values] = []
        self._inputs: dict[str, list[dict[str, NDArray[Any]]]] = {}

    def ask_perturbed(self, part: Part, module: nn.Module) -> None:
        """What a part with slightly wrong weights answers. Changes the part."""
        perturb(module, self._gates.perturbation, self._seed)
        self._off = [self.answer(part, module, values) for values in self._right[: len(self._wrong)]]
        for values in self._wrong:
            values.update(self.answer(part, module, values))

    def ask(self, part: Part, module: nn.Module, advance: Callable[[], object]) -> None:
        """What the part itself answers."""
        for values in self._right:
            values.update(self.answer(part, module, values))
            advance()

    def inputs(self, part: Part, values: Values) -> dict[str, torch.Tensor]:
        """What one sample's values are to a part, by its inputs' names."""
        ports = {name: f"{part.name}.{name}" for name in part.inputs}
        return {name: values[self._sources.get(port, port)] for name, port in ports.items()}

    def judge(self, part: Part, engine: Engine, advance: Callable[[], object]) -> None:
        """Asks the engine the same, and once more with what the engines before it made."""
        for index, (right, found) in enumerate(zip(self._right, self._found)):
            answers = run_engine(engine, self.inputs(part, right))
            for name, array in answers.items():
                port = f"{part.name}.{name}"
                self._pairs.setdefault(port, []).append((array, right[port].numpy()))
                if index < len(self._off) and array.dtype != np.bool_:  # no weight shows in a mask
                    self._control.setdefault(port, []).append((array, self._off[index][port].numpy()))
            own = answers if part is self._policy.parts[0] else run_engine(engine, self.inputs(part, found))
            found.update({f"{part.name}.{name}": torch.from_numpy(array) for name, array in own.items()})
            advance()

    def examples(self, count: int) -> dict[str, NDArray[Any]]:
        """The first samples with the network's answers, keyed `engine/number/input|output/tensor`."""
        arrays: dict[str, NDArray[Any]] = {}
        for part in self._policy.parts:
            for number, values in enumerate(self._right[:count]):
                for name, tensor in self.inputs(part, values).items():
                    arrays[f"{part.name}/{number}/input/{name}"] = tensor.numpy()
                for name in part.outputs:
                    arrays[f"{part.name}/{number}/output/{name}"] = values[f"{part.name}.{name}"].numpy()
        return arrays

    def report(self) -> dict[str, Any]:
        """Agreement of every output and of the chunk through all engines, and the negative control."""
        result = self._policy.result
        whole = [(one[result].numpy(), right[result].numpy()) for one, right in zip(self._found, self._right)]
        whole_off = [(one[result].numpy(), off[result].numpy()) for one, off in zip(self._found, self._wrong)]
        found = self._agreements({**self._pairs, WHOLE: whole})
        control = self._agreements({**self._control, WHOLE: whole_off})
        reference = f"the {self._policy.folder.kind} network restated"
        return verdict(found, control, reference, self._seed, self._gates.perturbation)

    def answer(self, part: Part, module: nn.Module, values: Values) -> Values:
        """The values of a part's outputs."""
        with torch.no_grad():
            made = module(*self.inputs(part, values).values())
        made = made if isinstance(made, tuple) else (made,)
        return {f"{part.name}.{name}": tensor for name, tensor in zip(part.outputs, made)}

    def _agreements(self, pairs: Mapping[str, list[Pair]]) -> dict[str, Agreement | GoalAgreement]:
        return {name: self._agreement(name, found) for name, found in pairs.items()}

    def _agreement(self, name: str, pairs: list[Pair]) -> Agreement | GoalAgreement:
        if name in (self._policy.result, WHOLE):
            return self._goals(pairs)
        if pairs[0][0].dtype == np.bool_:
            return compare([(a.astype(np.float32), b.astype(np.float32)) for a, b in pairs], SAME)
        return compare(pairs, self._gates.latent)

    def _goals(self, pairs: list[Pair]) -> GoalAgreement:
        affine = self._policy.folder.outputs.affine("action", self._policy.folder.action_width)
        span = self._policy.action_range.numpy()
        offset, factor = affine.offset.numpy(), affine.factor.numpy()
        if factor.ndim == 0:  # a policy that answers in the robot's units
            offset, factor = np.zeros_like(span), span / 2
        factor = np.where(factor == 0, 1, factor)
        scaled = [((a - offset) / factor, (b - offset) / factor) for a, b in pairs]
        errors = np.max([np.abs(a.astype(np.float64) - b).max(axis=0) for a, b in pairs], axis=0)
        parts = errors / np.where(span > 0, span, np.inf)
        return GoalAgreement(
            compare(scaled, self._gates.goals, STILL),
            tuple(map(float, errors)),
            float(parts.max()),
            self._gates.of_range,
        )


def draw_observations(policy: Policy, count: int, seed: int) -> list[Values]:
    """Whole observations out of thin air: frames from flat to noisy, states all over the range they had in training."""
    generator = torch.Generator().manual_seed(seed)
    low, high = training_range(policy.folder, STATE)
    acted = training_range(policy.folder, ACTIONS)
    samples = []
    for index in range(count):
        values: Values = {}
        for part in policy.parts:
            for name, example in part.inputs.items():
                port = f"{part.name}.{name}"
                kind = policy.feeds.get(port, {}).get("kind")
                if kind == "frame":
                    values[port] = _frames(example.shape, index, generator)
                elif kind == "state":
                    values[port] = low + (high - low) * torch.rand(example.shape, generator=generator)
                elif kind == "normal":
                    values[port] = torch.randn(example.shape, generator=generator)
                elif kind in ("tokens", "token_mask"):
                    values[port] = _text(policy, kind, index)
                elif kind == "committed_goals":
                    goals = torch.rand(example.shape, generator=generator)
                    values[port] = acted[0] + (acted[1] - acted[0]) * goals
                elif kind == "prefix_weights":
                    values[port] = torch.linspace(index % 3, -1, len(example)).clamp(0, 1)  # none, or some
        samples.append(values)
    return samples


def _text(policy: Policy, kind: str, index: int) -> torch.Tensor:
    """Prompts of every length, of any words."""
    assert policy.text is not None, "the policy has text where it has tokens"
    budget, vocabulary = policy.text["budget"], policy.text["vocabulary"]
    generator = torch.Generator().manual_seed(index)
    length = int(torch.randint(1, budget + 1, (), generator=generator))
    if kind == "token_mask":
        return torch.arange(budget) < length
    return torch.randint(0, vocabulary, (budget,), generator=generator)


def _frames(shape: torch.Size, index: int, generator: torch.Generator) -> torch.Tensor:
    """uint8 (height, width, 3), or several."""
    *several, height, width, _ = shape
    coarse = torch.randn(several[0] if several else 1, 3, 4, 4, generator=generator) * (60.0 * (index % 4))
    smooth = nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")
    noisy = 127.5 + smooth + 20 * torch.randn(smooth.shape, generator=generator)
    return noisy.clamp(0, 255).byte().permute(0, 2, 3, 1).reshape(shape).contiguous()
