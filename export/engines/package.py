"""Makes a bundle: trace, rewrite, verify, write the manifest; one part at a time, whole or not at all."""

from __future__ import annotations

import gc
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from edge.bundle import (
    ACTION_PRIOR,
    MANIFEST,
    REFERENCE,
    TOKENIZER,
    VERIFICATION,
    ActionNumber,
    ArmSpec,
    AxisSpec,
    CameraSpec,
    EngineSpec,
    Feed,
    GraphSpec,
    Manifest,
    PolicySpec,
    StateNumber,
    TensorSpec,
    TextSpec,
    Training,
    sha256,
)
from edge.bundle.manifest import Dtype
from edge.engines import Engine, OnnxRuntimeEngine
from export.engines.calibrate import calibrate, large_projections
from export.engines.graphs import ENGINES, Graph, graph_of, part_of
from export.engines.observations import Sample
from export.engines.precision import embedding_to_bf16, to_bf16, to_int8, widen_bf16
from export.engines.static_backbone import EMBEDDING
from export.engines.tensors import activation_bytes, read_bytes
from export.engines.trace import release, trace, write
from export.engines.verify import GATES, Trail, Verification, answer
from export.families.action_prior.config import PolicyConfig
from export.families.action_prior.embodiment import Embodiment, SlotStatistics
from export.families.action_prior.parts import PolicyParts
from export.families.base import Stage

ONNX_TYPES: dict[int, Dtype] = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.INT64: "int64",
    onnx.TensorProto.BOOL: "bool",
}
REFERENCE_SAMPLES = 4


@dataclass(frozen=True)
class Recipe:
    """What to make of the parts; `calibration` holds observations for INT8, `samples` those to verify on."""

    precision: str
    steps: int
    seed: int
    samples: list[Sample]
    calibration: list[Sample]
    observations: str
    """Where the samples come from, for the report."""


@dataclass(frozen=True)
class Origin:
    """What the manifest says of where a bundle comes from."""

    weights_sha256: str
    created_by: str
    embodiments: tuple[Embodiment, ...]
    tokenizer: str
    source: str = "checkpoint.pt"
    cameras: tuple[str, ...] = ()
    """Their names, in the policy's order; numbered where nothing names them."""
    task: str = ""
    """What the policy does when nobody says it."""


def export_bundle(parts: PolicyParts, recipe: Recipe, origin: Origin, out: Path, stage: Stage) -> dict[str, Any]:
    """Writes the bundle and returns the verification.

    The folder `out` appears when everything in it is complete; one that stood there before is replaced.
    """
    with whole_folder(out) as (folder, scratch):
        maker = _Maker(parts, recipe, folder, scratch, stage)
        specs = {name: maker.make(name) for name in ENGINES}
        report = maker.report(specs)
        (folder / VERIFICATION).write_text(json.dumps(report, indent=2) + "\n")
        (folder / TOKENIZER).write_text(origin.tokenizer)
        np.savez_compressed(folder / REFERENCE, **maker.reference())
        files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
        manifest = own_manifest(parts.config, specs, recipe.precision, origin, files)
        (folder / MANIFEST).write_text(manifest.to_json())
    return report


