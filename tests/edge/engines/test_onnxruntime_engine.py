"""The provider a session really got is what counts."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest

from edge.bundle import load_bundle
from edge.engines import EngineError, OnnxRuntimeEngine, onnxruntime_engine
from edge.engines.onnxruntime_engine import open_on_ladder
from edge.engines.opening import check_engines, open_engines


def test_a_provider_that_is_not_installed_is_an_error(bundle_path: Path) -> None:
    bundle = load_bundle(bundle_path)
    spec = bundle.manifest.engines["history_encoder"]
    with pytest.raises(EngineError, match="this onnxruntime has no CUDAExecutionProvider; install onnxruntime-gpu"):
        OnnxRuntimeEngine(bundle.file(spec.file), spec, threads=1, provider="cuda")


def test_the_ladder_ends_on_the_cpu_and_says_why(bundle_path: Path) -> None:
    bundle = load_bundle(bundle_path)
    spec = bundle.manifest.engines["history_encoder"]
    engine, reasons = open_on_ladder(bundle.file(spec.file), spec, threads=1)
    assert engine.describe() == f"onnxruntime {onnxruntime.__version__} CPUExecutionProvider"
    assert [reason.split(":")[0] for reason in reasons] == ["tensorrt", "cuda"]


def test_a_session_that_fell_back_in_silence_is_noticed(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build with CUDA on a machine without: the list is long, the session gets the CPU."""
    bundle = load_bundle(bundle_path)
    spec = bundle.manifest.engines["history_encoder"]
    everything = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: everything)
    with pytest.raises(EngineError, match=r"got \['CPUExecutionProvider'\] where CUDAExecutionProvider was asked for"):
        OnnxRuntimeEngine(bundle.file(spec.file), spec, threads=1, provider="cuda")
    engine, reasons = open_on_ladder(bundle.file(spec.file), spec, threads=1)
    assert "CPUExecutionProvider" in engine.describe() and len(reasons) == 2


GPU_ENGINES = ("onnxruntime-gpu", "onnxruntime-gpu-or-cpu")


@pytest.mark.parametrize(
    "listed", [[], ["CUDAExecutionProvider"], ["TensorrtExecutionProvider", "CUDAExecutionProvider"]]
)
def test_a_gpu_that_is_not_there_is_refused_unless_the_cpu_will_do(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch, listed: list[str]
) -> None:
    """Not listed, or listed and not got; before anything is opened where that can be known."""
    bundle = load_bundle(bundle_path)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [*listed, "CPUExecutionProvider"])
    with pytest.raises(EngineError, match=r"onnxruntime-gpu|where CUDAExecutionProvider was asked for"):
        check_engines(bundle, GPU_ENGINES[0], 1)
        open_engines(bundle, GPU_ENGINES[0], 1)
    if not listed:
        with pytest.raises(EngineError, match="choose onnxruntime-gpu-or-cpu"):
            check_engines(bundle, GPU_ENGINES[0], 1)
    check_engines(bundle, GPU_ENGINES[1], 1)
    engines = open_engines(bundle, GPU_ENGINES[1], 1)
    assert all("CPUExecutionProvider" in engine.describe() for engine in engines.values())


class Binding:
    """Stands in for a session and its binding, and notes what is bound."""

    def __init__(self) -> None:
        self.bound: list[str] = []

    def bind_ortvalue_input(self, name: str, value: object) -> None:
        self.bound.append(name)

    def run_with_iobinding(self, binding: object) -> None:
        self.bound.append("run")


@pytest.mark.parametrize("provider", ["cpu", "cuda"])
def test_a_gpus_provider_is_given_its_inputs_for_every_run(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    """It copies them when they are bound: bound once, it would go on with the first ones without a word."""
    monkeypatch.setitem(onnxruntime_engine.PROVIDERS, "cuda", "CPUExecutionProvider")
    bundle = load_bundle(bundle_path)
    spec = bundle.manifest.engines["history_encoder"]
    engine = OnnxRuntimeEngine(bundle.file(spec.file), spec, 1, provider)
    binding = Binding()
    monkeypatch.setattr(engine, "_binding", binding)
    monkeypatch.setattr(engine, "_session", binding)
    engine.run()
    engine.run()
    every = [] if provider == "cpu" else list(engine.inputs)
    assert binding.bound == 2 * [*every, "run"]
