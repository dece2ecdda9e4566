"""What runs under a TensorRT engine, without TensorRT: the primary context, page-locked memory, a recorded graph; and
ONNX Runtime's CUDA provider."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from edge.bundle import load_bundle
from edge.engines import OnnxRuntimeEngine
from edge.engines.cuda_graph import capture
from edge.engines.gpu import present_gpu
from edge.engines.parity import check_engine

ENGINES = ("backbone", "history_encoder", "action_decoder")


@pytest.mark.gpu
def test_a_recorded_graph_replays_with_what_stands_in_memory_now() -> None:
    pytest.importorskip("pycuda", reason="pycuda is compiled against the CUDA that is there")
    from edge.engines.tensorrt_engine import CudaDevice

    device, gpu = CudaDevice(), present_gpu()
    assert gpu is not None and (gpu.sm, gpu.name) == (device.sm, device.name)
    try:
        _replays(device.driver)  # what it allocates is gone before the context is
    finally:
        device.close()


def _replays(driver: Any) -> None:
    stream, runs = driver.Stream(), 0
    given, got = (driver.pagelocked_zeros((3, 5), "float32") for _ in range(2))
    first, second = (driver.mem_alloc(given.nbytes) for _ in range(2))

    def work() -> None:
        nonlocal runs
        runs += 1
        driver.memcpy_htod_async(first, given, stream)
        driver.memcpy_dtod_async(second, first, given.nbytes, stream)
        driver.memcpy_dtoh_async(got, second, stream)

    graph, reason = capture(stream.handle, work)
    assert graph is not None, reason
    stream.synchronize()
    assert not got.any(), "recording computes nothing"
    for number in (1.0, -2.0):
        given[:] = number
        graph.launch()
        stream.synchronize()
        assert np.array_equal(got, given)
    assert runs == 1
    graph.close()


@pytest.mark.gpu
@pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers(), reason="onnxruntime-gpu is not installed"
)
def test_the_cuda_provider_matches_torch_and_the_cpu(bundle_path: Path) -> None:
    bundle = load_bundle(bundle_path)
    for name in ENGINES:
        spec = bundle.manifest.engines[name]
        engine = OnnxRuntimeEngine(bundle.file(spec.file), spec, threads=1, provider="cuda")
        assert engine.describe().endswith("CUDAExecutionProvider")
        found = check_engine(bundle, name, engine, OnnxRuntimeEngine(bundle.file(spec.file), spec, threads=0))
        assert found["passed"] is True, found