@contextmanager
def whole_folder(out: Path) -> Iterator[tuple[Path, Path]]:
    """A folder to fill, which becomes `out` once the block ends without an error, and a scratch folder beside it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
        folder = Path(scratch) / "bundle"
        folder.mkdir()
        yield folder, Path(scratch)
        _replace(folder, out)


class _Maker:
    """Makes the engines in the order in which they run; each is verified before the next part is built."""

    def __init__(self, parts: PolicyParts, recipe: Recipe, folder: Path, scratch: Path, stage: Stage) -> None:
        self._parts, self._recipe, self._folder, self._scratch, self._stage = parts, recipe, folder, scratch, stage
        self._verification = Verification(recipe.samples, recipe.steps, GATES[recipe.precision], recipe.seed)
        self._calibration = Trail(recipe.calibration)
        self._engine = ""
        self._activations: dict[str, int] = {}
        self._reads: dict[str, int] = {}

    def make(self, name: str) -> EngineSpec:
        recipe, part_name = self._recipe, part_of(name, self._parts.config)
        advance = self._stage(f"{name}: torch", len(recipe.samples) + 1)
        self._verification.query_perturbed(name, self._parts.part(part_name))
        advance()
        part = self._parts.part(part_name)
        self._verification.query(name, part, advance)
        latents = [answer(part, sample, recipe.steps) for sample in self._calibration.samples]
        graph = graph_of(name, part, recipe.steps)
        del part
        spec, opened = self._write(graph)
        del graph
        gc.collect()  # what was traced holds itself in cycles
        advance = self._stage(f"{name}: verify", len(recipe.samples))
        engine: Engine = OnnxRuntimeEngine(opened / spec.file, spec, threads=0)
        self._verification.judge(name, engine, advance)
        self._engine = engine.describe()
        self._calibration.follow(name, latents)
        return spec

    def reference(self) -> dict[str, Any]:
        """A few samples with torch's answers, keyed `engine/number/input|output/tensor`."""
        return self._verification.examples(REFERENCE_SAMPLES)

    def report(self, specs: dict[str, EngineSpec]) -> dict[str, Any]:
        """The content of `verification.json`."""
        how = {"bf16": "; BF16 operands and results rounded, products in FP32: ONNX Runtime's CPU has no BF16 products"}
        sizes = {
            name: sum(file.stat().st_size for file in self._folder.glob(f"{spec.file}*"))
            for name, spec in specs.items()
        }
        return {
            **self._verification.report(),
            "precision": self._recipe.precision,
            "engine": self._engine + how.get(self._recipe.precision, ""),
            "observations": self._recipe.observations,
            "calibration_samples": len(self._recipe.calibration),
            "size_bytes": sizes,
            "activation_bytes": self._activations,
            "read_bytes": self._reads,
        }

    def _write(self, graph: Graph) -> tuple[EngineSpec, Path]:
        """Writes the engine's file. Returns what it says of itself, and the folder of the file to verify."""
        precision = self._recipe.precision
        path, opened = self._folder / f"{graph.name}.onnx", self._folder
        weights = [f"{name}.weight" for name in large_projections(graph.module)]
        ranges: dict[str, list[float]] = {}
        if precision == "int8":
            advance = self._stage(f"{graph.name}: calibrate", 2 * len(self._calibration.samples))
            ranges = calibrate(graph, self._calibration.samples, advance)
        advance = self._stage(f"{graph.name}: trace", 1)
        model = trace(graph)
        if precision == "bf16":
            to_bf16(model, weights)
        elif precision == "int8":
            to_int8(model, ranges)
        if precision != "fp32" and graph.name == "backbone":
            embedding_to_bf16(model, EMBEDDING)
        self._activations[graph.name] = activation_bytes(model.graph)
        self._reads[graph.name] = read_bytes(model.graph)
        write(model, path)
        release(model)
        if precision == "bf16":  # what a CPU can verify is written beside the bundle, and thrown away
            opened = self._scratch
            write_widened(path, opened / path.name)
        advance()
        return engine_spec(self._folder, graph.name), opened


def write_widened(path: Path, out: Path) -> None:
    """Writes what a BF16 engine's file computes in a form that a CPU can run."""
    model = ir.load(path)
    widen_bf16(model)
    write(model, out)


EXECUTE_STEPS = 5
"""Of a chunk, before the next one is requested."""
GRAPH_LINKS = (("history_encoder.z_history", "backbone.history"), ("backbone.z", "action_decoder.z"))


