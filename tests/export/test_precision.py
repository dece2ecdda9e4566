"""Lower precisions: what the graphs say, what they compute, and what the command makes of them."""

from __future__ import annotations

import collections
import gc
import json
import re
import weakref
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper

from edge.bundle import load_bundle
from edge.engines.tensorrt_builder import BuildSettings, build_engine
from edge.engines.tensorrt_library import find_tensorrt
from export.commands.export import main
from export.engines.calibrate import calibrate, int8_projections, large_projections
from export.engines.graphs import Graph, graph_of
from export.engines.observations import draw_samples
from export.engines.package import write_widened
from export.engines.precision import to_bf16, to_int8
from export.engines.tensors import activation_bytes, read_bytes
from export.engines.trace import release, trace, write
from export.families.action_prior.config import tiny
from export.families.action_prior.parts import RandomParts
from tests.conftest import SHIPPED

STEPS = 2
SAMPLES = [
    {**sample, "z": torch.nn.functional.normalize(torch.randn(1, 128), dim=-1)} for sample in draw_samples(tiny(), 6, 0)
]
FP32_ONLY = {
    "Softmax",
    "LayerNormalization",
    "ReduceMean",
    "Pow",
    "Sqrt",
    "Div",
    "Add",
    "Mul",
    "Where",
    "Sigmoid",
    "Gelu",
}


def decoder() -> Graph:
    return graph_of("action_decoder", RandomParts(tiny(), 3).part("decoder"), STEPS)


def run(path: Path, sample: dict[str, torch.Tensor], optimised: Path | None = None) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if optimised:
        options.optimized_model_filepath = str(optimised)
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(["chunk"], {node.name: sample[node.name].numpy() for node in session.get_inputs()})[0]


def type_of(model: onnx.ModelProto) -> dict[str, int]:
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        types[value.name] = value.type.tensor_type.elem_type
    return types


def relative_error(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> tuple[Graph, Path]:
    graph, path = decoder(), tmp_path_factory.mktemp("int8") / "action_decoder.onnx"
    ranges = calibrate(graph, SAMPLES, lambda: None)
    model = trace(graph)
    to_int8(model, ranges)
    write(model, path)
    return graph, path


@pytest.fixture(scope="module")
def bf16(tmp_path_factory: pytest.TempPathFactory) -> tuple[Graph, Path]:
    graph, path = decoder(), tmp_path_factory.mktemp("bf16") / "action_decoder.onnx"
    model = trace(graph)
    to_bf16(model, [f"{name}.weight" for name in large_projections(graph.module)])
    write(model, path)
    return graph, path


def test_unrolling_copies_what_a_step_needs_and_shares_the_rest(tmp_path: Path) -> None:
    graph = decoder()
    model = trace(graph)
    write(model, tmp_path / "action_decoder.onnx")
    for sample in SAMPLES:
        with torch.no_grad():
            wanted = graph.whole(*(sample[name] for name in graph.inputs))[0].numpy()
        assert np.abs(run(tmp_path / "action_decoder.onnx", sample) - wanted).max() < 1e-6
    uses = collections.Counter(value.name for node in model.graph for value in node.inputs if value is not None)
    assert uses["layers.0.attention.qkv.weight"] == STEPS
    assert uses["latent_in.weight"] == 1, "the latent does not change with the flow"
    assert [value.name for value in model.graph.inputs] == ["noise", "z", "prefix", "committed", "used"]


def test_memory_is_counted_in_the_graph() -> None:
    """x (4 x 8 floats) is doubled twice and added to itself: three values of 128 bytes live at once."""
    weight = numpy_helper.from_array(np.ones((8, 8), np.float32), "w")
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "w"], ["a"]),
        onnx.helper.make_node("MatMul", ["a", "w"], ["b"]),
        onnx.helper.make_node("Gather", ["w", "row"], ["c"]),
        onnx.helper.make_node("Add", ["x", "b"], ["y"]),
    ]
    floats = [onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 8]) for name in "xaby"]
    row = onnx.helper.make_tensor_value_info("row", TensorProto.INT64, [1])
    graph = onnx.helper.make_graph(nodes, "g", [floats[0], row], [floats[3]], [weight], value_info=floats[1:3])
    found = ir.from_proto(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)])).graph
    assert activation_bytes(found) == 3 * 128 + 8
    assert read_bytes(found) == 2 * 8 * 8 * 4, "twice for the products, not for the lookup"


def test_smoothing_changes_no_product() -> None:
    graph, sample = decoder(), SAMPLES[0]
    inputs = [sample[name] for name in graph.inputs]
    with torch.no_grad():
        before = graph.whole(*inputs)[0]
        calibrate(graph, SAMPLES[:2], lambda: None)
        after = graph.whole(*inputs)[0]
    assert 0 < (after - before).abs().max() < 1e-5


