"""What a trained policy does: the runtime and the firmware in lockstep with the physics, the policy behind them.

The policy is its exported engines, or, where nothing can be exported, the same modules in torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray

from bench.evaluate import EvaluationSettings, evaluate
from edge.arms import load_arm
from edge.bundle import TOKENIZER, Bundle, EngineSpec, TensorSpec, load_bundle, sha256
from edge.bundle.manifest import Dtype
from edge.errors import VlaEdgeError
from edge.policy.base import open_policy
from edge.policy.graph_policy import GraphPolicy
from edge.policy.prompt import Prompter
from export.engines.graphs import ENGINES, Graph, graph_of, part_of
from export.engines.observations import draw_samples
from export.engines.package import Origin, Recipe, export_bundle, own_manifest
from export.families.action_prior.checkpoint import Checkpoint, load_checkpoint
from lab.prior.scale import Scale

Engines = Literal["exported", "torch"]
ARM = "franka"
VERIFIED_ON = 4
"""Observations that a bundle is held against torch with; a shipped one sees more."""


def play(checkpoint: Path, engines: Engines, scale: Scale) -> dict[str, Any]:
    """Episodes in unseen scenes, the same for every run, each cube in turn. Raises `VlaEdgeError`.

    `done` has a text for each duration, in it one digit for each scene: 1 where the cube is reached by then.
    """
    policy = load_checkpoint(checkpoint)
    settings = EvaluationSettings(None, ARM, scale.episodes, scale.durations_s, threads=1)
    if engines == "exported":
        found = evaluate(settings, _exported(checkpoint, policy), open_policy)
    else:

        def made() -> dict[str, TorchEngine]:
            return {name: TorchEngine(_graph(name, policy)) for name in ENGINES}

        def in_torch(bundle: Bundle, arm: str, task: str, threads: int) -> GraphPolicy:
            # engines of its own: a policy writes its task into their inputs once, when it is opened
            return _policy(bundle, arm, task, made())

        found = evaluate(settings, _unexported(checkpoint, policy, made()), in_torch)
    return {
        "engines": engines,
        "episodes": found.episodes,
        "durations_s": list(scale.durations_s),
        "done": ["".join(str(int(row.done_at[at])) for row in found.rows) for at in range(len(scale.durations_s))],
        "distance_mm": [round(1000 * row.verdict.distance_m, 1) for row in found.rows],
        "interventions": sum(row.interventions for row in found.rows),
        "refused": sum(len(row.refused) for row in found.rows),
        "stopped": sum(row.stop is not None for row in found.rows),
    }


def _exported(checkpoint: Path, policy: Checkpoint) -> Bundle:
    """Exports as `edge-export` does, beside the checkpoint."""
    samples = draw_samples(policy.config, VERIFIED_ON, 0, policy.embodiments)
    recipe = Recipe("fp32", policy.config.flow_steps, 0, samples, [], "synthetic")
    origin = Origin(sha256(checkpoint), "edge-bench prior", policy.embodiments, policy.tokenizer or "")
    out = checkpoint.parent / "bundle"
    report = export_bundle(policy, recipe, origin, out, lambda name, size: lambda: None)
    if not report["passed"]:
        raise VlaEdgeError(f"{checkpoint}: the exported engines do not match the policy, see {out}/verification.json")
    return load_bundle(out)


class TorchEngine:
    """The module behind an engine, in eager torch."""

    def __init__(self, graph: Graph) -> None:
        self._module = graph.whole
        self.inputs: dict[str, NDArray[Any]] = {name: one.numpy().copy() for name, one in graph.inputs.items()}
        self._given = [torch.from_numpy(array) for array in self.inputs.values()]
        with torch.inference_mode():
            self.outputs = {name: one.numpy().copy() for name, one in zip(graph.outputs, self._answers())}

    def run(self) -> None:
        with torch.inference_mode():
            for into, one in zip(self.outputs.values(), self._answers()):
                np.copyto(into, one.numpy())

    def describe(self) -> str:
        return f"torch {torch.__version__}, CPU"

    def _answers(self) -> tuple[torch.Tensor, ...]:
        found = self._module(*self._given)
        return found if isinstance(found, tuple) else (found,)


def _graph(name: str, policy: Checkpoint) -> Graph:
    return graph_of(name, policy.part(part_of(name, policy.config)), policy.config.flow_steps)


def _unexported(checkpoint: Path, policy: Checkpoint, engines: dict[str, TorchEngine]) -> Bundle:
    """What the runtime reads of a bundle, without engines in it."""
    folder = checkpoint.parent
    (folder / TOKENIZER).write_text(policy.tokenizer or "")
    origin = Origin(sha256(checkpoint), "edge-bench prior", policy.embodiments, policy.tokenizer or "")
    specs = {name: EngineSpec("torch", _tensors(one.inputs), _tensors(one.outputs)) for name, one in engines.items()}
    return Bundle(folder, own_manifest(policy.config, specs, "fp32", origin, {}))


def _tensors(arrays: dict[str, NDArray[Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, cast(Dtype, array.dtype.name), array.shape) for name, array in arrays.items())


def _policy(bundle: Bundle, arm: str, task: str, engines: dict[str, TorchEngine]) -> GraphPolicy:
    profile, text = load_arm(arm), bundle.manifest.text
    prompter = Prompter(text, bundle.file(text.tokenizer), task) if text is not None else None
    return GraphPolicy(bundle, bundle.arm(profile.embodiment, profile.joints), profile, dict(engines), prompter)
