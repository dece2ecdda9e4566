"""Compares an engine that was built here with ONNX Runtime and with FP32 torch, on observations from the bundle.

A fused kernel can be wrong and fast; no built engine drives an arm before it has passed this.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.bundle import REFERENCE, VERIFICATION, Bundle
from edge.engines.base import Engine, EngineError

STILL = 0.1
"""As in the export's verification: below this RMS, in units of their spread, actions have no direction."""
GPU_FP32 = {"relative_rms": 1e-3, "cosine": 0.99999}
"""For FP32 on a GPU, whose kernels add up in another order: 1e-5 absolute is a promise of the CPU's engines."""
Sample = dict[str, NDArray[Any]]


def reference_samples(bundle: Bundle, engine: str) -> list[tuple[Sample, Sample]]:
    """Inputs and FP32 torch outputs of one engine. Raises `EngineError` for a bundle without them."""
    if REFERENCE not in bundle.manifest.files:
        raise EngineError(f"{bundle.path}: no {REFERENCE} to check engines with; export the checkpoint again")
    found: dict[str, tuple[Sample, Sample]] = {}
    with np.load(bundle.file(REFERENCE), allow_pickle=False) as archive:
        for key in archive.files:
            name, number, kind, tensor = key.split("/")
            if name == engine:
                pair = found.setdefault(number, ({}, {}))
                pair[kind == "output"][tensor] = archive[key]
    return [found[number] for number in sorted(found)]


def gates(bundle: Bundle, engine: str, output: str) -> dict[str, float]:
    """What an output is held to: the export's own gates, but for FP32."""
    if bundle.manifest.precision == "fp32":
        return GPU_FP32
    report = json.loads(bundle.file(VERIFICATION).read_text(encoding="utf-8"))
    return dict(report["agreement"][f"{engine}.{output}"]["gate"])


def check_engine(bundle: Bundle, name: str, built: Engine, beside: Engine | None) -> dict[str, Any]:
    """Runs every reference sample; `passed` says whether the built engine may be used, `worst` why not.

    `beside` is ONNX Runtime with the same graph, or None where it has no kernels for it (BF16 on a CPU).
    """
    worst: dict[str, dict[str, float]] = {}
    for inputs, wanted in reference_samples(bundle, name):
        found = _answers(built, inputs)
        references = {"torch": wanted} if beside is None else {"torch": wanted, "onnxruntime": _answers(beside, inputs)}
        for against, answers in references.items():
            for output, array in found.items():
                measured = _measure(_in_use(inputs, array), _in_use(inputs, answers[output]))
                held = worst.setdefault(f"{output} against {against}", {"relative_rms": 0.0, "cosine": 1.0})
                held["relative_rms"] = float(np.maximum(held["relative_rms"], measured[0]))  # keeps a NaN
                held["cosine"] = float(np.minimum(held["cosine"], measured[1]))
    passed = bool(worst) and all(_within(held, gates(bundle, name, key.split(" ")[0])) for key, held in worst.items())
    return {"passed": passed, "engine": built.describe(), "worst": worst}


def _answers(engine: Engine, inputs: Sample) -> Sample:
    for name, array in engine.inputs.items():
        array[:] = inputs[name]
    engine.run()
    return {name: array.copy() for name, array in engine.outputs.items()}


def _in_use(inputs: Sample, array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim < 3 or not {"committed", "used"} <= inputs.keys():
        return array
    rows: NDArray[Any] = array[0][~inputs["committed"][0]]
    return rows[:, inputs["used"][0] > 0]


def _measure(found: NDArray[Any], wanted: NDArray[Any]) -> tuple[float, float]:
    a, b = found.astype(np.float64).ravel(), wanted.astype(np.float64).ravel()
    size = float(np.sqrt(np.mean(b**2)))
    floor = STILL if wanted.shape[0] != 1 else 0.0
    relative = float(np.sqrt(np.mean((a - b) ** 2))) / max(size, floor)
    return relative, float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))) if size >= floor else 1.0


def _within(held: dict[str, float], gate: dict[str, float]) -> bool:
    return held["relative_rms"] <= gate["relative_rms"] and held["cosine"] >= gate["cosine"]
