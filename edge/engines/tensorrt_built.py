"""The engines that `edge-build` has built for this machine, and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge.bundle import Bundle
from edge.engines.base import Engine, EngineDriver, EngineError
from edge.engines.gpu import present_gpu
from edge.engines.tensorrt_cache import FOLDER, EngineCache, EngineKey, engine_key
from edge.engines.tensorrt_engine import CudaDevice, TensorRtEngine
from edge.engines.tensorrt_library import TensorRt, find_tensorrt


@dataclass(frozen=True)
class BuiltEngines(EngineDriver):
    """TensorRT, with what `edge-build` has left beside the bundle."""

    def check(self, bundle: Bundle) -> None:
        _find(bundle, tuple(bundle.manifest.engines))

    def open(self, bundle: Bundle, names: Sequence[str]) -> dict[str, Engine]:
        library, keys = _find(bundle, names)
        cache, device = EngineCache(bundle.path / FOLDER), CudaDevice()
        return {
            name: TensorRtEngine(library, device, cache.require(key)[0], bundle.manifest.engines[name])
            for name, key in keys.items()
        }


def _find(bundle: Bundle, names: Sequence[str]) -> tuple[TensorRt, dict[str, EngineKey]]:
    """The keys of engines that were built for this machine and checked. Raises `EngineError`."""
    gpu = present_gpu()
    if gpu is None:
        raise EngineError("there is no NVIDIA GPU here, or its driver is not loaded; use --engine onnxruntime")
    library, cache = find_tensorrt(), EngineCache(bundle.path / FOLDER)
    keys = {name: engine_key(bundle, name, library.name, library.version, (gpu.sm,)) for name in names}
    for key in keys.values():
        cache.require(key)
    return library, keys
