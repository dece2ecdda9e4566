"""Makes engines of a policy's parts, whatever they are: trace, rewrite, write, verify, one part at a time."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.bundle import EngineSpec
from edge.engines import Engine, OnnxRuntimeEngine
from export.engines.calibrate import calibrate, large_projections
from export.engines.chain import GOAL_GATES, Chain, Values
from export.engines.graphs import Graph
from export.engines.package import engine_spec, write_widened
from export.engines.precision import to_bf16, to_int8
from export.engines.tensors import activation_bytes, read_bytes
from export.engines.trace import release, trace, write
from export.families.base import Stage
from export.families.lerobot.policy import Part, Policy, Static

BF16_ON_A_CPU = "; BF16 operands and results rounded, products in FP32: ONNX Runtime's CPU has no BF16 products"


@dataclass(frozen=True)
class Samples:
    """Observations to verify on, and for INT8 others to calibrate on; `source` says where they come from."""

    verification: list[Values]
    calibration: list[Values]
    source: str


class Maker:
    """Writes the engines into `folder`; what only a CPU's verification needs goes to `scratch`."""

    def __init__(
        self, policy: Policy, precision: str, samples: Samples, seed: int, folder: Path, scratch: Path, stage: Stage
    ) -> None:
        self._policy, self._precision, self._samples = policy, precision, samples
        self._folder, self._scratch, self._stage = folder, scratch, stage
        self._chain = Chain(policy, samples.verification, GOAL_GATES[precision], seed)
        self._calibration = [dict(values) for values in samples.calibration]
        self._engine = ""
        self._activations: dict[str, int] = {}
        self._reads: dict[str, int] = {}
        self.specs: dict[str, EngineSpec] = {}

    def make(self, part: Part) -> None:
        """One engine, verified before the next part is built."""
        count = len(self._samples.verification)
        advance = self._stage(f"{part.name}: torch", count + 1)
        self._chain.ask_perturbed(part, part.reference())
        advance()
        module = part.reference()
        self._chain.ask(part, module, advance)
        answers = [self._chain.answer(part, module, values) for values in self._calibration]
        del module
        spec, opened = self._write(part, part.static())
        gc.collect()  # what was traced holds itself in cycles
        for values, answer in zip(self._calibration, answers):
            values.update(answer)
        advance = self._stage(f"{part.name}: verify", count)
        engine: Engine = OnnxRuntimeEngine(opened / spec.file, spec, threads=0)
        self._chain.judge(part, engine, advance)
        self._engine, self.specs[part.name] = engine.describe(), spec

    def examples(self, count: int) -> dict[str, Any]:
        return self._chain.examples(count)

    def report(self) -> dict[str, Any]:
        """The content of `verification.json`."""
        sizes = {
            name: sum(file.stat().st_size for file in self._folder.glob(f"{spec.file}*"))
            for name, spec in self.specs.items()
        }
        return {
            **self._chain.report(),
            "precision": self._precision,
            "engine": self._engine + (BF16_ON_A_CPU if self._precision == "bf16" else ""),
            "observations": self._samples.source,
            "calibration_samples": len(self._calibration),
            "size_bytes": sizes,
            "activation_bytes": self._activations,
            "read_bytes": self._reads,
        }

    def _write(self, part: Part, static: Static) -> tuple[EngineSpec, Path]:
        """Writes the engine's file. Returns what it says of itself, and the folder of the file to verify."""
        finished = static.rows is not None
        graph = Graph(part.name, static.module, dict(part.inputs), part.outputs, static.whole, static.rows, finished)
        path, opened = self._folder / f"{part.name}.onnx", self._folder
        weights = [f"{name}.weight" for name in large_projections(graph.module)]
        ranges: dict[str, list[float]] = {}
        if self._precision == "int8":
            advance = self._stage(f"{part.name}: calibrate", 2 * len(self._calibration))
            ranges = calibrate(graph, [self._chain.inputs(part, values) for values in self._calibration], advance)
        advance = self._stage(f"{part.name}: trace", 1)
        model = trace(graph)
        if self._precision == "bf16":
            to_bf16(model, weights)
        elif self._precision == "int8":
            to_int8(model, ranges)
        self._activations[part.name] = activation_bytes(model.graph)
        self._reads[part.name] = read_bytes(model.graph)
        write(model, path)
        release(model)
        if self._precision == "bf16":  # what a CPU can verify is written beside the bundle, and thrown away
            opened = self._scratch
            write_widened(path, opened / path.name)
        advance()
        return engine_spec(self._folder, part.name), opened
