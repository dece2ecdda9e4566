"""ONNX Runtime with IO binding: inputs and outputs live in arrays that never move."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

# From 1.29 on it reports to its maker, from a database in the home, unless this is set before it is loaded.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

from edge.bundle import Bundle, EngineSpec, GraphSpec, TensorSpec
from edge.engines.base import Engine, EngineDriver, EngineError

PROVIDERS = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
"""From the fastest to the one that is always there."""
PROVIDER_OPTIONS = {"cuda": {"use_tf32": "0"}}
"""What the graph calls FP32 is FP32: by default the CUDA provider multiplies with 10 bits of mantissa (TF32)."""
ONNX_NAMES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int32)": "int32",
    "tensor(uint8)": "uint8",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


@dataclass(frozen=True)
class OnCpu(EngineDriver):
    """On the CPU: the same everywhere."""

    def open(self, bundle: Bundle, names: Sequence[str]) -> dict[str, Engine]:
        specs = {name: bundle.manifest.engines[name] for name in names}
        return linked(
            {name: OnnxRuntimeEngine(bundle.file(spec.file), spec, self.threads) for name, spec in specs.items()},
            bundle.manifest.graph,
        )


@dataclass(frozen=True)
class OnGpu(EngineDriver):
    """On the first of TensorRT and CUDA that each graph really gets; a GPU that is not there is an error."""

    PROVIDERS: ClassVar[tuple[str, ...]] = ("tensorrt", "cuda")

    def check(self, bundle: Bundle) -> None:
        available = onnxruntime.get_available_providers()
        if not any(PROVIDERS[name] in available for name in self.PROVIDERS):
            raise EngineError(
                "--engine onnxruntime-gpu: this onnxruntime has no provider for a GPU; install onnxruntime-gpu (on a "
                "Jetson, the wheel of the Jetson AI Lab), or choose onnxruntime-gpu-or-cpu"
            )

    def open(self, bundle: Bundle, names: Sequence[str]) -> dict[str, Engine]:
        specs = {name: bundle.manifest.engines[name] for name in names}
        found: dict[str, OnnxRuntimeEngine] = {}
        for name, spec in specs.items():
            found[name], _ = open_on_ladder(bundle.file(spec.file), spec, self.threads, self.PROVIDERS)
        return linked(found, bundle.manifest.graph)


@dataclass(frozen=True)
class OnGpuOrCpu(OnGpu):
    """The same, and on the CPU where there is no GPU."""

    PROVIDERS: ClassVar[tuple[str, ...]] = (*OnGpu.PROVIDERS, "cpu")


class OnnxRuntimeEngine:
    """One session on one provider. `threads` is explicit: the control loop's core is not the inference pool's.

    What the library lists as available is no proof, and a session falls back without a word: what it really got is
    what counts, and anything else than `provider` is an error.
    """

    def __init__(self, path: Path, spec: EngineSpec, threads: int, provider: str = "cpu") -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = open_session(path, options, provider)
        _check(path, self._session.get_inputs(), spec.inputs)
        _check(path, self._session.get_outputs(), spec.outputs)
        self.inputs: dict[str, NDArray[Any]] = {t.name: np.zeros(t.shape, t.dtype) for t in spec.inputs}
        self.outputs: dict[str, NDArray[Any]] = {t.name: np.zeros(t.shape, t.dtype) for t in spec.outputs}
        self.on_gpu = provider != "cpu"
        self._binding = self._session.io_binding()
        self._given = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in self.inputs.items()}
        self._made = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in self.outputs.items()}
        self._bind(self._given)
        for name, value in self._made.items():
            self._binding.bind_ortvalue_output(name, value)

    def run(self) -> None:
        if self.on_gpu:  # its provider copies an input when it is bound, not when it runs
            self._bind({name: self._given[name] for name in self.inputs})
        self._session.run_with_iobinding(self._binding)

    def keep_on_gpu(self, output: str) -> onnxruntime.OrtValue:
        """Moves an output's buffer to the GPU, where it stays."""
        array = self.outputs.pop(output, None)
        if array is not None:
            value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(array.shape, array.dtype.type, "cuda", 0)
            self._made[output] = value
            self._binding.bind_ortvalue_output(output, value)
        return self._made[output]

    def take(self, name: str, source: OnnxRuntimeEngine, output: str, on_gpu: bool) -> None:
        """Makes another engine's output buffer the input `name`."""
        if on_gpu:
            self._given[name] = source.keep_on_gpu(output)
            del self.inputs[name]
        else:
            self._given[name] = source._made[output]
            self.inputs[name] = source.outputs[output]
        self._bind({name: self._given[name]})

    def _bind(self, values: dict[str, onnxruntime.OrtValue]) -> None:
        for name, value in values.items():
            self._binding.bind_ortvalue_input(name, value)

    def place(self, name: str) -> str:
        """Where an input's or output's buffer is: "cpu", "cuda"."""
        return str((self._made.get(name) or self._given[name]).device_name())

    def describe(self) -> str:
        return f"onnxruntime {onnxruntime.__version__} {self._session.get_providers()[0]}"


