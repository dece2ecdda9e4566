"""ONNX Runtime with IO binding: inputs and outputs live in arrays that never move."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edge.bundle import EngineSpec, TensorSpec
from edge.engines.base import EngineError

PROVIDER = "CPUExecutionProvider"
ONNX_NAMES = {
    "tensor(float)": "float32",
    "tensor(uint8)": "uint8",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


class OnnxRuntimeEngine:
    """One session on the CPU. `threads` is explicit: the control loop's core is not the inference pool's."""

    def __init__(self, path: Path, spec: EngineSpec, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=[PROVIDER])
        except Exception as error:  # the library's own exceptions share no base but Exception
            raise EngineError(
                f"{path}: ONNX Runtime cannot open it ({str(error)[:160]}); export the checkpoint again"
            ) from None
        if self._session.get_providers() != [PROVIDER]:
            raise EngineError(f"{path}: got {self._session.get_providers()} where {PROVIDER} was asked for")
        _check(path, self._session.get_inputs(), spec.inputs)
        _check(path, self._session.get_outputs(), spec.outputs)
        self.inputs = {tensor.name: np.zeros(tensor.shape, tensor.dtype) for tensor in spec.inputs}
        self.outputs: dict[str, NDArray[Any]] = {
            tensor.name: np.zeros(tensor.shape, tensor.dtype) for tensor in spec.outputs
        }
        self._binding = self._session.io_binding()
        for name, array in self.inputs.items():
            self._binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
        for name, array in self.outputs.items():
            self._binding.bind_ortvalue_output(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))

    def run(self) -> None:
        self._session.run_with_iobinding(self._binding)

    def describe(self) -> str:
        return f"onnxruntime {onnxruntime.__version__} {PROVIDER}"


def _check(path: Path, found: list[Any], expected: tuple[TensorSpec, ...]) -> None:
    have = {node.name: (ONNX_NAMES.get(node.type, node.type), tuple(node.shape)) for node in found}
    want = {tensor.name: (tensor.dtype, tensor.shape) for tensor in expected}
    if have != want:
        raise EngineError(f"{path}: has {have}, the manifest says {want}; export the checkpoint again")
