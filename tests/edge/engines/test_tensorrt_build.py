"""Builds the graphs with TensorRT-RTX, which needs no GPU for it, and holds what surrounds a built engine."""

from __future__ import annotations

import dataclasses
import importlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edge.bundle import load_bundle
from edge.cli import build
from edge.engines import EngineError, OnnxRuntimeEngine
from edge.engines.memory_plan import RUNTIME_BYTES, TARGETS, EngineDemand, explain, memory_plan
from edge.engines.opening import open_engines
from edge.engines.parity import check_engine, reference_samples
from edge.engines.tensorrt_builder import BuildSettings, build_engine
from edge.engines.tensorrt_cache import EngineCache, EngineKey, EngineRecord, engine_key
from edge.engines.tensorrt_library import TensorRt, find_tensorrt

ENGINES = ("backbone", "history_encoder", "action_decoder")
SETTINGS = BuildSettings((86, 89, 120), 256 << 20, None)


def edge_build(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = build.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err.strip()


def test_all_three_graphs_build_for_three_gpus_that_are_not_here(
    bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX has wheels for x86-64 only")
    arguments = (bundle_path, "--sm", "86,89,120", "--cache", tmp_path / "engines")
    code, said, _ = edge_build(capsys, *arguments)
    assert code == 0
    plans = {path.name.split(".")[0]: path for path in (tmp_path / "engines").glob("*.plan")}
    assert set(plans) == set(ENGINES)
    assert all(path.stat().st_size > 1_000_000 for path in plans.values())
    records = [json.loads(path.with_suffix(".json").read_text()) for path in plans.values()]
    assert {tuple(record["key"]["sm"]) for record in records} == {(86, 89, 120)}
    assert said.count("building with tensorrt_rtx") == 3
    assert said.count("not checked, there is no GPU of SM 86, 89, 120 here") == 3 or "matches" in said
    written = {path: path.stat().st_mtime_ns for path in plans.values()}
    code, said, _ = edge_build(capsys, *arguments)
    assert (code, said.count("building")) == (0, 0), "the second time they are there"
    assert {path: path.stat().st_mtime_ns for path in plans.values()} == written


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--sm", "87"), "does not build for SM 87; it knows 75, 80, 86, 89, 120, 121. A Jetson's engine is built on"),
        (("--target", "thor"), "--target plans for another machine; add --dry-run"),
    ],
)
def test_what_cannot_be_built_says_why(
    bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX has wheels for x86-64 only")
    code, _, complaint = edge_build(capsys, bundle_path, "--cache", tmp_path / "engines", *arguments)
    assert (code, len(complaint.splitlines())) == (2, 1)
    assert message in complaint
    assert not (tmp_path / "engines").exists()


def test_a_graph_that_is_none_is_refused_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX has wheels for x86-64 only")
    (tmp_path / "backbone.onnx").write_bytes(b"not a graph")
    with pytest.raises(EngineError, match=r"backbone.onnx: tensorrt_rtx .* does not take it") as refused:
        build_engine(find_tensorrt(), tmp_path / "backbone.onnx", SETTINGS)
    assert "\n" not in str(refused.value)


def test_without_tensorrt_the_error_names_both_ways_to_get_it(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    code, _, complaint = edge_build(capsys, bundle_path)
    assert code == 2
    assert "TensorRT is not installed" in complaint and "JetPack" in complaint and "vla-edge[rtx]" in complaint


def test_a_library_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib, "import_module", lambda name: SimpleNamespace(__version__="10.2.0"))
    with pytest.raises(EngineError, match=r"TensorRT 10.2.0 is too old, 10.3 or newer"):
        find_tensorrt()


@pytest.mark.parametrize(
    "engine", [SimpleNamespace(device_memory_size_v2=5), SimpleNamespace(device_memory_size=5)], ids=["11", "10.3"]
)
def test_what_11_renamed_is_found_under_both_names(engine: SimpleNamespace) -> None:
    assert TensorRt(None, "tensorrt", "11.4").device_memory_bytes(engine) == 5


def test_no_gpu_and_no_sm_names_the_option(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX has wheels for x86-64 only")
    monkeypatch.setattr(build, "present_gpu", lambda: None)
    code, _, complaint = edge_build(capsys, bundle_path)
    assert code == 2
    assert "there is no NVIDIA GPU here" in complaint and "--sm 86,89,120" in complaint


@pytest.fixture
def key(bundle_path: Path) -> EngineKey:
    return engine_key(load_bundle(bundle_path), "backbone", "tensorrt", "10.3.0", (87,))


def test_a_key_holds_everything_an_engine_depends_on(key: EngineKey) -> None:
    changes = (
        {"engine": "history_encoder"},
        {"graph_sha256": ("0" * 64,)},
        {"library": "tensorrt_rtx"},
        {"version": "10.13.0"},
        {"sm": (110,)},
        {"precision": "int8"},
        {"shapes": (*key.shapes[:-1], ("z", "float32", (1, 129)))},
    )
    digests = {dataclasses.replace(key, **change).digest for change in changes}
    assert len(digests | {key.digest}) == len(changes) + 1


def record_of(key: EngineKey, plan: bytes, passed: bool | None) -> EngineRecord:
    import hashlib

    checked = None if passed is None else {"passed": passed}
    return EngineRecord(key, hashlib.sha256(plan).hexdigest(), len(plan), 0, 1.0, {}, checked)


def test_only_a_checked_engine_of_this_machine_is_handed_out(key: EngineKey, tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    with pytest.raises(EngineError, match=r"has not been built .* run edge-build on this machine"):
        cache.require(key)
    cache.store(record_of(key, b"plan", None), b"plan")
    with pytest.raises(EngineError, match="has never run beside ONNX Runtime and must not drive an arm"):
        cache.require(key)
    cache.store(record_of(key, b"plan", False))
    with pytest.raises(EngineError, match="does not match ONNX Runtime and must not drive an arm"):
        cache.require(key)
    cache.store(record_of(key, b"plan", True))
    assert cache.require(key)[0] == b"plan"
    with pytest.raises(EngineError, match="was built for another GPU, TensorRT or bundle"):
        cache.require(dataclasses.replace(key, sm=(110,)))
    cache.plan(key).write_bytes(b"pl4n")
    with pytest.raises(EngineError, match="its content has changed"):
        cache.require(key)
    cache.plan(key).write_bytes(b"cut")
    assert cache.find(key) is None, "cut short: to be built again"


def test_an_engine_must_match_torch_and_onnxruntime(bundle_path: Path) -> None:
    bundle = load_bundle(bundle_path)
    for name in ENGINES:
        spec = bundle.manifest.engines[name]
        right = OnnxRuntimeEngine(bundle.file(spec.file), spec, threads=1)
        beside = OnnxRuntimeEngine(bundle.file(spec.file), spec, threads=1)
        assert len(reference_samples(bundle, name)) == 4
        found = check_engine(bundle, name, right, beside)
        assert found["passed"] is True
        assert {key.split(" ")[-1] for key in found["worst"]} == {"torch", "onnxruntime"}
        for spoil in (lambda array: array * 1.01, lambda array: array[..., ::-1], lambda array: array * np.nan):
            assert check_engine(bundle, name, Spoiled(right, spoil), beside)["passed"] is False


class Spoiled:
    """An engine that was fused wrongly."""

    def __init__(self, engine: OnnxRuntimeEngine, spoil: object) -> None:
        self._engine, self._spoil, self.inputs, self.outputs = engine, spoil, engine.inputs, {}

    def run(self) -> None:
        self._engine.run()
        self.outputs = {name: self._spoil(array) for name, array in self._engine.outputs.items()}

    def describe(self) -> str:
        return "spoiled"


def test_the_plan_adds_up_and_says_what_does_not_fit() -> None:
    needed = [
        EngineDemand("backbone", 8 * 10**9, 10**8, 7 * 10**9),
        EngineDemand("action_decoder", 10**9, 10**7, 10**10),
    ]
    plan = memory_plan(TARGETS["orin-nx"], needed, 5 * 10**8)
    assert plan.running == RUNTIME_BYTES + 9 * 10**9 + 11 * 10**7
    assert plan.building == RUNTIME_BYTES + 24 * 10**9 + 10**8 + 5 * 10**8
    assert (plan.largest, plan.runs, plan.builds) == ("backbone", True, False)
    assert plan.floor_s == pytest.approx(17e9 / 102.4e9)
    text = "\n".join(explain(plan, needed, 5 * 10**8))
    assert text.count("DOES NOT FIT") == 1 and "a lower precision" in text
    assert not memory_plan(TARGETS["orin-nano"], needed, 0).runs
    assert memory_plan(TARGETS["thor"], needed, 0).builds


def test_a_dry_run_plans_for_a_board_and_builds_nothing(bundle_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said, _ = edge_build(capsys, bundle_path, "--dry-run", "--target", "orin-nano")
    assert code == 0
    assert said.startswith("Orin Nano 8 GB (Super): 8 GB, less 2.5 for the system")
    assert "running" in said and "building" in said and said.count("fits") == 2
    assert not (bundle_path / "tensorrt").exists()


def test_engines_open_by_name_of_what_runs_them(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.engines.tensorrt_built.present_gpu", lambda: None)
    bundle = load_bundle(bundle_path)
    for kind in ("auto", "onnxruntime"):
        engines = open_engines(bundle, kind, threads=1)
        assert set(engines) == set(ENGINES)
        assert all(engine.describe().endswith("CPUExecutionProvider") for engine in engines.values())
    with pytest.raises(EngineError, match=r"there is no NVIDIA GPU here, .* use --engine onnxruntime"):
        open_engines(bundle, "tensorrt", threads=1)


@pytest.mark.gpu
def test_built_engines_run_match_and_replay_a_graph(bundle_path: Path, tmp_path: Path) -> None:
    from edge.engines.tensorrt_engine import CudaDevice, TensorRtEngine

    copy = tmp_path / "bundle"
    shutil.copytree(bundle_path, copy)
    assert build.main([str(copy)]) == 0
    bundle, library, device = load_bundle(copy), find_tensorrt(), CudaDevice()
    for name in ENGINES:
        key = engine_key(bundle, name, library.name, library.version, (device.sm,))
        plan, record = EngineCache(copy / "tensorrt").require(key)
        assert record.layers, "the inspector read the layers back"
        engine = TensorRtEngine(library, device, plan, bundle.manifest.engines[name])
        assert "CUDA graph" in engine.describe()
        for inputs, _ in reference_samples(bundle, name):
            for tensor, array in engine.inputs.items():
                array[:] = inputs[tensor]
            engine.run()
            first = {tensor: array.copy() for tensor, array in engine.outputs.items()}
            engine.run()
            assert all(np.array_equal(first[tensor], array) for tensor, array in engine.outputs.items())
        engine.close()
    device.close()
