"""Opens a bundle's three engines with what the user asked for, the largest first."""

from __future__ import annotations

from edge.bundle import Bundle
from edge.engines.base import Engine, EngineError
from edge.engines.gpu import present_gpu
from edge.engines.onnxruntime_engine import OnnxRuntimeEngine, open_on_ladder
from edge.engines.tensorrt_cache import FOLDER, EngineCache, EngineKey, engine_key
from edge.engines.tensorrt_engine import CudaDevice, TensorRtEngine
from edge.engines.tensorrt_library import TensorRt, find_tensorrt

KINDS = ("auto", "onnxruntime", "onnxruntime-gpu", "tensorrt")


def open_engines(bundle: Bundle, kind: str, threads: int) -> dict[str, Engine]:
    """Engines by name. Raises `EngineError`.

    onnxruntime      on the CPU: the same everywhere
    onnxruntime-gpu  on the first of TensorRT, CUDA and CPU that each graph really gets
    tensorrt         what edge-build has built and checked on this machine
    auto             tensorrt where all three engines are there and checked, else onnxruntime
    """
    if kind == "auto":
        try:
            return _tensorrt(bundle)
        except EngineError:
            kind = "onnxruntime"
    if kind == "tensorrt":
        return _tensorrt(bundle)
    engines: dict[str, Engine] = {}
    for name in _largest_first(bundle):
        spec = bundle.manifest.engines[name]
        if kind == "onnxruntime-gpu":
            engines[name], _ = open_on_ladder(bundle.file(spec.file), spec, threads)
        else:
            engines[name] = OnnxRuntimeEngine(bundle.file(spec.file), spec, threads)
    return engines


def built_engines(bundle: Bundle) -> tuple[TensorRt, dict[str, EngineKey]]:
    """The keys of all three engines, built for this machine and checked. Raises `EngineError`; opens nothing."""
    gpu = present_gpu()
    if gpu is None:
        raise EngineError("there is no NVIDIA GPU here, or its driver is not loaded; use --engine onnxruntime")
    library, cache = find_tensorrt(), EngineCache(bundle.path / FOLDER)
    keys = {name: engine_key(bundle, name, library.name, library.version, (gpu.sm,)) for name in _largest_first(bundle)}
    for key in keys.values():
        cache.require(key)
    return library, keys


def _tensorrt(bundle: Bundle) -> dict[str, Engine]:
    library, keys = built_engines(bundle)
    cache, device = EngineCache(bundle.path / FOLDER), CudaDevice()
    return {
        name: TensorRtEngine(library, device, cache.require(key)[0], bundle.manifest.engines[name])
        for name, key in keys.items()
    }


def _largest_first(bundle: Bundle) -> list[str]:
    """What needs the most memory comes first, so that a machine too small says so at once."""

    def size(name: str) -> int:
        file = bundle.manifest.engines[name].file
        return sum(bundle.file(listed).stat().st_size for listed in bundle.manifest.files if listed.startswith(file))

    return sorted(bundle.manifest.engines, key=size, reverse=True)