def test_int8_products_stand_between_symmetric_pairs(int8: tuple[Graph, Path]) -> None:
    graph, path = int8
    model = onnx.load(path)
    made = {output: node for node in model.graph.node for output in node.output}
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    large = int8_projections(graph.module)
    found = collections.Counter()
    for node in model.graph.node:
        if node.op_type != "MatMul" or not node.input[1].endswith(".restored"):
            continue
        x, weight = made[node.input[0]], made[node.input[1]]
        assert (x.op_type, made[x.input[0]].op_type) == ("DequantizeLinear", "QuantizeLinear")
        assert weight.op_type == "DequantizeLinear"
        values, scale, zero = (held[name] for name in weight.input)
        assert (values.data_type, len(scale.dims)) == (TensorProto.INT8, 1)
        assert list(scale.dims) == list(values.dims[1:]), "one scale per output"
        assert np.abs(numpy_helper.to_array(values)).max() == 64, "two products fit into 16 bits"
        assert not numpy_helper.to_array(zero).any() and not numpy_helper.to_array(held[x.input[2]]).any()
        found[weight.input[0].removesuffix(".weight.int8")] += 1
    assert found == dict.fromkeys(large, STEPS)
    floats = [tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT]
    assert not {f"{name}.weight" for name in large} & {tensor.name for tensor in floats}


def test_int8_runs_as_integers_and_comes_close(int8: tuple[Graph, Path], tmp_path: Path) -> None:
    graph, path = int8
    wanted, found = [], []
    for sample in SAMPLES:
        with torch.no_grad():
            wanted.append(graph.whole(*(sample[name] for name in graph.inputs))[0].numpy())
        found.append(run(path, sample, tmp_path / "optimised.onnx"))
    assert 1e-6 < relative_error(np.array(found), np.array(wanted)) < 0.02
    kinds = collections.Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    integer = kinds["MatMulIntegerToFloat"] + kinds["QLinearMatMul"]
    assert integer == STEPS * len(int8_projections(graph.module)), kinds