def own_manifest(
    config: PolicyConfig, engines: dict[str, EngineSpec], precision: str, origin: Origin, files: dict[str, str]
) -> Manifest:
    """The project's own policy: three engines, joints in slots, increments, and a prefix that is kept."""
    return Manifest(
        policy=PolicySpec(
            family=ACTION_PRIOR,
            horizon=config.horizon,
            precision=precision,
            source=origin.source,
            history=config.history,
            execute=min(EXECUTE_STEPS, config.horizon - 1),
            prefix="frozen",
            max_delay=config.max_delay,
        ),
        graph=GraphSpec(engines, GRAPH_LINKS, own_feeds(config), "action_decoder.chunk"),
        cameras=tuple(
            CameraSpec(name, *config.frame_px, fit="crop") for name in origin.cameras or numbered(config.cameras)
        ),
        arms=tuple(arm_spec(arm, config.action_slots) for arm in origin.embodiments),
        checkpoint_sha256=origin.weights_sha256,
        created_by=origin.created_by,
        files=files,
        text=TextSpec(TOKENIZER, config.token_budget, task=origin.task),
    )


def own_feeds(config: PolicyConfig) -> dict[str, Feed]:
    """What fills every input that no link does."""
    return {
        "history_encoder.states": Feed("state_history"),
        "history_encoder.actions": Feed("action_history"),
        "history_encoder.mask": Feed("history_mask"),
        "history_encoder.embodiment": Feed("constant", name="embodiment"),
        "backbone.frames": Feed("frames"),
        "backbone.tokens": Feed("tokens"),
        "backbone.token_mask": Feed("token_mask"),
        "backbone.has_history": Feed("has_history"),
        "backbone.embodiment": Feed("constant", name="embodiment"),
        "action_decoder.noise": Feed("normal", scale=config.noise_scale, axes_only=True),
        "action_decoder.prefix": Feed("committed_goals"),
        "action_decoder.committed": Feed("committed_mask"),
        "action_decoder.used": Feed("constant", name="used"),
    }


def numbered(count: int) -> tuple[str, ...]:
    """Names for the cameras of a checkpoint that has none."""
    return tuple(str(number) for number in range(1, count + 1))


def engine_spec(folder: Path, name: str) -> EngineSpec:
    """What the written file itself says of its inputs and outputs."""
    model = onnx.load(str(folder / f"{name}.onnx"), load_external_data=False)

    def specs(values: Any) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(
                value.name,
                ONNX_TYPES[value.type.tensor_type.elem_type],
                tuple(int(dimension.dim_value) for dimension in value.type.tensor_type.shape.dim),
            )
            for value in values
        )

    return EngineSpec(f"{name}.onnx", specs(model.graph.input), specs(model.graph.output))


def arm_spec(arm: Embodiment, action_slots: int) -> ArmSpec:
    """An arm with its statistics: normalisation of the joints, and their place in the slots."""
    states = (StateNumber(slot, "arm", offset, scale) for slot, offset, scale in _rows(arm.states))
    actions = (ActionNumber(slot, "increment", "arm", offset, scale) for slot, offset, scale in _rows(arm.actions))
    used = set(arm.actions.slots)
    return ArmSpec(
        name=arm.name,
        step_s=arm.step_s,
        axes=tuple(AxisSpec(*axis) for axis in zip(arm.joints, states, actions, strict=True)),
        constants={
            "embodiment": (float(arm.index),),
            "used": tuple(float(slot in used) for slot in range(action_slots)),
        },
        training=Training(state_mean=tuple(arm.states.offset), state_spread=tuple(arm.states.scale)),
    )


def _rows(statistics: SlotStatistics) -> Iterator[tuple[int, float, float]]:
    yield from zip(statistics.slots, map(float, statistics.offset), map(float, statistics.scale), strict=True)


def _replace(folder: Path, out: Path) -> None:
    old = folder.parent / "replaced"
    if out.exists():
        out.rename(old)
    folder.rename(out)
    shutil.rmtree(old, ignore_errors=True)
