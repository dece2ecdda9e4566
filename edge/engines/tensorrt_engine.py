"""Runs a built TensorRT engine: one stream, one execution context, fixed memory, one CUDA graph.

No part of this project has run it on a GPU yet; the tests that do carry the `gpu` marker.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from edge.bundle import EngineSpec
from edge.engines.base import EngineError
from edge.engines.cuda_graph import capture
from edge.engines.tensorrt_library import TensorRt, error_text

PYCUDA_FIX = (
    "pycuda is needed to run TensorRT engines: pip install 'vla-edge[tensorrt]' (it is built against CUDA here)"
)


class CudaDevice:
    """The GPU's primary context, held by the thread that made this object: CUDA contexts belong to threads.

    The primary one is what other libraries of this process use too; a context of our own would clash with theirs.
    """

    def __init__(self) -> None:
        try:
            import pycuda.driver as driver
        except ModuleNotFoundError:
            raise EngineError(PYCUDA_FIX) from None
        try:
            driver.init()
            device = driver.Device(0)
            self._context = device.retain_primary_context()
        except driver.Error as error:
            raise EngineError(f"no GPU can be used ({str(error)[:160]}); is the NVIDIA driver loaded?") from None
        self._context.push()
        self.driver, self.owner = driver, threading.get_ident()
        major, minor = device.compute_capability()
        self.sm, self.name = 10 * major + minor, device.name()

    def close(self) -> None:
        self._context.pop()
        self._context.detach()


class TensorRtEngine:
    """One engine. `inputs` and `outputs` are page-locked host arrays; a run copies in, computes and copies out.

    `shared` is the device memory of tensors that are linked to other engines: those are not copied.
    """

    def __init__(
        self,
        library: TensorRt,
        device: CudaDevice,
        plan: bytes,
        spec: EngineSpec,
        shared: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self._library, self._device = library, device
        logger, self._errors = library.logger()
        try:
            self._runtime = library.module.Runtime(logger)
        except TypeError:  # what the bindings make of a constructor that returned nothing
            raise EngineError(
                f"{library.name} does not start on {device.name} ({error_text(self._errors)}); is this GPU supported?"
            ) from None
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise EngineError(
                f"{spec.file}: {library.name} {library.version} cannot load its engine on {device.name} "
                f"({error_text(self._errors)}); delete the bundle's tensorrt folder and run edge-build on this machine"
            )
        self._check_tensors(spec)
        self._context = self._engine.create_execution_context()
        if self._context is None:
            needed = library.device_memory_bytes(self._engine) / 1e6
            raise EngineError(
                f"{spec.file}: no memory for its execution context ({needed:.0f} MB of scratch); close other programs, "
                "or export with --precision int8"
            )
        driver = device.driver
        self._stream = driver.Stream()
        self.inputs, self.outputs = (
            {one.name: driver.pagelocked_zeros(one.shape, one.dtype) for one in tensors if one.name not in shared}
            for tensors in (spec.inputs, spec.outputs)
        )
        self._memory = {name: driver.mem_alloc(array.nbytes) for name, array in {**self.inputs, **self.outputs}.items()}
        for name, memory in {**self._memory, **shared}.items():
            self._context.set_tensor_address(name, int(memory))
        self._enqueue()  # the first run allocates and loads kernels, which must not happen while a graph is recorded
        self._stream.synchronize()
        self._graph, self._without_graph = capture(self._stream.handle, self._enqueue)

    def run(self) -> None:
        if threading.get_ident() != self._device.owner:
            raise EngineError("a TensorRT engine runs on the thread that opened it")
        if self._graph is not None:
            self._graph.launch()
        else:
            self._enqueue()
        self._stream.synchronize()

    def describe(self) -> str:
        how = "CUDA graph" if self._graph is not None else self._without_graph
        return f"{self._library.name} {self._library.version} on {self._device.name}, {how}"

    @property
    def opened(self) -> Any:
        """The library's own engine, for its inspector."""
        return self._engine

    def close(self) -> None:
        """Gives all its memory back, while the context that it belongs to is still there."""
        self._stream.synchronize()
        if self._graph is not None:
            self._graph.close()
        self._graph = self._context = self._engine = self._runtime = None
        for memory in self._memory.values():
            memory.free()
        self._memory.clear()
        self.inputs, self.outputs = {}, {}  # page-locked: freed with the last reference to them

    def _enqueue(self) -> None:
        driver = self._device.driver
        for name, array in self.inputs.items():
            driver.memcpy_htod_async(self._memory[name], array, self._stream)
        if not self._context.execute_async_v3(self._stream.handle):
            raise EngineError(
                f"TensorRT did not run ({error_text(self._errors)}); run edge-build on this machine again"
            )
        for name, array in self.outputs.items():
            driver.memcpy_dtoh_async(array, self._memory[name], self._stream)

    def _check_tensors(self, spec: EngineSpec) -> None:
        """The engine must be the one the manifest describes."""
        nptype = self._library.module.nptype
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        have = {
            name: (
                np.dtype(nptype(self._engine.get_tensor_dtype(name))).name,
                tuple(self._engine.get_tensor_shape(name)),
            )
            for name in names
        }
        want = {tensor.name: (tensor.dtype, tensor.shape) for tensor in (*spec.inputs, *spec.outputs)}
        if have != want:
            raise EngineError(f"{spec.file}: its engine has {have}, the manifest says {want}; run edge-build again")