def linked(engines: dict[str, OnnxRuntimeEngine], graph: GraphSpec) -> dict[str, Engine]:
    """The engines, each with the buffers that the graph's links give it. One stays on the GPU when all who read it are
    there."""
    ends = {link: (link[0].partition(".")[0], link[1].partition(".")[0]) for link in graph.links}
    here = [link for link in graph.links if all(name in engines for name in ends[link])]
    read_here = {link[0] for link in here if not engines[ends[link][1]].on_gpu} | {graph.result}
    for source, target in here:
        maker, taker = (engines[name] for name in ends[source, target])
        stays = maker.on_gpu and source not in read_here
        taker.take(target.partition(".")[2], maker, source.partition(".")[2], stays)
    return dict(engines)


def open_on_ladder(
    path: Path, spec: EngineSpec, threads: int, providers: Sequence[str] = tuple(PROVIDERS)
) -> tuple[OnnxRuntimeEngine, list[str]]:
    """The engine on the first provider that really takes it. Also says why each one before did not. Raises
    `EngineError` when none does, with the reason of the last."""
    reasons: list[str] = []
    for provider in providers:
        try:
            return OnnxRuntimeEngine(path, spec, threads, provider), reasons
        except EngineError as error:
            reasons.append(f"{provider}: {error}")
    raise EngineError(reasons[-1].partition(": ")[2])


def open_session(
    path: Path, options: onnxruntime.SessionOptions, provider: str, more: Mapping[str, str] = MappingProxyType({})
) -> onnxruntime.InferenceSession:
    """A session that really runs on this provider, with `more` of its options. Raises `EngineError`."""
    wanted = PROVIDERS[provider]
    if wanted not in onnxruntime.get_available_providers():
        raise EngineError(
            f"this onnxruntime has no {wanted}; install onnxruntime-gpu (on a Jetson, the wheel of the Jetson AI Lab)"
        )
    # The CPU stands behind every other provider, for the few nodes that only it has.
    names = [wanted] if provider == "cpu" else [wanted, PROVIDERS["cpu"]]
    settings = [{**PROVIDER_OPTIONS.get(provider, {}), **more}, {}][: len(names)]
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=names, provider_options=settings)
    except Exception as error:  # the library's own exceptions share no base but Exception
        if "NOT_IMPLEMENTED" in str(error):
            raise EngineError(
                f"{path}: ONNX Runtime's {wanted} has no kernels for its precision; export with --precision fp32 or "
                "int8, or build it with edge-build on a GPU"
            ) from None
        raise EngineError(
            f"{path}: ONNX Runtime cannot open it ({str(error)[:160]}); export the checkpoint again"
        ) from None
    if session.get_providers()[:1] != [wanted]:
        raise EngineError(f"{path}: got {session.get_providers()} where {wanted} was asked for; is its CUDA installed?")
    session.disable_fallback()
    return session


def _check(path: Path, found: list[Any], expected: tuple[TensorSpec, ...]) -> None:
    have = {node.name: (ONNX_NAMES.get(node.type, node.type), tuple(node.shape)) for node in found}
    want = {tensor.name: (tensor.dtype, tensor.shape) for tensor in expected}
    if have != want:
        raise EngineError(f"{path}: has {have}, the manifest says {want}; export the checkpoint again")