def test_every_large_product_of_the_backbone_runs_as_integers(tmp_path: Path) -> None:
    """A bias that a runtime merges into a Gemm takes the product out of INT8 without a word."""
    graph = graph_of("backbone", RandomParts(tiny(), 3).part("backbone"), STEPS)
    samples = [
        {**sample, "history": sample["z"], "has_history": torch.ones(1, dtype=torch.bool)} for sample in SAMPLES[:2]
    ]
    ranges = calibrate(graph, samples, lambda: None)
    model = trace(graph)
    to_int8(model, ranges)
    write(model, tmp_path / "backbone.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "optimised.onnx"), 3
    onnxruntime.InferenceSession(str(tmp_path / "backbone.onnx"), options, providers=["CPUExecutionProvider"])
    kinds = collections.Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    integer = kinds["MatMulIntegerToFloat"] + kinds["QLinearMatMul"]
    assert integer == len(large_projections(graph.module)), kinds


@pytest.mark.parametrize(
    ("engine", "part", "kept"),
    [
        ("history_encoder", "encoder", r"layers\.\d+\.mlp\.down"),
        ("action_decoder", "decoder", r"layers\.0\..*"),
    ],
)
def test_what_int8_would_spoil_stays_fp32(engine: str, part: str, kept: str, tmp_path: Path) -> None:
    graph = graph_of(engine, RandomParts(tiny(), 3).part(part), STEPS)
    ranges = calibrate(graph, SAMPLES[:2], lambda: None)
    large = {f"{name}.weight" for name in large_projections(graph.module)}
    fp32 = {name for name in large if re.fullmatch(kept + r"\.weight", name)}
    assert fp32 and ranges.keys() == large - fp32
    model = trace(graph)
    to_int8(model, ranges)
    write(model, tmp_path / "m.onnx")
    held = {tensor.name: tensor.data_type for tensor in onnx.load(tmp_path / "m.onnx").graph.initializer}
    assert {held[name] for name in fp32} == {TensorProto.FLOAT}


def test_a_range_that_is_too_small_spoils_int8(tmp_path: Path) -> None:
    graph = decoder()
    ranges = {
        name: [0.01 * value for value in found] for name, found in calibrate(graph, SAMPLES, lambda: None).items()
    }
    model = trace(graph)
    to_int8(model, ranges)
    write(model, tmp_path / "m.onnx")
    with torch.no_grad():
        wanted = graph.whole(*(SAMPLES[0][name] for name in graph.inputs))[0].numpy()
    assert relative_error(run(tmp_path / "m.onnx", SAMPLES[0]), wanted) > 0.15


@pytest.mark.parametrize("kind", ["int8", "bf16"])
def test_state_norms_and_softmax_stay_fp32(kind: str, request: pytest.FixtureRequest) -> None:
    _, path = request.getfixturevalue(kind)
    model = onnx.shape_inference.infer_shapes(onnx.load(path), data_prop=True)
    types = type_of(model)
    for node in model.graph.node:
        if node.op_type in FP32_ONLY:
            inside = [types[name] for name in (*node.input, *node.output) if name in types]
            assert set(inside) <= {TensorProto.FLOAT, TensorProto.BOOL, TensorProto.INT64}, node.name


def test_bf16_products_take_and_give_bf16(bf16: tuple[Graph, Path], tmp_path: Path) -> None:
    graph, path = bf16
    types = type_of(onnx.shape_inference.infer_shapes(onnx.load(path)))
    large = {f"{name}.weight.bf16" for name in large_projections(graph.module)}
    products = [node for node in onnx.load(path).graph.node if node.op_type == "MatMul" and node.input[1] in large]
    assert len(products) == STEPS * len(large)
    for node in products:
        assert {types[name] for name in (*node.input, *node.output)} == {TensorProto.BFLOAT16}
    write_widened(path, tmp_path / "wide.onnx")
    wanted, found = [], []
    for sample in SAMPLES:
        with torch.no_grad():
            wanted.append(graph.whole(*(sample[name] for name in graph.inputs))[0].numpy())
        found.append(run(tmp_path / "wide.onnx", sample))
    assert 1e-5 < relative_error(np.array(found), np.array(wanted)) < 0.02


def test_the_widened_form_rounds_like_torch(tmp_path: Path) -> None:
    x, weight = torch.randn(1, 5, 64), torch.randn(64, 32)
    rounded = (x.bfloat16().float() @ weight.bfloat16().float()).bfloat16().float().numpy()
    model = ir.from_proto(
        onnx.helper.make_model(
            onnx.helper.make_graph(
                [
                    onnx.helper.make_node("MatMul", ["x", "w"], ["y"]),
                    onnx.helper.make_node("Identity", ["y"], ["chunk"]),
                ],
                "product",
                [onnx.helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 5, 64])],
                [onnx.helper.make_tensor_value_info("chunk", TensorProto.FLOAT, [1, 5, 32])],
                [numpy_helper.from_array(weight.numpy(), "w")],
            ),
            opset_imports=[onnx.helper.make_opsetid("", 20)],
            ir_version=10,
        )
    )
    to_bf16(model, ["w"])
    write(model, tmp_path / "typed.onnx")
    write_widened(tmp_path / "typed.onnx", tmp_path / "wide.onnx")
    found = run(tmp_path / "wide.onnx", {"x": x})
    assert np.abs(found - rounded).max() <= np.abs(rounded).max() * 2**-8, "at most one rounding apart"
    assert np.mean(found == rounded) > 0.95


@pytest.mark.parametrize("kind", ["int8", "bf16"])
def test_tensorrt_takes_the_graph(kind: str, request: pytest.FixtureRequest) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX has wheels for x86-64 only")
    _, path = request.getfixturevalue(kind)
    built = build_engine(find_tensorrt(), path, BuildSettings((89,), 256 << 20, None))
    assert len(built.plan) > 500_000


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from lab.experts.demonstrations import main as record

    folder = tmp_path_factory.mktemp("data") / "recorded"
    record(["--episodes", "4", "--seed", "7", "--out", str(folder)])
    return folder


def test_int8_exports_a_verified_bundle(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.engines.family.CALIBRATION_SAMPLES", 48)
    out = tmp_path / "bundle"
    arguments = ["--precision", "int8", "--observations", str(recorded), "--samples", "8", "-o", str(out)]
    assert main([str(SHIPPED), "--flow-steps", str(STEPS), *arguments]) == 0
    report = json.loads((out / "verification.json").read_text())
    assert load_bundle(out).manifest.precision == report["precision"] == "int8"
    assert report["calibration_samples"] == 48
    assert report["negative_control"]["caught"] is True
    for name, agreement in report["agreement"].items():
        gate = agreement["gate"]
        assert gate["cosine"] == (0.99 if name.endswith("chunk") else 0.999)
        assert agreement["cosine"] >= gate["cosine"] and agreement["relative_rms"] <= gate["relative_rms"]
    assert sum(report["size_bytes"].values()) < 5e6


def test_a_written_graph_lets_its_weights_go(tmp_path: Path) -> None:
    """One part in memory at a time: at the paper's size a graph that stays alive is 8.5 GB."""
    graph = decoder()
    weight = weakref.ref(graph.module.layers[0].mlp.down.weight)
    model = trace(graph)
    write(model, tmp_path / "action_decoder.onnx")
    release(model)
    del graph, model
    gc.collect()
    assert weight() is None
