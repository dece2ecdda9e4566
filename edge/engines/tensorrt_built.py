"""The engines that `edge-build` has built for this machine, and checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

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
        shared = _link_buffers(bundle, names, device)
        return {
            name: TensorRtEngine(library, device, cache.require(key)[0], bundle.manifest.engines[name], shared[name])
            for name, key in keys.items()
        }


def _link_buffers(bundle: Bundle, names: Sequence[str], device: CudaDevice) -> dict[str, dict[str, Any]]:
    """Of each engine the tensors that are linked, with the device memory that both ends of a link use."""
    graph, found = bundle.manifest.graph, {name: dict[str, Any]() for name in names}
    memory: dict[str, Any] = {}
    for source, target in graph.links:
        (maker, _, output), (taker, _, taken) = source.partition("."), target.partition(".")
        if source == graph.result or maker not in found or taker not in found:
            continue
        if source not in memory:
            tensor = next(one for one in graph.engines[maker].outputs if one.name == output)
            memory[source] = device.driver.mem_alloc(math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize)
        found[maker][output] = found[taker][taken] = memory[source]
    return found


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
