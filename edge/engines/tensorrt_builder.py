"""Builds one engine from one graph. Precision is in the graph, so there is nothing to choose but where it will run."""

from __future__ import annotations

import collections
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.engines.base import EngineError
from edge.engines.tensorrt_library import TensorRt, error_text

OUT_OF_MEMORY = ("out of memory", "outofmemory", "cudaerrormemoryallocation", "std::bad_alloc")


@dataclass(frozen=True)
class BuildSettings:
    """`sm` names the GPUs to build for; empty means the one in this machine. `workspace_bytes` bounds the tactics."""

    sm: tuple[int, ...]
    workspace_bytes: int
    timing_cache: Path | None


@dataclass(frozen=True)
class BuiltEngine:
    """A serialized engine. `scratch_bytes` and `layers` are empty where there was no GPU to open it on."""

    plan: bytes
    scratch_bytes: int
    layers: dict[str, int]
    build_s: float


def build_engine(library: TensorRt, graph: Path, settings: BuildSettings) -> BuiltEngine:
    """Parses and builds. Raises `EngineError`: the graph, the memory, or a GPU that the library does not build for."""
    trt = library.module
    logger, errors = library.logger()
    try:
        builder = trt.Builder(logger)
    except TypeError:  # what the bindings make of a constructor that returned nothing
        raise EngineError(
            f"{library.name} does not start ({error_text(errors)}); is the NVIDIA driver loaded, and new enough for it?"
        ) from None
    network = builder.create_network(library.network_flags())
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        first = parser.get_error(0).desc() if parser.num_errors else error_text(errors)
        raise EngineError(
            f"{graph.name}: {library.name} {library.version} does not take it ({' '.join(str(first).split())[:200]}); "
            "export the checkpoint again with this version of vla-edge"
        )
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # what the graph calls FP32 is FP32
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_bytes)
    _aim(library, config, settings.sm)
    timing = _timing_cache(config, settings.timing_cache) if not library.is_rtx else None
    started = time.monotonic()
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(_why(graph, library, errors))
    if timing is not None and settings.timing_cache is not None:
        settings.timing_cache.parent.mkdir(parents=True, exist_ok=True)
        settings.timing_cache.write_bytes(bytes(timing.serialize()))
    return BuiltEngine(bytes(plan), 0, {}, time.monotonic() - started)


def _aim(library: TensorRt, config: Any, sm: tuple[int, ...]) -> None:
    if not sm:
        return
    trt = library.module
    if not library.is_rtx:
        raise EngineError(f"{library.name} builds for the GPU it runs on only; leave out --sm, or use TensorRT-RTX")
    known = {name.removeprefix("SM"): value for name, value in trt.ComputeCapability.__members__.items()}
    missing = [number for number in sm if str(number) not in known]
    if missing:
        have = ", ".join(name for name in known if name.isdigit())
        raise EngineError(
            f"TensorRT-RTX {library.version} does not build for SM {', '.join(map(str, missing))}; it knows {have}. "
            "A Jetson's engine is built on the Jetson, with JetPack's TensorRT"
        )
    config.num_compute_capabilities = len(sm)
    for index, number in enumerate(sm):
        config.set_compute_capability(known[str(number)], index)


def _timing_cache(config: Any, path: Path | None) -> Any:
    held = path.read_bytes() if path is not None and path.is_file() else b""
    cache = config.create_timing_cache(held)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        cache = config.create_timing_cache(b"")  # of another TensorRT or GPU: begin anew
        config.set_timing_cache(cache, ignore_mismatch=False)
    return cache


def _why(graph: Path, library: TensorRt, errors: list[str]) -> str:
    text = " ".join(errors).lower()
    if any(sign in text for sign in OUT_OF_MEMORY):
        return (
            f"{graph.name}: not enough memory to build it; close other programs, add swap, lower --workspace-mb, or "
            "export with --precision int8 (edge-build --dry-run shows the arithmetic)"
        )
    return f"{graph.name}: {library.name} {library.version} cannot build it ({error_text(errors)})"


def layer_types(library: TensorRt, engine: Any) -> dict[str, int]:
    """How many layers of the opened engine write which type, as its inspector reads them back."""
    inspector = engine.create_engine_inspector()
    document = json.loads(inspector.get_engine_information(library.module.LayerInformationFormat.JSON))
    counted: collections.Counter[str] = collections.Counter()
    for layer in document.get("Layers", []):
        outputs = layer.get("Outputs", []) if isinstance(layer, dict) else []
        counted.update({str(output.get("Format/Datatype", "?")).split()[-1] for output in outputs})
    return dict(counted)
