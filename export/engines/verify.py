"""Compares the engines with FP32 torch, on the worst of many samples, and makes sure that the comparison can fail.

The reference goes through the unmodified transformers classes, not through the modules that were traced. One part of
the policy is in memory at a time: its answers are kept, the part is let go, and then its engine is asked the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edge.engines import Engine
from export.engines.observations import Sample
from export.families.action_prior.action_decoder import ActionDecoder
from export.families.action_prior.backbone import Backbone
from export.families.action_prior.flow import integrate
from export.families.layers import Projection

INPUTS = {
    "history_encoder": ("states", "actions", "mask", "embodiment"),
    "backbone": ("frames", "tokens", "token_mask", "history", "has_history", "embodiment"),
    "action_decoder": ("noise", "z", "prefix", "committed", "used"),
}
Pair = tuple[NDArray[np.float32], NDArray[np.float32]]
STILL = 0.1
"""Actions below this, in units of their own spread, are an arm that hardly moves: they have no direction to compare,
and their error is taken relative to this."""


@dataclass(frozen=True)
class Gate:
    """What an engine must keep to on its worst sample; None does not judge."""

    max_abs: float | None = None
    relative_rms: float | None = None
    cosine: float | None = None


@dataclass(frozen=True)
class Gates:
    """Gates of one precision: a single engine output, the engine that makes actions, and all three in a row.

    `perturbation` is the noise on the weights, relative to their spread, that the negative control must notice.
    """

    latent: Gate
    chunk: Gate
    whole: Gate
    perturbation: float

    def of(self, name: str) -> Gate:
        return {"action_decoder.chunk": self.chunk, "whole_chunk": self.whole}.get(name, self.latent)


# Lower precisions are held to the gates that public exports of such policies use: cosine 0.999 for a component, 0.99
# for actions. The bounds on the relative RMS error are ours: they catch a wrong length, which a cosine does not see.
LATENT, ACTION = Gate(relative_rms=0.1, cosine=0.999), Gate(relative_rms=0.14, cosine=0.99)
ROUNDED = Gates(LATENT, ACTION, ACTION, 0.5)
GATES = {
    "fp32": Gates(Gate(max_abs=1e-5), Gate(max_abs=1e-5), Gate(max_abs=1e-4), 1e-2),
    "bf16": ROUNDED,
    "int8": ROUNDED,
}


@dataclass(frozen=True)
class Agreement:
    """Worst values over all samples, and the gate they are held to."""

    samples: int
    max_abs: float
    relative_rms: float
    cosine: float
    gate: Gate

    @property
    def passed(self) -> bool:
        """Each condition is false for NaN too."""
        gate = self.gate
        return (
            (self.max_abs <= (np.inf if gate.max_abs is None else gate.max_abs))
            and (self.relative_rms <= (np.inf if gate.relative_rms is None else gate.relative_rms))
            and (self.cosine >= (-1.1 if gate.cosine is None else gate.cosine))
        )

    def to_plain(self) -> dict[str, Any]:
        """For JSON, which has no NaN: None stands for it."""
        limits = {name: value for name, value in asdict(self.gate).items() if value is not None}
        found = {"max_abs": self.max_abs, "relative_rms": self.relative_rms, "cosine": self.cosine}
        numbers = {name: value if np.isfinite(value) else None for name, value in found.items()}
        return {"samples": self.samples, **numbers, "gate": limits, "passed": self.passed}


def compare(pairs: Iterable[Pair], gate: Gate, still: float = 0.0) -> Agreement:
    """Judges pairs of (engine, reference) outputs; `still` is the RMS below which a reference has no direction."""
    errors, relative, cosines = [], [], []
    for found, wanted in pairs:
        a, b = found.astype(np.float64).ravel(), wanted.astype(np.float64).ravel()
        size = float(np.sqrt(np.mean(b**2)))
        errors.append(float(np.abs(a - b).max()))
        relative.append(float(np.sqrt(np.mean((a - b) ** 2))) / max(size, still))
        if size >= still:
            cosines.append(float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))))
    cosine = float(np.min(cosines)) if cosines else float("nan")
    return Agreement(len(errors), float(np.max(errors)), float(np.max(relative)), cosine, gate)


class Judged(Protocol):
    """A comparison with its gate."""

    @property
    def passed(self) -> bool: ...

    def to_plain(self) -> dict[str, Any]: ...


def verdict(
    found: Mapping[str, Judged], control: Mapping[str, Judged], reference: str, seed: int, perturbation: float
) -> dict[str, Any]:
    """What verification.json says: of every comparison, and of the negative control, in which each must fail."""
    caught = all(not agreement.passed for agreement in control.values())
    return {
        "passed": all(agreement.passed for agreement in found.values()) and caught,
        "reference": f"torch {torch.__version__}, float32, {reference}",
        "seed": seed,
        "agreement": {name: agreement.to_plain() for name, agreement in found.items()},
        "negative_control": {
            "what": f"the reference's weights off by {perturbation:g} of their spread; every comparison must fail",
            "caught": caught,
            "agreement": {name: agreement.to_plain() for name, agreement in control.items()},
        },
    }


class Trail:
    """Samples and the latents that one chain of parts has made of them so far."""

    def __init__(self, samples: list[Sample]) -> None:
        self.samples = [{**sample, "has_history": sample["mask"].any(dim=1)} for sample in samples]

    def follow(self, name: str, outputs: list[dict[str, torch.Tensor]]) -> None:
        """Hands an engine's latents on to the next one."""
        renamed = {"history_encoder": ("z_history", "history"), "backbone": ("z", "z")}
        if name in renamed:
            output, becomes = renamed[name]
            for sample, made in zip(self.samples, outputs):
                sample[becomes] = made[output]


