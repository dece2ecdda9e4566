"""Makes a bundle from a checkpoint: trace, open, verify, write the manifest; whole or not at all."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx

from edge.bundle import (
    MANIFEST,
    TOKENIZER,
    VERIFICATION,
    EmbodimentSpec,
    EngineSpec,
    Manifest,
    PolicyShape,
    SlotScaling,
    TensorSpec,
    sha256,
)
from edge.engines import Engine, OnnxRuntimeEngine
from export.engines.graphs import Graph, backbone_graph, decoder_graph, history_graph
from export.engines.trace import trace
from export.engines.verify import verification
from export.policy.checkpoint import Checkpoint
from export.policy.config import PolicyConfig
from export.policy.embodiment import Embodiment, SlotStatistics

ONNX_TYPES = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.INT64: "int64",
    onnx.TensorProto.BOOL: "bool",
}


def export_bundle(
    checkpoint: Checkpoint,
    checkpoint_file: Path,
    out: Path,
    steps: int,
    samples: int,
    seed: int,
    created_by: str,
    stage: Callable[[str, int], Callable[[], None]],
) -> dict[str, Any]:
    """Writes the bundle and returns the verification; `stage(name, size)` starts a stage and returns its `advance`.

    The folder `out` appears when everything in it is complete; one that stood there before is replaced.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
        folder = Path(scratch) / "bundle"
        folder.mkdir()
        specs: dict[str, EngineSpec] = {}
        for make in (history_graph, backbone_graph, lambda policy: decoder_graph(policy, steps)):
            graph = make(checkpoint.build())  # one part at a time; the traced copy is thrown away
            advance = stage(f"trace {graph.name}", 1)
            trace(graph, folder)
            specs[graph.name] = engine_spec(folder, graph)
            advance()
        advance = stage("open engines", len(specs))
        engines: dict[str, Engine] = {}
        for name, spec in specs.items():
            engines[name] = OnnxRuntimeEngine(folder / spec.file, spec, threads=0)
            advance()
        advance = stage("verify", samples + max(1, samples // 4))
        report = verification(engines, checkpoint.build(), steps, samples, seed, advance)
        (folder / VERIFICATION).write_text(json.dumps(report, indent=2) + "\n")
        (folder / TOKENIZER).write_text(checkpoint.tokenizer or "")
        manifest = Manifest(
            policy=policy_shape(checkpoint.config, steps),
            embodiments=tuple(_embodiment(arm) for arm in checkpoint.embodiments),
            engines=specs,
            precision="fp32",
            checkpoint_sha256=sha256(checkpoint_file),
            created_by=created_by,
            files={path.name: sha256(path) for path in sorted(folder.iterdir())},
        )
        (folder / MANIFEST).write_text(manifest.to_json())
        _replace(folder, out)
    return report


def policy_shape(config: PolicyConfig, steps: int) -> PolicyShape:
    return PolicyShape(
        horizon=config.horizon,
        history=config.history,
        action_slots=config.action_slots,
        state_slots=config.state_slots,
        latent=config.latent,
        cameras=config.cameras,
        frame_px=config.frame_px,
        token_budget=config.token_budget,
        flow_steps=steps,
        noise_scale=config.noise_scale,
        max_delay=config.max_delay,
    )


def engine_spec(folder: Path, graph: Graph) -> EngineSpec:
    """What the written file itself says of its inputs and outputs."""
    model = onnx.load(str(folder / f"{graph.name}.onnx"), load_external_data=False)

    def specs(values: Any) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(
                value.name,
                ONNX_TYPES[value.type.tensor_type.elem_type],
                tuple(int(dimension.dim_value) for dimension in value.type.tensor_type.shape.dim),
            )
            for value in values
        )

    return EngineSpec(f"{graph.name}.onnx", specs(model.graph.input), specs(model.graph.output))


def _embodiment(arm: Embodiment) -> EmbodimentSpec:
    return EmbodimentSpec(
        name=arm.name,
        index=arm.index,
        step_s=arm.step_s,
        joints=arm.joints,
        actions=_scaling(arm.actions),
        states=_scaling(arm.states),
    )


def _scaling(statistics: SlotStatistics) -> SlotScaling:
    return SlotScaling(statistics.slots, statistics.offset, statistics.scale)


def _replace(folder: Path, out: Path) -> None:
    old = folder.parent / "replaced"
    if out.exists():
        out.rename(old)
    folder.rename(out)
    shutil.rmtree(old, ignore_errors=True)
