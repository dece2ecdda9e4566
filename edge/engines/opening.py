"""Opens a bundle's engines with the chosen one of the engines that are registered, the largest graph first."""

from __future__ import annotations

from edge.bundle import Bundle
from edge.engines.base import Engine, EngineDriver, EngineError
from edge.registry import Registry

AUTO, DEFAULT_ENGINE, BUILT_ENGINES = "auto", "onnxruntime", "tensorrt"
ENGINES: Registry[EngineDriver] = Registry(
    "vla_edge.engines",
    "engine",
    {
        DEFAULT_ENGINE: "edge.engines.onnxruntime_engine:OnCpu",
        "onnxruntime-gpu": "edge.engines.onnxruntime_engine:OnGpu",
        "onnxruntime-gpu-or-cpu": "edge.engines.onnxruntime_engine:OnGpuOrCpu",
        BUILT_ENGINES: "edge.engines.tensorrt_built:BuiltEngines",
    },
    EngineError,
)


def engine_choices() -> tuple[str, ...]:
    """What `--engine` takes: `auto` is what `edge-build` has built where every engine is there, else the default."""
    return (AUTO, *ENGINES.names())


def check_engines(bundle: Bundle, kind: str, threads: int) -> None:
    """Raises `EngineError` when an engine cannot run this bundle on this machine; opens nothing."""
    if kind != AUTO:
        ENGINES.load(kind)(threads).check(bundle)


def open_engines(bundle: Bundle, kind: str, threads: int) -> dict[str, Engine]:
    """Engines by name, with one of `engine_choices`. Raises `EngineError`."""
    if kind == AUTO:
        try:
            return open_engines(bundle, BUILT_ENGINES, threads)
        except EngineError:
            kind = DEFAULT_ENGINE
    return ENGINES.load(kind)(threads).open(bundle, _largest_first(bundle))


def _largest_first(bundle: Bundle) -> list[str]:
    """What needs the most memory comes first, so that a machine too small is known at once."""

    def size(name: str) -> int:
        return sum(bundle.file(file).stat().st_size for file in bundle.manifest.engines[name].files)

    return sorted(bundle.manifest.engines, key=size, reverse=True)