class Verification:
    """Collects the answers of torch and of the engines, part by part in the order in which they run."""

    def __init__(self, samples: list[Sample], steps: int, gates: Gates, seed: int) -> None:
        self.steps, self.gates, self.seed = steps, gates, seed
        # Where every number must agree, those that nobody uses must as well: a copied prefix, a slot that stays zero.
        self._judged = everything if gates.chunk.max_abs is not None else in_use
        controls = samples[: max(1, len(samples) // 4)]
        self.reference, self.engine, self.control = Trail(samples), Trail(samples), Trail(controls)
        self._wanted: dict[str, list[dict[str, torch.Tensor]]] = {}
        self._off: dict[str, list[dict[str, torch.Tensor]]] = {}
        self._pairs: dict[str, list[Pair]] = {}
        self._control_pairs: dict[str, list[Pair]] = {}
        self._whole: list[NDArray[Any]] = []
        self._whole_off: list[NDArray[Any]] = []

    def query_perturbed(self, name: str, part: nn.Module) -> None:
        """What a part with slightly wrong weights answers. Changes the part."""
        perturb(part, self.gates.perturbation, self.seed)
        count = len(self.control.samples)
        self._off[name] = [answer(part, sample, self.steps) for sample in self.reference.samples[:count]]
        chained = [answer(part, sample, self.steps) for sample in self.control.samples]
        self.control.follow(name, chained)
        if name == "action_decoder":
            samples = self.control.samples
            self._whole_off = [self._judged(sample, made["chunk"].numpy()) for sample, made in zip(samples, chained)]

    def query(self, name: str, part: nn.Module, advance: Callable[[], object]) -> None:
        """What the part itself answers."""
        self._wanted[name] = []
        for sample in self.reference.samples:
            self._wanted[name].append(answer(part, sample, self.steps))
            advance()

    def judge(self, name: str, engine: Engine, advance: Callable[[], object]) -> None:
        """Asks the engine the same, and once more with the latents of the engines before it."""
        chained = []
        for index, (sample, own) in enumerate(zip(self.reference.samples, self.engine.samples)):
            found = run_engine(engine, sample)
            for output, array in found.items():
                key, array = f"{name}.{output}", self._judged(sample, array)
                wanted = self._judged(sample, self._wanted[name][index][output].numpy())
                self._pairs.setdefault(key, []).append((array, wanted))
                if index < len(self._off[name]):
                    off = self._judged(sample, self._off[name][index][output].numpy())
                    self._control_pairs.setdefault(key, []).append((array, off))
            chained.append({key: torch.from_numpy(array) for key, array in run_engine(engine, own).items()})
            advance()
        self.reference.follow(name, self._wanted[name])
        self.engine.follow(name, chained)
        if name == "action_decoder":
            samples = self.reference.samples
            self._whole = [self._judged(sample, made["chunk"].numpy()) for sample, made in zip(samples, chained)]

    def examples(self, count: int) -> dict[str, NDArray[Any]]:
        """The first samples with torch's answers, keyed `engine/number/input|output/tensor`."""
        arrays = {}
        for name, answers in self._wanted.items():
            for number, (sample, wanted) in enumerate(list(zip(self.reference.samples, answers))[:count]):
                inputs = {key: sample[key] for key in INPUTS[name]}
                for kind, tensors in (("input", inputs), ("output", wanted)):
                    arrays.update({f"{name}/{number}/{kind}/{key}": value.numpy() for key, value in tensors.items()})
        return arrays

    def report(self) -> dict[str, Any]:
        """Agreement of every engine output and of the whole chunk, and the negative control."""
        wanted = [right for _, right in self._pairs["action_decoder.chunk"]]
        found = self._agreements({**self._pairs, "whole_chunk": list(zip(self._whole, wanted))})
        control = self._agreements({**self._control_pairs, "whole_chunk": list(zip(self._whole, self._whole_off))})
        return verdict(found, control, "unmodified transformers classes", self.seed, self.gates.perturbation)

    def _agreements(self, pairs: dict[str, list[Pair]]) -> dict[str, Agreement]:
        return {
            name: compare(found, self.gates.of(name), 0.0 if name.endswith((".z", ".z_history")) else STILL)
            for name, found in pairs.items()
        }


def everything(sample: Sample, array: NDArray[Any]) -> NDArray[Any]:
    return array


def in_use(sample: Sample, array: NDArray[Any]) -> NDArray[Any]:
    """Of actions (1, horizon, slots) those that matter, (actions not yet committed, slots in use); else all.

    What the field says of other slots and of committed actions was never trained, and no engine uses it.
    """
    if array.ndim < 3:
        return array
    return array[0][~sample["committed"][0].numpy()][:, sample["used"][0].numpy() > 0]


@torch.no_grad()
def answer(part: nn.Module, sample: Sample, steps: int) -> dict[str, torch.Tensor]:
    """What one part of the policy makes of a sample, by the names of its engine's outputs."""
    if isinstance(part, ActionDecoder):
        noise, z, prefix, committed, used = (sample[name] for name in INPUTS["action_decoder"])
        start = torch.where(committed[..., None], prefix, noise * used[:, None])
        field = part.velocity_field(z, steps)
        chunk = integrate(field, noise, prefix, committed, used, steps)
        return {"chunk": chunk, "first_velocity": field(start, committed.float())}
    if isinstance(part, Backbone):
        return {"z": part(*(sample[name] for name in INPUTS["backbone"]))}
    return {"z_history": part(*(sample[name] for name in INPUTS["history_encoder"]))}


def run_engine(engine: Engine, sample: Sample) -> dict[str, NDArray[Any]]:
    """Fills the inputs from the sample by name; returns copies of the outputs."""
    for name, array in engine.inputs.items():
        array[:] = sample[name].numpy()
    engine.run()
    return {name: array.copy() for name, array in engine.outputs.items()}


@torch.no_grad()
def perturb(part: nn.Module, relative: float, seed: int) -> None:
    """Puts every weight slightly off, in place: the comparison must notice in every engine."""
    generator = torch.Generator().manual_seed(seed)
    projections = [module.weight for module in part.modules() if isinstance(module, Projection)]
    for weights in (*part.parameters(), *projections):
        weights.add_(relative * weights.std(correction=0) * torch.randn(weights.shape, generator=generator))
